"""Measure what a model's scores mean: how often different people look alike to it, and one person does not.

Examples:
    tools/calibrate.py model.pth
    tools/calibrate.py model.pth --dataset SyntheticPedestrians
    tools/calibrate.py model.pth --images path/to/crops --output calibrated.pth
    tools/calibrate.py model.pth --dataset CustomReID DATASETS.CUSTOM.ROOT path/to/folder

Compares all pairs of images of different cameras, and writes the rates of errors at each score, with intervals, into
the model's record: mgre compare reads them there. Draws them as FILE_calibration.png beside the model.

The people should be others than those the model was trained on, and the images like those that you will compare.

Exit status: 0 all is well, 1 an error, 3 done but images that cannot be read were left out.
"""

import argparse

from mgre_cli.arguments import add_model_use
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a checkpoint")
    labelled = parser.add_mutually_exclusive_group()
    labelled.add_argument(
        "--dataset",
        default="",
        help="a data set by name, of which query and gallery are compared (default: <name>Val, a part of the training "
        "set)",
    )
    labelled.add_argument(
        "--images",
        default="",
        metavar="PATH",
        help="a folder of crops with names <identity>_c<camera>..., or a CSV with the columns path, identity, camera",
    )
    parser.add_argument("--output", metavar="FILE", help="write a calibrated copy, and leave the model as it is")
    add_model_use(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides for the data set, in pairs")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("calibrate", parse_args(words))
