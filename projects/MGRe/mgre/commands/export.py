"""Exports a trained model, and checks the file against PyTorch."""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace

from mgre.commands.model_options import imports_of_model
from mgre.config.loading import parse_config
from mgre.errors import ConfigError, WeightsError, printable
from mgre.export.crops import Crops, draw, read
from mgre.export.exporting import SUFFIXES, Options, check_options, export
from mgre.export.network import check_size
from mgre.export.precision import read_calibration
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.exported_model import regions_path
from mgre.inference.flavours import find_flavour
from mgre.inference.loading import load

# Of a data set, which may have thousands of images: so many identities.
NUM_IDS = 20


def run(args: argparse.Namespace) -> int:
    """Write the files and print how they compare; the exit status is 1 where they differ from the checkpoint.

    Args:
        args: the options of ``mgre export``.

    Raises:
        ConfigError: options do not fit each other or the model, or a file is there already.
        WeightsError: the checkpoint cannot be read.
    """
    path = args.output or os.path.splitext(args.model)[0] + SUFFIXES[args.format]
    check_words(args, path)
    options = Options(
        args.format,
        find_flavour(args.input),
        normalize=args.normalize,
        regions=args.regions,
        precision=args.precision,
    )
    check_options(options)
    imports = imports_of_model(args)
    model = load(args.model, config_file=args.config_file, overrides=[*args.opts, *imports], device="cpu")
    if not isinstance(model, CheckpointModel):
        raise WeightsError(f"'{args.model}' is exported already: name the checkpoint that it was made from")
    if args.size:
        model = resized(model, tuple(args.size))
    if args.calibration:
        options = replace(options, calibration=read_calibration(args.calibration, model.record))
    with tempfile.TemporaryDirectory() as folder:
        done = export(model, path, options, find_crops(model, args.dataset, folder, imports=imports))
    print(done.parity.table())
    if done.parity.failures:
        print(f"error: no file was written: {'; '.join(done.parity.failures)}", file=sys.stderr)
        return 1
    print("\nWritten:")
    for name, purpose in done.files.items():
        print(f"  {printable(name)}  ({purpose})")
    return 0


def check_words(args: argparse.Namespace, path: str) -> None:
    """Stop before the work where options do not fit each other, or a file is there already.

    Raises:
        ConfigError: they do not, or one is.
    """
    suffix = SUFFIXES[args.format]
    if not path.endswith(suffix):
        raise ConfigError(f"--output '{path}' has to end in {suffix}, by which every runtime knows the file's kind")
    if args.precision == "int8" and not args.calibration:
        raise ConfigError("--precision int8 needs --calibration with a folder of some hundred crops of people")
    if args.calibration and args.precision != "int8":
        raise ConfigError(f"--calibration is for --precision int8, not {args.precision}: leave one of them out")
    written = [path, *([regions_path(path)] if args.regions else [])]
    there = [name for name in written if os.path.exists(name)]
    if there and not args.overwrite:
        raise ConfigError(f"'{there[0]}' is there already: add --overwrite, or choose another --output")


def resized(model: CheckpointModel, size: tuple[int, int]) -> CheckpointModel:
    """The model for images of another size (H, W).

    Raises:
        ConfigError: a region would have no sample.
    """
    record = replace(model.record, input_size=size, center_crop=None)
    check_size(model.network, record)
    return CheckpointModel(model.network, record, model.path)


def find_crops(
    model: CheckpointModel,
    dataset: str | None,
    folder: str,
    *,
    num_ids: int | None = NUM_IDS,
    imports: Sequence[str] = (),
) -> Crops:
    """The images on which the files are compared: of a data set, or drawn below ``folder``.

    Args:
        model: its record says which data sets there are.
        dataset: the data set's name, or None.
        folder: for drawn images.
        num_ids: how many identities of the data set; None: all.
        imports: the override IMPORTS, if the record may import something.
    """
    if dataset is None:
        return draw(folder)
    return read(parse_config(model.record.config, imports, f"the record of '{model.path}'"), dataset, num_ids=num_ids)
