#!/usr/bin/env python
"""Door to mgre_cli.calibrate, for the options, and to mgre.commands.calibrate, for the work."""

import sys

from mgre_cli.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
