#!/usr/bin/env python
"""Door to mgre_cli.export, for the options, and to mgre.commands.export, for the work."""

import sys

from mgre_cli.export import main

if __name__ == "__main__":
    sys.exit(main())
