"""Compute the features of images with a trained model, and write them to a file.

Examples:
    tools/extract.py path/to/crops --model model.pth --output features.npz
    tools/extract.py a.jpg b.jpg --model model.pth --flip
    tools/extract.py --csv boxes.csv --model model.pth --regions
    tools/extract.py --video video.mp4 --csv boxes.csv --model model.pth --output features.parquet

A CSV has the column path, relative to its folder, or with --video the column frame, from 0; for boxes x_min, y_min,
x_max and y_max in pixels; and any others: id, camera, time, and metadata.

Exit status: 0 all is well, 1 an error, 3 done but images were skipped, 130 stopped by Ctrl-C (the same command goes on
from there).
"""

import argparse
import io
import sys

from mgre_cli.arguments import add_model_use, positive
from mgre_cli.start import start

STOPPED = 130


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "inputs", nargs="*", metavar="IMAGE", help="image files, and folders with images in them or below"
    )
    parser.add_argument("--csv", metavar="FILE", help="instead, the images or boxes of a CSV")
    parser.add_argument("--video", metavar="FILE", help="the video that the CSV's boxes are in")
    parser.add_argument("--model", required=True, metavar="FILE", help="a trained model")
    add_model_use(parser)
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides in pairs")
    parser.add_argument(
        "--output", default="features.npz", metavar="FILE", help="to write, .npz or .parquet (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    parser.add_argument("--amp", action="store_true", help="mixed precision: faster on most GPUs, less exact")
    parser.add_argument("--batch-size", type=positive, default=64, help="images at a time (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--flip", action="store_true", help="the mean of the features of an image and its mirror image"
    )
    instead.add_argument("--regions", action="store_true", help="the boxes and vectors of the regions too")
    args = parser.parse_args(words)
    if bool(args.inputs) == bool(args.csv):
        parser.error("name images and folders of them, or else a --csv")
    if args.video and not args.csv:
        parser.error("--video needs the boxes of its frames: --csv boxes.csv")
    return args


def main(words: list[str] | None = None) -> int:
    args = parse_args(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may have bytes that are no text
    try:
        return start("extract", args)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return STOPPED
