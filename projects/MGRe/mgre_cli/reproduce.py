"""Reproduce the paper's tables and figures, on its data sets or on your own.

Examples:
    tools/reproduce.py table4 --config-file configs/MGRe/market.yml --num-seeds 3
    tools/reproduce.py all --dry-run
    tools/reproduce.py table4 table7 --config-file configs/MGRe/custom.yml DATASETS.CUSTOM.ROOT path/to/folder

Trainings that are finished are skipped, and those that were cut go on. --dry-run prints the command lines that are
left, which may be run anywhere: their results are picked up from their output folders.
"""

import argparse
from pathlib import Path

from mgre_cli.arguments import add_allow_imports
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="experiment | KEY VALUE",
        help="table2 ... table8, figure4 ... figure6, balance, or all; then config overrides in pairs, for every run",
    )
    parser.add_argument(
        "--config-file",
        action="append",
        default=[],
        metavar="FILE",
        help="a data set; may be given several times (default: those of the paper's table)",
    )
    add_allow_imports(parser)
    parser.add_argument("--num-seeds", type=int, default=1, help="of each training, from 0 (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("logs/reproduce"), help="of trainings and results (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command lines that are left, run nothing")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("reproduce", parse_args(words))
