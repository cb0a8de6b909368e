"""A model's record as a model card, in Markdown."""

from collections.abc import Sequence

from mgre.errors import printable
from mgre.evaluation.calibration import Calibration
from mgre.record import ModelRecord

# What is known of the terms of data sets, by the beginning of their names. The owner's own words count.
TERMS = {
    "Market1501": "for academic research; for anything else ask its owners",
    "DukeMTMC": "withdrawn by its owners in 2019, after criticism of how people were recorded",
    "CUHK03": "for academic research; for anything else ask its owners",
    "MSMT17": "for academic research, by a signed agreement with its owners",
    "SyntheticPedestrians": "drawn by a program: no person is in it",
}
_UNKNOWN_TERMS = "not known here: ask whoever collected the images, and name the people's consent or its lack"
# Figures that are not in %.
_FRACTIONS = "IoU/"


def model_card(record: ModelRecord, name: str) -> str:
    """The card of the model with this record.

    Args:
        record: of the model.
        name: of the model, such as its file's name.

    Raises:
        WeightsError: the record's calibration is damaged.
    """
    sections = [
        f"# Model card: {_plain(name)}",
        _about(record),
        "## Intended use\n\n"
        "To tell whether two crops of persons show the same one, in images of a few cameras and days, by their clothes "
        "and shape: in research, and where the people shown know of it and the law allows it. Not for decisions about "
        "a person by the score alone: crops of different people can be more similar than two of the same. Not to "
        "recognise people by name, and not over changes of clothes, which the training did not show unless its data "
        "did.",
        _data(record),
        _figures(record),
        _calibration(record, name),
        _preparation(record),
        "## Personal data\n\n"
        "The features of a person's image are personal data, as the image is: they single a person out, and in many "
        "places count as biometric data, which the law protects further. Keep them no longer than needed, tell the "
        "people shown, and delete theirs on demand: `mgre index remove` erases an entry and its vector from the disk. "
        "Copies, such as the files of `mgre extract` and backups, have to be deleted beside it.",
        f"## Licence\n\n{_plain(record.licence) or 'not stated'}",
        _versions(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _about(record: ModelRecord) -> str:
    rows = [("architecture", record.architecture), ("trained on", ", ".join(record.trained_on) or "not known")]
    for stage, regions in record.regions.items():
        weight = record.stage_weights.get(stage)
        rows.append(
            (f"regions of {stage}", ", ".join(regions) + (f" (weight {weight:g})" if weight is not None else ""))
        )
    return _table(("", ""), rows)


def _data(record: ModelRecord) -> str:
    rows = [
        (name, next((terms for start, terms in TERMS.items() if name.startswith(start)), _UNKNOWN_TERMS))
        for name in record.trained_on
    ]
    if not rows:
        return "## Data\n\nWhich images the model was trained on is not known."
    return (
        "## Data\n\n"
        + _table(("data set", "terms"), rows)
        + "\n\nThe model is less good on images unlike these: other "
        "cameras, places, clothes, and people who are rare in them."
    )


def _figures(record: ModelRecord) -> str:
    if not record.figures:
        return "## Figures\n\nNone are in the record."
    rows = [
        (name, f"{value:.2f}" if name.startswith(_FRACTIONS) else f"{value:.1f} %")
        for name, value in record.figures.items()
    ]
    return "## Figures\n\nOf the last evaluation in the training:\n\n" + _table(("figure", "value"), rows)


def _calibration(record: ModelRecord, name: str) -> str:
    found = Calibration.from_record(record, name)
    if found is None:
        return (
            "## Calibration\n\nNone: what a score means is not known. `mgre calibrate` measures it on images with "
            "known identities."
        )
    facts = ("dataset", "num_identities", "num_cameras", "num_matches", "num_non_matches", "seen_in_training")
    rows = [(fact.removeprefix("num_").replace("_", " "), str(getattr(found, fact))) for fact in facts]
    rows += [(f"cosine at a false-match rate of {rate:g}", f"{score:.4f} or more") for rate, score in found.thresholds]
    return "## Calibration\n\n" + _table(("", ""), rows)


def _preparation(record: ModelRecord) -> str:
    height, width = record.input_size
    rows = [("resized to", f"{height} x {width} pixels (height x width), {record.interpolation}")]
    if record.center_crop is not None:
        rows.append(("then cut to", "{} x {} pixels around the centre".format(*record.center_crop)))
    rows.append(("channels", "red, green, blue, from 0 to 255"))
    rows.append(("mean", ", ".join(f"{value:g}" for value in record.pixel_mean)))
    rows.append(("standard deviation", ", ".join(f"{value:g}" for value in record.pixel_std)))
    return "## Preparation of images\n\n" + _table(("", ""), rows)


def _versions(record: ModelRecord) -> str:
    if not record.versions:
        return ""
    return "## Versions\n\nOf the training:\n\n" + _table(("package", "version"), list(record.versions.items()))


def _table(header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *rows]
    return "\n".join(
        f"| {_plain(left).replace('|', chr(92) + '|')} | {_plain(right).replace('|', chr(92) + '|')} |"
        for left, right in lines
    )


def _plain(text: str) -> str:
    """``text`` on one line, without HTML, links and commands to a terminal: a record is what its file says."""
    text = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("[", "&#91;")
