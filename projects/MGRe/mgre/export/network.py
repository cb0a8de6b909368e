"""The network that is exported: from what a runtime feeds to features.

Legend: N images, D numbers of a feature, R regions, of which R_i are stage i's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mgre.errors import ConfigError
from mgre.inference.exported import BOXES, OUTPUT, TERMS
from mgre.inference.flavours import Flavour
from mgre.modeling import MGRe
from mgre.record import ModelRecord


class ExportedNetwork(nn.Module):
    """A trained network with an input of a flavour.

    Attributes:
        outputs: the names of what :meth:`forward` gives.
        boxes: the names of the regions whose boxes it gives, in their order.
    """

    network: Any  # of the toolbox, which has no annotations
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, network: nn.Module, record: ModelRecord, flavour: Flavour, *, normalize: bool, regions: bool
    ) -> None:
        """
        Args:
            network: of any architecture of the toolbox, in evaluation mode.
            flavour: what the runtime feeds.
            normalize: give features of length 1.
            regions: give boxes and regions' vectors too, as :meth:`MGRe.explain` does.

        Raises:
            ConfigError: the network needs more than images, or has no regions where they are asked for.
        """
        super().__init__()
        if isinstance(network, MGRe) and network.boxes_from == "keypoints":
            raise ConfigError(
                "the model takes its boxes from key points (MODEL.MGRE.BOXES keypoints), which no runtime gives with "
                "an image: export a model that was trained with MODEL.MGRE.BOXES location"
            )
        if regions and not (isinstance(network, MGRe) and network.regions):
            raise ConfigError(f"--regions needs an MGRe with regions, this is a {record.architecture}: leave it out")
        self.network = network
        self.normalize = normalize
        self.regions = regions
        self.channels = flavour.channels
        # The runtime's value is (pixel - mean) / std by the flavour, and the network wants this by its record.
        pairs = zip(flavour.mean, flavour.std, record.pixel_mean, record.pixel_std, strict=True)
        scale_shift = torch.tensor([[std / own_std, (mean - own) / own_std] for mean, std, own, own_std in pairs])
        self.register_buffer("scale", scale_shift[:, 0].reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", scale_shift[:, 1].reshape(1, 3, 1, 1), persistent=False)
        self._is_prepared = torch.allclose(scale_shift, torch.tensor([1.0, 0.0]), rtol=0, atol=1e-6)
        stages = [*self.network.sampling, "stage4"] if regions else []
        self.outputs = [OUTPUT, *([BOXES] if regions else []), *(TERMS + stage for stage in stages)]
        self.boxes = tuple(r.name for members in self.network.regions.values() for r in members) if regions else ()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Args:
            images: (N, 3, H, W), as the flavour says.

        Returns:
            The features (N, D); with regions also the boxes (N, R, 4), (x_min, y_min, x_max, y_max), normalised, and
            by stage the regions' vectors and the constant (N, R_i + 1, D_i).
        """
        if self.channels == "BGR":
            images = images.flip(1)
        if not self._is_prepared:
            images = images * self.scale + self.shift
        with _prepared(self.network):
            if not self.regions:
                return (self._features(self.network({"images": images})),)
            features, boxes, terms = self.network.explain({"images": images})
        return self._features(features), torch.stack(list(boxes.values()), dim=1), *terms.values()

    def _features(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features, dim=1) if self.normalize else features


@contextmanager
def _prepared(network: Any) -> Iterator[None]:
    """Within the block the network takes images that are normalised already."""
    network.preprocess_image = lambda batch: batch["images"]
    try:
        yield
    finally:
        del network.preprocess_image


def check_size(network: nn.Module, record: ModelRecord) -> None:
    """Stop where a region would have no sample of its own at the record's size.

    Raises:
        ConfigError: the size is too small.
    """
    height, width = record.center_crop or record.input_size
    if not isinstance(network, MGRe):
        return
    images = torch.zeros(1, 3, height, width, device=network.device)
    try:
        with torch.no_grad():
            maps = network.backbone(images)
    except (RuntimeError, ValueError) as error:  # torch's layers raise both for a map that has no cells left
        raise ConfigError(f"--size {height} {width} is too small for the backbone ({_line(error)})") from error
    for stage, regions in network.regions.items():
        rows, columns = maps[network.sources[stage]].shape[-2:]
        for region in regions:
            if region.size[0] * columns < 1 or region.size[1] * rows < 1:
                raise ConfigError(
                    f"--size {height} {width} leaves {stage} a map of {rows} x {columns} cells, where region "
                    f"{region.name} covers less than one: take a larger size, best the one of the training, "
                    f"{' '.join(map(str, record.input_size))}"
                )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
