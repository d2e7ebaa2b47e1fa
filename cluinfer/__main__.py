"""`python -m cluinfer`: the command line."""

import sys

from cluinfer.cli import main

if __name__ == "__main__":
    sys.exit(main())
