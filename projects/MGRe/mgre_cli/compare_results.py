"""Compare a run with the figures that its config gave before (docs/results.csv).

Examples:
    tools/compare_results.py --config-file configs/MGRe/market-quick.yml
    tools/compare_results.py --config-file configs/MGRe/market-quick.yml --results logs/mine/results.json

The exit status is 1 if a figure is lower than expected. Start it in the root of the repository.
"""

import argparse

from mgre_cli.arguments import add_allow_imports
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the config of the run")
    add_allow_imports(parser)
    parser.add_argument("--results", metavar="FILE", help="of the run (default: OUTPUT_DIR/results.json)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides of the run, in pairs")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("compare_results", parse_args(words))
