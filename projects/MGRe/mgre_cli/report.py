"""An evaluation as one HTML file, which needs no network and can be sent as it is.

Examples:
    tools/report.py --model logs/MGRe/quickstart/model_final.pth TEST.RERANK.ENABLED True
    tools/report.py --config-file configs/MGRe/market.yml MODEL.WEIGHTS logs/MGRe/market/model_final.pth
    tools/report.py --model logs/MGRe/market/model_final.pth --output market.html

It has the figures with intervals, the CMC curve, mAP by pair of cameras, the scores of matches and non-matches, the
regions' IoU, and the worst queries with their rank lists. So it has pictures of people in it.
With TEST.REPORT True, tools/train_net.py --eval-only writes the same file to OUTPUT_DIR.
"""

import argparse

from mgre_cli.arguments import add_evaluated_model
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_evaluated_model(parser)
    parser.add_argument("--output", metavar="FILE", help="the HTML file (default: report.html beside the model)")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("report", parse_args(words))
