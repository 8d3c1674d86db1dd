"""`python -m app.cli` is `muka`."""

from app.cli import main

main()
