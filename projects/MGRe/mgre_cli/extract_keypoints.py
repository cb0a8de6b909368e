"""Find the key points of a data set's images with a pose model, import those you have, or check a file of them.

Examples:
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml
    tools/extract_keypoints.py --images path/to/crops --model hrnet --weights hrnet_w32_256x192.pth
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml --import boxmot metadata.json
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml --check
    tools/extract_keypoints.py --config-file configs/MGRe/market.yml --sheets

Exit status: 0 all is well, 1 an error or a file that --check refuses, 3 done but images were skipped, 130 stopped by
Ctrl-C (where it was finding key points, the same command goes on from there).
"""

import argparse
import io
import sys

from mgre_cli.arguments import add_allow_imports, positive


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--config-file", help="the images of all splits that this config uses")
    images.add_argument("--images", metavar="DIR", help="all images in a folder and below")
    add_allow_imports(parser)
    parser.add_argument(
        "--output",
        help="key point file to write, check or draw (default: DATASETS.KEYPOINTS, where training would look for it; "
        "with --images a new one is always in DIR)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--model", default="rtmpose", help="rtmpose (default), hrnet, onnx, or one of your own")
    parser.add_argument("--weights", default="", help="its weight file (default: the published one, downloaded)")
    parser.add_argument("--batch-size", type=positive, default=32, help="images at a time (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--import",
        dest="source",
        nargs=2,
        metavar=("FORMAT", "PATH"),
        help="take key points you have instead of finding them; formats: boxmot, coco, kpr, openpifpaf, yolo",
    )
    instead.add_argument(
        "--check",
        action="store_true",
        help="only check the key point file against the images; it is COCO's, other forms need --import first",
    )
    instead.add_argument("--sheets", action="store_true", help="only draw the sheets of the key point file")
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs, such as MODEL.DEVICE cpu"
    )
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    args = parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may have bytes that are no text
    # Imported only after the options have been parsed: this imports torch, which takes seconds.
    from mgre.commands.extract_keypoints import call

    return call(args)
