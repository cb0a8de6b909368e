"""The record that a trained model carries: what its file has to say beside the weights.

It is JSON text. So any file format can hold it, and reading it runs no code.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from mgre.errors import WeightsError

# Raised when a field is added, renamed or gets another meaning.
FORMAT = 1
# How images are resized, by Pillow's names in small letters.
INTERPOLATIONS = ("bicubic", "bilinear")
# Of the images that a model takes, in pixels: far more than any needs, and few enough for the memory.
LONGEST_SIDE = 4096


@dataclass(frozen=True)
class ModelRecord:
    """What is known of a trained model.

    Attributes:
        architecture: MODEL.META_ARCHITECTURE, such as "MGRe" or "Baseline".
        input_size: (H, W) of the images that the model takes, in pixels.
        center_crop: (H, W) that is cut out of the resized image, or None.
        pixel_mean, pixel_std: of the channels red, green and blue, from 0 to 255.
        regions: the names of the regions whose vectors make up the feature, by stage in the order of the feature.
            Stage 4's is "whole_image". Empty for other architectures than MGRe.
        stage_weights: lambda_i^F of Eq. (6), by stage.
        trained_on: names of the data sets.
        figures: of the last evaluation in the training, in % and, for "IoU/...", from 0 to 1.
        calibration: what ``mgre calibrate`` has found, or None.
        versions: of this package, torch and the toolbox, at the time of the training.
        licence: what may be done with the weights.
        config: the whole config as YAML; without paths of the machine that trained.
        interpolation: how images are resized.
        format: :data:`FORMAT` of the release that wrote the record.
    """

    architecture: str
    input_size: tuple[int, int]
    center_crop: tuple[int, int] | None
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    config: str
    regions: dict[str, list[str]] = field(default_factory=dict)
    stage_weights: dict[str, float] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    interpolation: str = "bicubic"
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, path: str) -> "ModelRecord":
        """The record in the file ``path``.

        Raises:
            WeightsError: it is damaged, or a newer release has written it.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format"] > FORMAT:
                raise WeightsError(
                    f"the record in '{path}' has format {values['format']}, this release reads up to {FORMAT}: "
                    "upgrade mgre"
                )
            pairs = {"input_size", "center_crop", "pixel_mean", "pixel_std"}
            values |= {name: tuple(values[name]) for name in pairs & values.keys() if values[name] is not None}
            record = cls(**values)
            _check(record)
            return record
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise WeightsError(f"the record in '{path}' is damaged ({error}): take another copy of the file") from error


def _check(record: ModelRecord) -> None:
    """Raise a ValueError where a field has another type, which would fail later and far from here."""
    numbers = (*record.pixel_mean, *record.pixel_std, *record.stage_weights.values(), *record.figures.values())
    texts = (
        *record.trained_on,
        *record.versions.values(),
        *record.regions,
        *(n for r in record.regions.values() for n in r),
    )
    named = (record.architecture, record.config, record.licence, record.interpolation)
    fits = {
        "input_size": _is_size(record.input_size),
        "center_crop": record.center_crop is None or _is_size(record.center_crop),
        "interpolation": record.interpolation in INTERPOLATIONS,
        "pixel_mean or pixel_std": len(record.pixel_mean) == len(record.pixel_std) == 3,
        "numbers": all(isinstance(number, int | float) for number in numbers),
        "texts": all(isinstance(text, str) for text in (*named, *texts)),
        "trained_on": isinstance(record.trained_on, list),
        "regions": all(isinstance(names, list) for names in record.regions.values()),
        "calibration": isinstance(record.calibration, dict | None),
    }
    if wrong := [name for name, right in fits.items() if not right]:
        raise ValueError(f"of another kind: {', '.join(wrong)}")


def _is_size(size: tuple[int, ...]) -> bool:
    return len(size) == 2 and all(isinstance(side, int) and 0 < side <= LONGEST_SIDE for side in size)
