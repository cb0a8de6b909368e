"""Train, evaluate and re-rank MGRe on drawn pedestrians, and say where everything is.

Example:
    tools/quickstart.py SEED 1 OUTPUT_DIR logs/other
"""

import argparse


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    args = parse_args(words)
    # Imported only after the options have been parsed: these import torch, which takes seconds.
    from mgre.commands.main import main as run_command
    from mgre.commands.quickstart import run

    return run_command(lambda: run(args))
