"""``python -m mgre_cli`` is the command ``mgre``."""

import sys

from mgre_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
