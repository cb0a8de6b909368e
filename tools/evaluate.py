#!/usr/bin/env python
"""Door to mgre_cli.evaluate, for the options, and to mgre.commands.evaluate, for the work."""

import sys

from mgre_cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
