"""The choice of the final feature's weights, Eq. (6), on a validation set (Fig. 6)."""

import argparse
import functools
import os
import sys
from typing import cast

from fastreid.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from mgre.config import load_config, overrides_of
from mgre.data import build_test_loader
from mgre.data.validation_split import base_of_validation, validation_of
from mgre.engine.load_model import load_model
from mgre.errors import ConfigError, SetupError
from mgre.evaluation.stage_weights import (
    PAPER_WEIGHTS,
    Score,
    StageDistances,
    Weights,
    make_grid,
    measure_stages,
    plot_curves,
    search,
    variants,
    write_config,
    write_scores,
)
from mgre.modeling import MGRe


def run(args: argparse.Namespace) -> None:
    """Rank the validation set with many weights, and write the scores, the curves and the config with the best."""
    cfg = load_config(args.config_file, overrides_of(args))
    _check(cfg)
    name = args.dataset or _validation_set(cfg)
    folder = args.output or cfg.OUTPUT_DIR
    _make_folder(folder)
    cfg.defrost()
    cfg.TEST.REGION_IOU.ENABLED = False  # the choice needs no key points
    cfg.freeze()

    loader, num_query = build_test_loader(cfg, name)
    distances = measure_stages(cast(MGRe, load_model(cfg)), loader, num_query)
    stages = tuple(distances.by_stage)
    configured = {f"stage{i}": float(weight) for i, weight in enumerate(cfg.MODEL.MGRE.STAGE_WEIGHTS, start=1)}
    named = {
        "config": tuple(configured[stage] for stage in stages),
        "paper": tuple(PAPER_WEIGHTS[stage] for stage in stages),
        "equal": (0.5,) * len(stages),
    }
    score, curves, named["chosen"] = choose(distances, named, make_grid(args.step))

    path = os.path.join(folder, "stage_weights")
    # Stages that are not built keep the weights of the config.
    chosen = configured | dict(zip(stages, named["chosen"], strict=True))
    comment = f"Chosen by tools/select_weights.py on {name}: mAP {100 * score(named['chosen']):.2f} there."
    rows = [(label, weights, score(weights)) for label, weights in named.items()]
    write_scores(f"{path}.csv", stages, rows)
    write_scores(f"{path}_curves.csv", stages, [(s, w, score(w)) for s, curve in curves.items() for w in curve])
    table = [[label, *weights, f"{100 * precision:.2f}"] for label, weights, precision in rows]
    print(f"\n{tabulate(table, headers=[name, *stages, 'mAP, %'])}\n\n{path}.yml, .csv, _curves.csv")
    plot(f"{path}_curves.png", score, curves, named["config"], name)
    # Written last, so that its existence says that all files are complete.
    write_config(f"{path}.yml", args.config_file, list(chosen.values()), comment)


def plot(path: str, score: Score, curves: dict[str, list[Weights]], fixed: Weights, title: str) -> None:
    """Draw mAP against each weight, or say that the picture cannot be made: the other files do not need it."""
    points = {stage: [(w[index], score(w)) for w in curve] for index, (stage, curve) in enumerate(curves.items())}
    try:
        plot_curves(path, points, dict(zip(curves, fixed, strict=True)), title=title)
        print(path)
    except SetupError as error:  # without matplotlib the other files are still of use
        print(f"no plot: {error}", file=sys.stderr)


def choose(
    distances: StageDistances, starts: dict[str, Weights], grid: Weights
) -> tuple[Score, dict[str, list[Weights]], Weights]:
    """Search the best weights.

    Returns:
        The mAP as a cached function of the weights; the weights on each stage's curve, on which the weights of the
        other stages are the config's; and the best weights.
    """
    curves = {stage: variants(starts["config"], index, grid) for index, stage in enumerate(distances.by_stage)}
    with tqdm(unit="weight vector", disable=None) as bar:

        @functools.cache
        def score(weights: Weights) -> float:
            bar.update()
            return distances.mean_precision(weights)

        bar.set_description("curves")
        for weights in (w for curve in curves.values() for w in curve):
            score(weights)
        bar.set_description("search")
        # Of equally good results the first start wins, so the paper's weights come first.
        best = search(score, [starts["paper"], *starts.values()], grid)
    return score, curves, best


def _check(cfg: CfgNode) -> None:
    if cfg.MODEL.META_ARCHITECTURE != "MGRe":
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', whose feature has no stages to weigh: "
            "tools/select_weights.py takes an MGRe"
        )
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError("MODEL.WEIGHTS is empty: add MODEL.WEIGHTS path/to/model.pth to the command line")


def _validation_set(cfg: CfgNode) -> str:
    tested, trained = cfg.DATASETS.TESTS[0], cfg.DATASETS.NAMES[0]
    if base_of_validation(tested):
        return tested
    name = validation_of(trained)
    if name == trained:
        return name
    print(
        f"warning: by the config, {trained} was trained on, with the identities of {name}: weights for images seen in "
        f"training need not be good for others; train with DATASETS.NAMES \"('{name}',)\"",
        file=sys.stderr,
    )
    return name


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SetupError(f"folder '{folder}' cannot be made ({error.strerror}): choose another --output") from error
