#!/usr/bin/env python
"""Door to mgre_cli.card, for the options, and to mgre.commands.card, for the work."""

import sys

from mgre_cli.card import main

if __name__ == "__main__":
    sys.exit(main())
