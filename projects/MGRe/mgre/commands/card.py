"""Prints a model's record as a model card."""

import argparse
import os

from mgre.errors import WeightsError, printable
from mgre.inference.card import model_card
from mgre.inference.loading import EXPORTED_SUFFIXES, load
from mgre.system.files import explain_unwritable, write_atomically
from mgre.system.model_files import read_record


def run(args: argparse.Namespace) -> None:
    """Print or write the card."""
    is_exported = args.model.endswith(EXPORTED_SUFFIXES)
    record = load(args.model, device="cpu").record if is_exported else read_record(args.model)
    if record is None:
        raise WeightsError(
            f"'{args.model}' has no record of its model: make a file that has one, by "
            "mgre convert --config-file path/to/config.yml"
        )
    card = model_card(record, printable(os.path.basename(args.model)))
    if not args.output:
        print(card, end="")
        return
    with (
        explain_unwritable(f"'{args.output}'", "name another file"),
        write_atomically(args.output) as path,
        open(path, "w", encoding="utf-8") as file,
    ):
        file.write(card)
    print(printable(args.output))
