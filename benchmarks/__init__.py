"""What the figures of README.md come from; each runs with one command, `make bench-NAME`."""
