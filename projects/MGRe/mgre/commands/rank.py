"""What ``tools/rank.py`` does."""

import argparse
import re
from pathlib import Path

import numpy as np
from PIL import Image

from mgre.commands.evaluated import evaluate, folder_of, load_evaluated
from mgre.errors import ConfigError, printable
from mgre.evaluation.evaluator import Evaluation
from mgre.inference.model import Model
from mgre.inference.pictures import save_picture
from mgre.reporting.pictures import Boxes, draw_rank_list, fitting, stack
from mgre.reporting.rank_lists import RankList, best, drawn, named, rank_lists, worst
from mgre.system.files import make_output_dir

FOLDER, SHEET = "rank-lists", "sheet.png"
DEFAULT_WORST = 10
# Of the sheet, in pixels; some viewers refuse higher pictures.
MOST_HEIGHT = 30_000


def run(args: argparse.Namespace) -> None:
    """Evaluate a model, and draw the rank lists of some queries."""
    cfg, model = load_evaluated(args)
    folder = Path(args.output or folder_of(cfg) / FOLDER)
    make_output_dir(str(folder), "--output")
    regions = [name for stage, names in model.record.regions.items() if stage != "stage4" for name in names]
    if args.boxes and not regions:
        raise ConfigError(f"--boxes needs a model that locates regions; '{model.path}' locates none: leave --boxes out")
    evaluation = evaluate(cfg, model)

    chosen = {query: ", ".join(reasons) for query, reasons in choose(args, evaluation).items()}
    lists = rank_lists(evaluation, list(chosen), args.length)
    boxes = _predict_boxes(model, lists) if args.boxes else {}
    pictures = []
    for label, shown in zip(chosen.values(), lists, strict=True):
        picture = draw_rank_list(shown, boxes=boxes, regions=regions if boxes else (), title=f"{label}: ")
        path = folder / f"{_file_name(f'{label} {Path(shown.path).stem}')}.png"
        _save(picture, path)
        pictures.append(picture)
        order = list(shown.orders.values())[-1]
        found = f"first match at rank {order.first_rank}" if order.first_rank else "no match in the gallery"
        print(printable(f"{path}  average precision {order.precision:.1f} %, {found}"))
    number = _write_sheet(pictures, folder / SHEET)
    which = f"all {number}" if number == len(pictures) else f"the first {number}"
    print(printable(f"{folder / SHEET}  {which} queries"))


def choose(args: argparse.Namespace, evaluation: Evaluation) -> dict[int, list[str]]:
    """The queries that the options name, each with what it was chosen for, such as "worst 01".

    Raises:
        DataError: a name is that of no query.
    """
    groups = {
        "query": named(evaluation, args.query),
        "worst": worst(evaluation, args.worst or 0),
        "best": best(evaluation, args.best or 0),
        "random": drawn(evaluation, args.random or 0, args.seed),
    }
    if not any((args.query, args.worst, args.best, args.random)):
        groups["worst"] = worst(evaluation, DEFAULT_WORST)
    chosen: dict[int, list[str]] = {}
    for group, queries in groups.items():
        digits = len(str(len(queries)))
        for number, query in enumerate(queries, start=1):
            chosen.setdefault(query, []).append(f"{group} {number:0{digits}}")
    return chosen


def _predict_boxes(model: Model, lists: list[RankList]) -> Boxes:
    """The boxes of all shown images, in fractions of the whole image."""
    ordered = sorted(set().union(*(one.paths for one in lists)))
    found = model.describe(ordered).boxes
    boxes = np.stack(list(found.values()), axis=1)  # (N, R, 4)
    return dict(zip(ordered, boxes.astype(np.float32), strict=True))


def _write_sheet(pictures: list[Image.Image], path: Path) -> int:
    """Write the pictures at half their size, below each other; how many fit."""
    halves = [picture.reduce(2) for picture in pictures]
    number = fitting(halves, MOST_HEIGHT)
    _save(stack(halves[:number]), path)
    return number


def _file_name(text: str) -> str:
    """``text`` without what a file name may not have on some system."""
    return re.sub(r"[^\w.-]+", "-", text)[:100]


def _save(picture: Image.Image, path: Path) -> None:
    save_picture(picture, str(path), remedy="make room, or name another folder with --output")
