#!/usr/bin/env python
"""Door to mgre_cli.reproduce, for the options, and to mgre.commands.reproduce, for the work."""

import sys

from mgre_cli.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
