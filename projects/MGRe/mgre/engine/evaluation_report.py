"""An evaluation that keeps what it ranks, and its report."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fastreid.config import CfgNode
from torch import nn

from mgre.data.loaders import end_workers
from mgre.engine.trainer import TestSets, Trainer
from mgre.engine.training_record import config_text, renew_record
from mgre.evaluation.evaluator import Evaluation
from mgre.record import ModelRecord
from mgre.reporting.report import Subject, write_report
from mgre.system.files import explain_unwritable
from mgre.system.model_files import read_record

REPORT_FILE = "report.html"
# What the features depend on beside the weights, of a model's record.
_OF_FEATURES = ("input_size", "center_crop", "interpolation", "pixel_mean", "pixel_std", "stage_weights")


def evaluate_and_keep(cfg: CfgNode, model: nn.Module) -> tuple[dict[str, Any], list[Evaluation]]:
    """Evaluate like :meth:`Trainer.test`, and keep what is ranked; all processes call it.

    Returns:
        The results of :meth:`Trainer.test`; and the evaluations of DATASETS.TESTS, on the main process.
    """
    test_sets: TestSets = {name: Trainer.build_evaluator(cfg, name) for name in cfg.DATASETS.TESTS}
    for _, evaluator in test_sets.values():
        evaluator.keeps = True
    try:
        results = Trainer.test(cfg, model, test_sets)
    finally:
        end_workers(loader for loader, _ in test_sets.values())
    kept = [evaluator.evaluation for _, evaluator in test_sets.values()]
    return results, [evaluation for evaluation in kept if evaluation is not None]


def write_reports(cfg: CfgNode, evaluations: Sequence[Evaluation], path: Path) -> list[Path]:
    """Write the report of each evaluation; the paths.

    Args:
        cfg: of the evaluations.
        evaluations: of the config's test sets.
        path: of the report. Where there are several, each has its data set's name appended.

    Raises:
        ImageError: an image of a rank list cannot be read.
        SetupError: the file cannot be written.
    """
    subject = Subject(
        model=Path(cfg.MODEL.WEIGHTS).name,
        record=_record(cfg),
        config=config_text(cfg),
        metric=cfg.TEST.METRIC,
        device=_device(cfg.MODEL.DEVICE),
        remarks=tuple(_remarks(cfg)),
    )
    paths = []
    for evaluation in evaluations:
        own = path if len(evaluations) == 1 else path.with_stem(f"{path.stem}-{evaluation.name}")
        with explain_unwritable(f"the report '{own}'", "choose another file"):
            write_report(own, evaluation, subject)
        paths.append(own)
    return paths


def _record(cfg: CfgNode) -> ModelRecord:
    """The record of the config's model. What only the training can know is from its file, if that has a record."""
    known = read_record(cfg.MODEL.WEIGHTS)
    record = renew_record(cfg, known)
    if known is None:
        # The config is of this evaluation, and need not be that of the training.
        return dataclasses.replace(record, trained_on=[])
    same = all(getattr(known, name) == getattr(record, name) for name in _OF_FEATURES)
    if same and not (cfg.TEST.FLIP.ENABLED or cfg.TEST.AQE.ENABLED):
        return record
    return dataclasses.replace(record, calibration=None)  # its thresholds are of other features


def _device(name: str) -> str:
    device = torch.device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _remarks(cfg: CfgNode) -> list[str]:
    remarks = []
    part = cfg.DATASETS.PART
    if part.NUM_TEST_IDS:
        remarks.append(
            f"A part of the data set: {part.NUM_TEST_IDS} test identities, without distractors. Its figures are higher "
            "than those of the whole set, and must not be compared with them."
        )
    if cfg.TEST.OCCLUSION.ENABLED:
        remarks.append(
            f"The evaluation occluded images of query and gallery with probability {cfg.TEST.OCCLUSION.PROB:g}; the "
            "pictures below show them without."
        )
    if cfg.TEST.AQE.ENABLED:
        remarks.append("The evaluation expanded the queries and the gallery by their neighbours (TEST.AQE).")
    if cfg.TEST.FLIP.ENABLED:
        remarks.append("Each feature is the mean of an image's and its mirror image's (TEST.FLIP).")
    return remarks
