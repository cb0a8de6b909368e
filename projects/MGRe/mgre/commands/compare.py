"""What ``tools/compare.py`` does. It imports no torch: models of another kind than checkpoints do without."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from mgre.commands.model_options import imports_of_model
from mgre.errors import DataError, SetupError, printable, shell_word
from mgre.evaluation.calibration import CONFIDENCE, Calibration, Rate, check_rate, too_few
from mgre.inference.doubts import doubts
from mgre.inference.loading import load
from mgre.inference.model import Description, Model
from mgre.inference.pictures import draw_pair, save_picture
from mgre.inference.preparation import to_image
from mgre.inference.similarity import Share, pair_shares, similarity

# The length of the bar of the largest share, in letters.
BAR = 24
SAME, DIFFERENT = "the same person", "different people"


def run(args: argparse.Namespace) -> None:
    """Print what the images have in common.

    Raises:
        ConfigError: the rate is not between 0 and 1.
        ImageError: an image cannot be read.
        SetupError: the picture cannot be written.
        WeightsError: see :func:`mgre.load`.
    """
    check_rate(args.rate)
    images = [to_image(path) for path in args.images]  # before the model: a wrong path is said at once
    model = load(args.model, config_file=args.config_file, overrides=imports_of_model(args), device=args.device)
    for path, image in zip(args.images, images, strict=True):
        for doubt in doubts(image, model.record):
            _warn(f"image '{path}' {doubt}")
    calibration = Calibration.from_record(model.record, args.model)
    if calibration and calibration.fingerprint != model.fingerprint:
        _warn(
            f"the calibration in '{args.model}' is of other weights or another size of images: calibrate again, mgre "
            f"calibrate {shell_word(args.model)}"
        )
    description, why_no_shares = _describe(model, images)
    if not np.isfinite(description.features).all():
        raise DataError(f"model '{args.model}' gives features that are NaN or infinite: take an earlier checkpoint")
    scores = similarity(description.features, description.features)
    pairs = []
    for i, j in combinations(range(len(images)), 2):
        cosine = float(scores[i, j])
        pairs.append(_Pair(args.images[i], args.images[j], cosine, _meaning(cosine, calibration, args.rate)))
    shares = pair_shares(description, 0, 1, model.record) if description.terms else []
    if args.json:
        print(json.dumps(_as_json(args, pairs, shares, calibration), indent=2))
    elif len(images) == 2:
        print(f"{_pair_text(pairs[0], calibration, args)}\n\n{_shares_text(shares) if shares else why_no_shares}")
    else:
        print(_table_text(pairs, calibration, args))
    if args.picture:
        boxes = [{name: box[i] for name, box in description.boxes.items()} for i in range(2)]
        captions = [printable(os.path.basename(path)) for path in args.images]
        meaning = pairs[0].meaning
        verdict = f": {meaning.verdict}, at a false-match rate of {args.rate:g}" if meaning and meaning.verdict else ""
        title = f"cosine {pairs[0].cosine:.3f}{verdict}"
        save_picture(draw_pair(images, boxes, shares, title=title, captions=captions), args.picture)


@dataclass(frozen=True)
class _Meaning:
    """What a calibration says of a cosine; no verdict where it has too few pairs for the rate asked for."""

    false_match_rate: Rate
    false_non_match_rate: Rate
    threshold: float | None
    verdict: str


@dataclass(frozen=True)
class _Pair:
    first: str
    second: str
    cosine: float
    meaning: _Meaning | None


def _describe(model: Model, images: Sequence[Image.Image]) -> tuple[Description, str]:
    """What the model says of the images; and where that is only their features, why."""
    reason = f"'{printable(model.path)}' has no regions: its cosine is not split into shares."
    if len(images) == 2 and model.record.regions:
        try:
            return model.describe(images), ""
        except SetupError as error:  # an exported file without the regions' vectors
            reason = f"No regions' shares: {printable(str(error))}"
    return Description(model.embed(images), {}, {}), reason


def _meaning(cosine: float, calibration: Calibration | None, rate: float) -> _Meaning | None:
    if calibration is None:
        return None
    rates = calibration.false_match_rate(cosine), calibration.false_non_match_rate(cosine)
    if rate < calibration.lowest_rate:
        return _Meaning(*rates, None, "")
    threshold = calibration.threshold(rate)
    return _Meaning(*rates, threshold, SAME if cosine >= threshold else DIFFERENT)


def _pair_text(pair: _Pair, calibration: Calibration | None, args: argparse.Namespace) -> str:
    lines = [("cosine", f"{pair.cosine:.4f}")]
    if calibration and pair.meaning:
        alike = pair.meaning.false_match_rate.text(calibration.lowest_rate)
        less_alike = pair.meaning.false_non_match_rate.text()
        lines += [
            ("false-match rate", f"{alike} of the pairs of different people are as alike"),
            ("false-non-match rate", f"{less_alike} of the pairs of one person are less so"),
        ]
        if pair.meaning.verdict:
            rule = f"at a false-match rate of {args.rate:g} one person is from {pair.meaning.threshold:.4f} up"
            lines.append(("verdict", f"{pair.meaning.verdict}: {rule}"))
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:{width}}  {value}" for name, value in lines)
    return "\n".join([text, *_notes(calibration, args)])


def _table_text(pairs: Sequence[_Pair], calibration: Calibration | None, args: argparse.Namespace) -> str:
    """The pairs, the most alike first."""
    rows: list[tuple[str, ...]] = [("cosine", *(("false-match rate", "verdict") if calibration else ()), "images")]
    for pair in sorted(pairs, key=lambda pair: -pair.cosine):
        names = f"{printable(pair.first)}  {printable(pair.second)}"
        if calibration and pair.meaning:
            meaning = (pair.meaning.false_match_rate.text(calibration.lowest_rate), pair.meaning.verdict)
            rows.append((f"{pair.cosine:.4f}", *meaning, names))
        else:
            rows.append((f"{pair.cosine:.4f}", names))
    return "\n".join([columns(rows), *_notes(calibration, args)])


def _notes(calibration: Calibration | None, args: argparse.Namespace) -> list[str]:
    """What the rates are of, or how to get some."""
    if calibration is None:
        return [
            f"not calibrated: to know what this cosine means, run mgre calibrate {shell_word(args.model)} "
            "--images path/to/labelled, on labelled crops of your cameras"
        ]
    notes = []
    if args.rate < calibration.lowest_rate:
        notes.append(f"no verdict: {too_few(args.rate, calibration.num_identities, calibration.dataset)}")
    seen = ", on which the model was trained, so the rates are too good" if calibration.seen_in_training else ""
    said = [*notes, f"Rates are of {calibration}{seen}, with intervals of {CONFIDENCE:.0%}."]
    return [printable(text) for text in said]  # the name of the set is what the file says


def _shares_text(shares: Sequence[Share]) -> str:
    largest = max(abs(share.value) for share in shares) or 1.0
    rows = [("stage", "region", "share")]
    for share in shares:
        bar = round(BAR * abs(share.value) / largest) * ("#" if share.value > 0 else "-")
        stage, region = printable(share.stage.removeprefix("stage")), printable(share.region.replace("_", " "))
        rows.append((stage, region, f"{share.value:+.4f}  {bar}"))
    rows.append(("", "sum", f"{sum(share.value for share in shares):+.4f}"))
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _as_json(
    args: argparse.Namespace, pairs: Sequence[_Pair], shares: Sequence[Share], calibration: Calibration | None
) -> dict[str, Any]:
    facts = {"model": args.model, "rate": args.rate, "pairs": [_pair_json(pair) for pair in pairs]}
    if shares:
        facts["shares"] = [asdict(share) for share in shares]
    if calibration:
        names = ("dataset", "num_identities", "seen_in_training", "lowest_rate")
        facts["calibration"] = {name: getattr(calibration, name) for name in names}
    return facts


def _pair_json(pair: _Pair) -> dict[str, Any]:
    facts: dict[str, Any] = {"images": [pair.first, pair.second], "cosine": pair.cosine}
    if pair.meaning is None:
        return facts
    rates = {name: rate._asdict() for name, rate in vars(pair.meaning).items() if isinstance(rate, Rate)}
    return facts | rates | {"threshold": pair.meaning.threshold, "verdict": pair.meaning.verdict or None}


def _warn(message: str) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)
