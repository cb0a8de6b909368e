"""Print what a trained model says of itself, as a model card in Markdown.

Examples:
    tools/card.py model.pth
    tools/card.py model.safetensors --output card.md
"""

import argparse

from mgre_cli.start import start


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a trained model with a record")
    parser.add_argument("--output", metavar="FILE", help="write the card to a file; replaces it")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    return start("card", parse_args(words))
