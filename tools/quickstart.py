#!/usr/bin/env python
"""Door to mgre_cli.quickstart, for the options, and to mgre.commands.quickstart, for the work."""

import sys

from mgre_cli.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
