"""Rank lists of an evaluation as pictures: queries, and the gallery images that are nearest to them.

Examples:
    tools/rank.py --model logs/MGRe/quickstart/model_final.pth --worst 10
    tools/rank.py --model logs/MGRe/quickstart/model_final.pth --random 20 --seed 1 --boxes TEST.RERANK.ENABLED True
    tools/rank.py --config-file configs/MGRe/market.yml --worst 5 MODEL.WEIGHTS logs/MGRe/market/model_final.pth
    tools/rank.py --model logs/MGRe/market/model_final.pth --query 0001_c1s1_001051_00.jpg

The order is the evaluation's own. Images of the query's person from the query's own camera are left out, as in the
evaluation. Green frames: the query's person; red frames: somebody else. With TEST.RERANK.ENABLED True the re-ranked
list is below the plain one. Writes a PNG for each query, and all of them below each other as sheet.png.
"""

import argparse

from mgre_cli.arguments import add_evaluated_model, positive, seed
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_evaluated_model(parser)
    parser.add_argument("--worst", type=positive, metavar="N", help="queries of the lowest average precision")
    parser.add_argument("--best", type=positive, metavar="N", help="queries of the highest average precision")
    parser.add_argument("--random", type=positive, metavar="N", help="queries drawn by chance")
    parser.add_argument("--seed", type=seed, default=0, help="of --random (default: %(default)s)")
    parser.add_argument(
        "--query", action="append", default=[], metavar="NAME", help="this query: a path or file name; may be repeated"
    )
    parser.add_argument(
        "--length", type=positive, default=10, metavar="K", help="images of a list (default: %(default)s)"
    )
    parser.add_argument("--boxes", action="store_true", help="draw the regions' boxes that the model predicts")
    parser.add_argument("--output", metavar="DIR", help="of the pictures (default: rank-lists beside the model)")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("rank", parse_args(words))
