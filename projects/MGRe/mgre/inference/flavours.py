"""What an exported model expects at its input: the flavours of ``mgre export --input``.

Each runtime feeds a ReID model in its own way, and none asks the file. So the pixels' normalisation is split: the
runtime does its part, and the graph the rest.
"""

from dataclasses import dataclass

import numpy as np

from mgre.errors import ConfigError, nearest

# Of ImageNet's images, for the channels red, green and blue: published from 0 to 1, here in pixel values.
_IMAGENET_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
_IMAGENET_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)


@dataclass(frozen=True)
class Flavour:
    """One way to feed a model: ``(pixel - mean) / std`` for pixels from 0 to 255.

    Attributes:
        name: as in ``--input``.
        mean, std: of the channels red, green and blue, in pixel values.
        channels: "RGB", or "BGR": the order of the channels at the input.
        takers: the runtimes that feed models so.
    """

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: str
    takers: tuple[str, ...]

    def feed(self, pixels: np.ndarray) -> np.ndarray:
        """What the runtime gives to the model.

        Args:
            pixels: (N, 3, H, W), RGB, 0 to 255, of any type.

        Returns:
            (N, 3, H, W) float32.
        """
        mean, std = (np.array(value, dtype=np.float32).reshape(3, 1, 1) for value in (self.mean, self.std))
        values = (pixels.astype(np.float32) - mean) / std
        return values if self.channels == "RGB" else np.ascontiguousarray(values[:, ::-1])


_RAW = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("imagenet", _IMAGENET_MEAN, _IMAGENET_STD, "RGB", ("boxmot",)),
        Flavour("unit-rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "RGB", ("ultralytics",)),
        Flavour("raw-rgb", *_RAW, "RGB", ("deepstream", "fastreid")),
        Flavour("raw-bgr", *_RAW, "BGR", ("openvino", "deepstream")),
    )
}


def find_flavour(name: str) -> Flavour:
    """The flavour of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FLAVOURS:
        raise ConfigError(f"'{name}' is no input flavour{nearest(name, FLAVOURS)}; allowed: {', '.join(FLAVOURS)}")
    return FLAVOURS[name]
