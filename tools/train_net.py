#!/usr/bin/env python
"""Door to mgre_cli.train, for the options, and to mgre.engine.run, for the work."""

import sys

from mgre_cli.train import main

if __name__ == "__main__":
    sys.exit(main())
