"""Where the README's figures come from: each benchmark runs with `make bench-NAME`."""
