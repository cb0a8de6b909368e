"""What the commands rank and report share: the model and the data set that they are given, evaluated."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from fastreid.config import CfgNode
from fastreid.utils.logger import setup_logger

from mgre.commands.model_options import imports_of_model
from mgre.config import load_config
from mgre.config.loading import parse_config
from mgre.data.checks import check_datasets
from mgre.data.datasets import reading_once
from mgre.engine.evaluation_report import evaluate_and_keep
from mgre.errors import ConfigError, WeightsError, shell_word
from mgre.evaluation.evaluator import Evaluation
from mgre.inference import load
from mgre.inference.checkpoint_model import CheckpointModel

# Overrides of these sections are of the data set and its evaluation: they leave the model's record as it is.
_NOT_THE_MODELS = ("DATASETS.", "TEST.", "DATALOADER.", "OUTPUT_DIR", "SEED", "MODEL.DEVICE", "MODEL.WEIGHTS")


def load_evaluated(args: argparse.Namespace) -> tuple[CfgNode, CheckpointModel]:
    """The model that the options name, and the config of its evaluation, which has one test set.

    Args:
        args: ``config_file`` or ``model``, and ``opts``.

    Raises:
        ConfigError, SetupError: see :func:`mgre.config.load_config`; and no model or several test sets are named.
        WeightsError: see :func:`mgre.load`.
    """
    setup_logger(name="mgre")
    opts = [*args.opts, *imports_of_model(args)]
    named = dict(zip(opts[::2], opts[1::2], strict=False))
    if args.config_file is not None:
        cfg = load_config(args.config_file, opts)
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS path/to/model.pth to the command line")
        model = _load(cfg.MODEL.WEIGHTS, config_file=args.config_file, overrides=opts, device=cfg.MODEL.DEVICE)
    else:
        own = [word for pair in named.items() if not pair[0].startswith(_NOT_THE_MODELS) for word in pair]
        model = _load(args.model, overrides=own, device=named.get("MODEL.DEVICE", "auto"))
        device = str(device_of(model))
        where = ["MODEL.DEVICE", device, "MODEL.WEIGHTS", args.model]
        cfg = parse_config(model.record.config, [*opts, *where], f"the record of '{args.model}'")
    if len(cfg.DATASETS.TESTS) > 1:
        word = shell_word(f"('{cfg.DATASETS.TESTS[0]}',)")
        raise ConfigError(
            f"DATASETS.TESTS has {len(cfg.DATASETS.TESTS)} data sets, and one is evaluated at a time: add it to the "
            f"command line, like {word} after the key"
        )
    return cfg, model


def evaluate(cfg: CfgNode, model: CheckpointModel) -> Evaluation:
    """Evaluate the model on the config's test set.

    Raises:
        DataError, SetupError: the data set cannot be read, or has no match.
    """
    if device_of(model).type == "cpu":
        # The toolbox's loaders ask the machine for CUDA devices, not the config.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with reading_once():
        check_datasets(cfg, will_train=False)
        _, (evaluation,) = evaluate_and_keep(cfg, model.network)
    return evaluation


def folder_of(cfg: CfgNode) -> Path:
    """Of the model."""
    return Path(cfg.MODEL.WEIGHTS).parent


def device_of(model: CheckpointModel) -> torch.device:
    """Where the model is."""
    return next(model.network.parameters()).device


def _load(path: str, *, config_file: str = "", overrides: Sequence[str], device: str) -> CheckpointModel:
    model = load(path, config_file=config_file, overrides=overrides, device=device)
    if not isinstance(model, CheckpointModel):
        raise WeightsError(f"'{path}' is no checkpoint: name the checkpoint that it was made from")
    return model
