"""Train, evaluate and re-rank MGRe on drawn pedestrians, and say where everything is.

Example:
    tools/quickstart.py SEED 1 OUTPUT_DIR logs/other
"""

import argparse

from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    return start("quickstart", parse_args(words))
