#!/usr/bin/env python
"""Door to mgre_cli.extract_keypoints, for the options, and to mgre.commands.extract_keypoints, for the work."""

import sys

from mgre_cli.extract_keypoints import main

if __name__ == "__main__":
    sys.exit(main())
