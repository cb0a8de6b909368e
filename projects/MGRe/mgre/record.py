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
            return cls(**values)
        except (ValueError, TypeError, LookupError) as error:
            raise WeightsError(f"the record in '{path}' is damaged ({error}): take another copy of the file") from error
