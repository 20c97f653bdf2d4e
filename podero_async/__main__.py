"""Runs the command line as `python -m podero_async`, for when the script `podero-async` is not on the path."""

import sys

from podero_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
