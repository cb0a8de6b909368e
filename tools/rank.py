#!/usr/bin/env python
"""Door to mgre_cli.rank, for the options, and to mgre.commands.rank, for the work."""

import sys

from mgre_cli.rank import main

if __name__ == "__main__":
    sys.exit(main())
