#!/usr/bin/env python
"""Door to mgre_cli.compare_results, for the options, and to mgre.commands.compare_results, for the work."""

import sys

from mgre_cli.compare_results import main

if __name__ == "__main__":
    sys.exit(main())
