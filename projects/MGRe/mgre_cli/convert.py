"""Write a trained model's weights and record alone, without the state of the training and the classifier.

Examples:
    tools/convert.py model_final.pth model.safetensors
    tools/convert.py model_final.pth small.pth --licence "for research only"
"""

import argparse

from mgre_cli.arguments import add_allow_imports
from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a trained model")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write, .safetensors or .pth")
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="of the training, for models that do not know theirs"
    )
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides in pairs")
    add_allow_imports(parser)
    parser.add_argument("--licence", metavar="TEXT", help="what may be done with the weights, for the record")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    return start("convert", parse_args(words))
