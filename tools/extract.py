#!/usr/bin/env python
"""Door to mgre_cli.extract, for the options, and to mgre.commands.extract, for the work."""

import sys

from mgre_cli.extract import main

if __name__ == "__main__":
    sys.exit(main())
