"""Evaluate a trained or exported model on a data set, also with another runtime's resizing, colour and scale.

Examples:
    tools/evaluate.py model_final.onnx
    tools/evaluate.py person.onnx --as ultralytics
    tools/evaluate.py model_final.onnx --as boxmot --dataset Market1501
"""

import argparse

from mgre_cli.arguments import add_allow_imports
from mgre_cli.start import start

TAKERS = ("boxmot", "ultralytics", "deepstream", "openvino", "fastreid")


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="FILE", help="a checkpoint, or a file of `mgre export`")
    parser.add_argument(
        "--as",
        dest="takers",
        action="append",
        default=[],
        choices=TAKERS,
        help="prepare the images as this runtime does; may be given several times (default: as in the training)",
    )
    parser.add_argument("--dataset", metavar="NAME", help="its test images (default: those of the training's config)")
    parser.add_argument("--config-file", default="", metavar="FILE", help="of checkpoints without a record")
    add_allow_imports(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("evaluate", parse_args(words))
