"""`python -m blt` is the command `blt`."""

from blt.cli import main

if __name__ == "__main__":
    main()
