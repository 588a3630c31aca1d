"""`python -m blt.generate` is the command `blt generate`."""

import sys

from blt.cli import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])
