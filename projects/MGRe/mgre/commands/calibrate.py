"""What ``tools/calibrate.py`` does."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from mgre.commands.model_options import imports_of_model
from mgre.commands.readable import SKIPPED, readable
from mgre.config.loading import parse_config
from mgre.data.csv_list import BACKGROUND, read_labels
from mgre.data.custom import read_labelled_folder
from mgre.data.datasets import build_dataset, split_items
from mgre.data.torch_dataset import Item
from mgre.data.validation_split import base_of_validation, validation_of
from mgre.errors import ConfigError, DataError, SetupError, WeightsError, printable
from mgre.evaluation.calibration import CONFIDENCE, Calibration, needed_identities
from mgre.evaluation.error_rates import ROUND_RATES, calibrate
from mgre.inference.checkpoint_model import CheckpointModel
from mgre.inference.loading import load
from mgre.record import ModelRecord
from mgre.system.model_files import write_record
from mgre.visualization import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def run(args: argparse.Namespace) -> int:
    """Calibrate a checkpoint; the exit status.

    Raises:
        ConfigError: a key or the data set's name is wrong.
        DataError: the labelled images are missing, malformed or too few.
        WeightsError: see :func:`mgre.load`.
        SetupError: the result cannot be written.
    """
    imports = imports_of_model(args)
    model = load(args.model, config_file=args.config_file, overrides=imports, device=args.device)
    target = args.output or args.model
    if not isinstance(model, CheckpointModel) or args.model.endswith(".safetensors"):
        raise WeightsError(
            f"'{args.model}' cannot take a calibration: calibrate the .pth checkpoint that it was made from, and make "
            "it again"
        )
    if args.images:
        name, items, seen = os.path.basename(os.path.normpath(args.images)), read_labelled(args.images), False
    else:
        name, items, seen = _data_set(model.record, args.dataset, [*args.opts, *imports])
    if not items:
        raise DataError(f"'{args.images or name}' has no images to calibrate on: name another folder or data set")
    skipped: list[str] = []
    images = tqdm(readable([path for path, *_ in items], skipped), total=len(items), unit="image", disable=None)
    features = model.embed(images)
    left_out = set(skipped)
    kept = [item for item in items if item[0] not in left_out]
    if not kept:
        raise DataError(f"none of the {len(items)} images of '{name}' can be read: copy them again")
    calibration = calibrate(
        features,
        np.array([str(identity) for _, identity, _ in kept]),
        np.array([str(camera) for *_, camera in kept]),
        dataset=name,
        seen_in_training=seen,
        fingerprint=model.fingerprint,
    )
    print(_summary(calibration))
    write_record(args.model, dataclasses.replace(model.record, calibration=calibration.to_dict()), target)
    print(f"\nwritten into {printable(target)}")
    _plot(f"{os.path.splitext(target)[0]}_calibration.png", calibration)
    if skipped:
        print(f"{len(skipped)} of {len(items)} images cannot be read and were left out", file=sys.stderr)
    return SKIPPED if skipped else 0


def read_labelled(path: str) -> list[Item]:
    """(path, identity, camera) of the crops in a folder, by their names, or in a CSV; without junk and background.

    Raises:
        DataError: the folder or the CSV is missing or malformed.
    """
    if os.path.isdir(path):
        return [item for item in read_labelled_folder(path) if item[1] != BACKGROUND]
    if not os.path.isfile(path):
        raise DataError(f"'{path}' does not exist; allowed: a folder of crops, or a CSV")
    return read_labels(path)


def _data_set(record: ModelRecord, name: str, overrides: Sequence[str]) -> tuple[str, list[Item], bool]:
    """The data set's name, its images of query and gallery, and whether the model was trained on their identities."""
    if not name:
        if not record.trained_on:
            raise ConfigError("the model's record names no data set: name one by --dataset, or crops by --images")
        name = validation_of(record.trained_on[0])
    seen = base_of_validation(name) in record.trained_on
    if seen:
        print(
            f"warning: {base_of_validation(name)} was trained on, with the identities of {name}: the rates will be too "
            "good; name another set by --dataset, or crops of other people by --images",
            file=sys.stderr,
        )
    cfg = parse_config(record.config, [*overrides, "MODEL.DEVICE", "cpu"], "the model's record")
    data = build_dataset(cfg, name)
    items = [item for split in ("query", "gallery") for item in split_items(data, name, split)]
    left_out = getattr(data, "_junk_pids", [])  # junk and background, which are no people
    return name, [item for item in items if item[1] not in left_out], seen


def _summary(calibration: Calibration) -> str:
    rows = []
    thresholds = dict(calibration.thresholds)
    for rate in ROUND_RATES:
        if rate in thresholds:
            score = thresholds[rate]
            false_match, false_non_match = calibration.false_match_rate(score), calibration.false_non_match_rate(score)
            rows.append([f"{rate:g}", f"{score:.4f}", false_match.text(), false_non_match.text()])
        else:
            rows.append([f"{rate:g}", "", f"too few pairs: needs {needed_identities(rate):,} identities", ""])
            break  # so have all lower rates
    interval = f"({CONFIDENCE:.0%} interval)"
    headers = ["rate", "threshold", f"false-match rate {interval}", f"false-non-match rate {interval}"]
    return f"\n{printable(str(calibration))}\n\n{tabulate(rows, headers=headers, disable_numparse=True)}"


def _plot(path: str, calibration: Calibration) -> None:
    try:
        figure = new_figure(figsize=(6, 4))
        _draw(figure.subplots(), calibration)
        figure.savefig(path, dpi=120)
    except (
        SetupError,
        OSError,
    ) as error:  # the model is calibrated without matplotlib too
        print(f"no plot: {error}", file=sys.stderr)
    else:
        print(f"plot: {printable(path)}")


def _draw(axes: "Axes", calibration: Calibration) -> None:
    """Both rates against the threshold, with their intervals."""
    rates = {"false matches": calibration.false_match, "false non-matches": calibration.false_non_match}
    for label, values in rates.items():
        shown, low, high = zip(*values, strict=True)
        (line,) = axes.plot(calibration.scores, shown, label=label)
        axes.fill_between(calibration.scores, low, high, alpha=0.2, color=line.get_color())
    axes.set_yscale("log")
    least = min(calibration.lowest_rate, 1 / calibration.num_matches)
    axes.set(xlabel="threshold of the cosine", ylabel="rate", title=calibration.dataset, ylim=(least / 3, 1.2))
    axes.grid(alpha=0.3)
    axes.legend()
