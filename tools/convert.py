#!/usr/bin/env python
"""Door to mgre_cli.convert, for the options, and to mgre.commands.convert, for the work."""

import sys

from mgre_cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
