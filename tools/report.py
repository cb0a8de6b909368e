#!/usr/bin/env python
"""Door to mgre_cli.report, for the options, and to mgre.commands.report, for the work."""

import sys

from mgre_cli.report import main

if __name__ == "__main__":
    sys.exit(main())
