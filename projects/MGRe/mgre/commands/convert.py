"""Writes a model's weights and record alone."""

import argparse
import dataclasses
import os

from mgre.commands.model_options import imports_of_model
from mgre.errors import DataError, WeightsError, printable
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.loading import load
from mgre.modeling.fitting_keys import only_for_training
from mgre.system.model_files import require_model_suffix, write_model


def run(args: argparse.Namespace) -> None:
    """Read the model, and write its weights and record."""
    require_model_suffix(args.output)
    if os.path.lexists(args.output) and not args.overwrite:
        raise DataError(f"'{args.output}' is there already: add --overwrite to replace it, or name another file")
    overrides = [*args.opts, *imports_of_model(args)]
    model = load(args.model, config_file=args.config_file, overrides=overrides, device="cpu")
    if not isinstance(model, CheckpointModel):
        raise WeightsError(f"'{args.model}' is no checkpoint: convert the checkpoint that it was made from")
    unused = only_for_training(model.network, model.network.state_dict())
    state = {name: tensor for name, tensor in model.network.state_dict().items() if name not in unused}
    record = model.record
    if args.licence is not None:
        record = dataclasses.replace(record, licence=args.licence)
    write_model(args.output, state, record)
    before, after = (os.path.getsize(path) / 2**20 for path in (args.model, args.output))
    print(f"{printable(args.output)}: {after:.1f} MiB, of {before:.1f} MiB")
