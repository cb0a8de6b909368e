#!/usr/bin/env python
"""Train or evaluate a config: MGRe's, or any of the toolbox's."""

import sys

from mgre.engine import default_argument_parser, launch, main, run

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    sys.exit(main(lambda: launch(run, args)))
