"""Compare images: is it the same person, how sure is that, and which regions say so?

Examples:
    tools/compare.py a.jpg b.jpg --model model.pth
    tools/compare.py a.jpg b.jpg --model model.pth --rate 0.01 --picture pair.png
    tools/compare.py a.jpg b.jpg c.jpg --model model.pth --json

Two images give the cosine of their features and, of an MGRe, each region's share of it; more images give the cosines of
all pairs. Of a model that mgre calibrate has calibrated, the error rates at the cosine and a verdict come with it.
"""

import argparse

from mgre_cli.arguments import add_model_use
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="crops of one person each, two or more")
    parser.add_argument("--model", required=True, metavar="FILE", help="a trained model")
    add_model_use(parser)
    parser.add_argument(
        "--rate",
        type=float,
        default=0.01,
        help="the verdict's false-match rate: how many of the pairs of different people may pass for one person "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="draw two images with their boxes and the regions' shares; replaces it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(words)
    if len(args.images) < 2:
        parser.error("one image cannot be compared: name two or more")
    if args.picture and len(args.images) > 2:
        parser.error(f"--picture draws two images, and {len(args.images)} are named")
    return args


def main(words: list[str] | None = None) -> int:
    return start("compare", parse_args(words))
