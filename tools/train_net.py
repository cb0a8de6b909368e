#!/usr/bin/env python
"""Train or evaluate a config: MGRe's, or any of the toolbox's."""

import sys

from mgre.engine import main, run  # first: it makes the toolbox importable

from fastreid.engine import default_argument_parser, launch

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    sys.exit(
        main(
            lambda: launch(
                run,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args,),
            )
        )
    )
