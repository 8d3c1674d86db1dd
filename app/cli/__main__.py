"""`python -m app.cli`: the same as `muka`, where no console script is installed."""

from app.cli import main

if __name__ == "__main__":
    main()
