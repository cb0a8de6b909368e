#!/usr/bin/env python
"""Door to mgre_cli.compare, for the options, and to mgre.commands.compare, for the work."""

import sys

from mgre_cli.compare import main

if __name__ == "__main__":
    sys.exit(main())
