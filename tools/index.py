#!/usr/bin/env python
"""Door to mgre_cli.index, for the options, and to mgre.commands.index, for the work."""

import sys

from mgre_cli.index import main

if __name__ == "__main__":
    sys.exit(main())
