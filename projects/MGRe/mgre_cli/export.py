"""Export a trained model for other runtimes, and check the file against PyTorch.

Examples:
    tools/export.py model_final.pth
    tools/export.py model_final.pth --input unit-rgb --output person.onnx
    tools/export.py model_final.pth --input raw-rgb --normalize --regions
    tools/export.py model_final.pth --format openvino --input raw-bgr
    tools/export.py model_final.pth --precision int8 --calibration path/to/crops --output small.onnx

The exit status is 1, and no file is written, where the exported model differs from the checkpoint by more than is
allowed. The table says by how much.
"""

import argparse

from mgre_cli.arguments import add_allow_imports, positive
from mgre_cli.start import start

FORMATS = ("onnx", "openvino", "tensorrt", "torchscript")
INPUTS = ("imagenet", "unit-rgb", "raw-rgb", "raw-bgr")
PRECISIONS = ("fp32", "fp16", "int8")


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="CHECKPOINT", help="a trained model, .pth or .safetensors")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="kind of the file (default: %(default)s)")
    parser.add_argument(
        "--input",
        choices=INPUTS,
        default="imagenet",
        help="what the runtime feeds: imagenet (BoxMOT), unit-rgb (Ultralytics), raw-rgb (DeepStream, fast-reid), "
        "raw-bgr (OpenVINO's demos); default: %(default)s",
    )
    parser.add_argument("--output", metavar="FILE", help="the file to write (default: beside the checkpoint)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--normalize", action="store_true", help="features of length 1")
    parser.add_argument("--regions", action="store_true", help="a second file with boxes and regions' vectors")
    parser.add_argument("--size", type=positive, nargs=2, metavar=("H", "W"), help="of the input (default: as trained)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the weights and maps (default: %(default)s)"
    )
    parser.add_argument("--calibration", metavar="DIR", help="for int8: a folder of crops of people")
    parser.add_argument(
        "--dataset", metavar="NAME", help="check on the test images of this data set (default: on drawn people)"
    )
    parser.add_argument("--config-file", default="", metavar="FILE", help="of checkpoints without a record")
    add_allow_imports(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> int:
    return start("export", parse_args(words))
