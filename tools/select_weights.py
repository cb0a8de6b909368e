#!/usr/bin/env python
"""Door to mgre_cli.select_weights, for the options, and to mgre.commands.select_weights, for the work."""

import sys

from mgre_cli.select_weights import main

if __name__ == "__main__":
    sys.exit(main())
