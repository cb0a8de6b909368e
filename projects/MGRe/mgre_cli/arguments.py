"""Types of command line arguments, and options that several commands have, for argparse."""

import argparse


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed: give a whole number of 1 or more")
    return int(text)


def seed(text: str) -> int:
    """A seed of numpy: a whole number from 0 to 2^32 - 1."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed: give a whole number from 0 to 2^32 - 1")
    return int(text)


def fraction(text: str) -> float:
    """A number above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed: give a number above 0, at most 1")
    return value


def add_allow_imports(parser: argparse.ArgumentParser) -> None:
    """The option that every command that loads a config or a model has."""
    parser.add_argument(
        "--allow-imports",
        action="store_true",
        help="import the modules that the config file, or the model's record, names in IMPORTS, which runs their code: "
        "only if you trust it",
    )


def add_model_use(parser: argparse.ArgumentParser) -> None:
    """The options of a command that computes features: how its model is loaded, and where it computes."""
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="of the model's training, for a checkpoint without a record"
    )
    add_allow_imports(parser)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto (default): a GPU where there is one")


def add_evaluated_model(parser: argparse.ArgumentParser) -> None:
    """The options of a command that evaluates a model: what to evaluate, and on which data set."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--config-file", metavar="FILE", help="the config of the training; MODEL.WEIGHTS names the model"
    )
    model.add_argument("--model", metavar="FILE", help="a checkpoint, with the config in its record")
    add_allow_imports(parser)
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides in pairs, such as TEST.RERANK.ENABLED True"
    )
