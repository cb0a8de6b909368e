"""HRNet for key points, the paper's own pose model (its [28]).

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019, and its authors' code
(``lib/models/pose_hrnet.py`` in github.com/leoxiaobin/deep-high-resolution-net.pytorch), on timm's trunk.

Legend: N crops, K = 17 key points, (H, W) the input's size, h = H / 4, w = W / 4 the heatmaps'.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mgre.data.keypoints import FLIP_PAIRS, NUM_KEYPOINTS
from mgre.errors import SetupError, WeightsError
from mgre.pose.base import POSE_MODELS, PoseModel
from mgre.pose.crops import CropTransform
from mgre.pose.decoding import decode_heatmaps
from mgre.system.download import download, file_sha256
from mgre.system.weight_files import read_state_dict

# Channels of the highest-resolution branch: HRNet-W32 and W48.
WIDTHS = (32, 48)

# mmpose's HRNet-W32, 256 x 192, trained on COCO as by the authors; the authors' own files are on hosts that only a
# browser can download from. Of the file's SHA-256 only the first digits, in its name, are published. The size is that
# of the parameters.
WEIGHTS_URL = "https://download.openmmlab.com/mmpose/top_down/hrnet/hrnet_w32_coco_256x192-c78dce93_20200708.pth"
WEIGHTS_SHA256 = "c78dce93"
WEIGHTS_SIZE = 114_364_132

# Batch norm's counter of training steps. Prediction does not use it, and files older than torch 0.4.1 do not have it.
STEP_COUNTER = ".num_batches_tracked"

# The position of each key point's mirror image.
_MIRRORED = list(range(NUM_KEYPOINTS))
for _left, _right in FLIP_PAIRS:
    _MIRRORED[_left], _MIRRORED[_right] = _right, _left


class HRNetPose(nn.Module):
    """Crops (N, 3, H, W), normalised, to heatmaps (N, K, h, w). H and W are multiples of 32.

    Names and shapes of the parameters are those of the authors' ``PoseHighResolutionNet``.

    Args:
        width: one of :data:`WIDTHS`.
    """

    def __init__(self, width: int) -> None:
        import timm  # here, because the package registers all pose models and most commands use another one or none

        super().__init__()
        self.width = width
        trunk: Any = timm.create_model(f"hrnet_w{width}", pretrained=False, head="")
        self.conv1, self.bn1 = trunk.conv1, trunk.bn1
        self.conv2, self.bn2 = trunk.conv2, trunk.bn2
        self.layer1 = trunk.layer1
        self.transition1, self.stage2 = trunk.transition1, trunk.stage2
        self.transition2, self.stage3 = trunk.transition2, trunk.stage3
        self.transition3, self.stage4 = trunk.transition3, trunk.stage4
        # Only the first branch gives heatmaps, so the last fusion has one output (multi_scale_output=False).
        self.stage4[-1].fuse_layers = self.stage4[-1].fuse_layers[:1]
        self.final_layer = nn.Conv2d(width, NUM_KEYPOINTS, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        maps = self.stage2(_branch_out(self.transition1, maps))
        maps = self.stage3(_branch_out(self.transition2, maps))
        maps = self.stage4(_branch_out(self.transition3, maps))
        return self.final_layer(maps[0])


def _branch_out(transition: nn.ModuleList, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The input of each branch of the next stage: an old branch has its map, a new branch gets the last map."""
    return [maps[i] if isinstance(layer, nn.Identity) else layer(maps[-1]) for i, layer in enumerate(transition)]


def hrnet_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of ``state`` under :class:`HRNetPose`'s names.

    Three forms are known: the authors' (the same names); mmpose's (``backbone.`` before the trunk's names, and before
    ``final_layer`` ``keypoint_head.`` in mmpose 0.x or ``head.`` in 1.x); and both with DataParallel's ``module.`` in
    front. Any other name is not changed.
    """
    prefix = re.compile(r"^(module\.)?(backbone\.|(keypoint_head|head)\.(?=final_layer\.))?")
    return {prefix.sub("", name): tensor for name, tensor in state.items()}


def load_hrnet(path: str) -> HRNetPose:
    """HRNet-W32 or W48, according to the weights in the file ``path``.

    Raises:
        WeightsError: the file is missing or damaged, holds code, or does not fit: see :func:`load_strictly`.
    """
    state = hrnet_state_dict(read_state_dict(path))
    head = state.get("final_layer.weight")
    width = head.shape[1] if head is not None and head.ndim == 4 and head.shape[1] in WIDTHS else WIDTHS[0]
    network = HRNetPose(width)
    load_strictly(network, state, source=path)
    return network


def load_strictly(network: HRNetPose, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Load ``state``, which must have each tensor of the network in its shape, step counters excepted, and no other.

    Args:
        source: the path of the weights, for the error message.

    Raises:
        WeightsError: ``state`` does not fit; the message names the first tensor that differs.
    """
    difference = _first_difference(network.state_dict(), state)
    if difference:
        raise WeightsError(
            f"weight file '{source}' does not fit HRNet-W{network.width}: {difference}; "
            f"choose weights of HRNet-W32 or W48 for the {NUM_KEYPOINTS} key points of COCO"
        )
    network.load_state_dict(state, strict=False)


def _first_difference(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    for name, tensor in own.items():
        if name not in given:
            if not name.endswith(STEP_COUNTER):
                return f"tensor {name} is missing"
        elif given[name].shape != tensor.shape:
            return f"tensor {name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    unknown = next((name for name in given if name not in own), None)
    return f"tensor {unknown} is not part of it" if unknown else ""


def flip_back(heatmaps: torch.Tensor) -> torch.Tensor:
    """Heatmaps (N, K, h, w) of mirrored crops to those of the crops themselves.

    The heatmaps are mirrored, those of left and right key points are swapped, and all are moved one cell to the right,
    with the first column kept. They are moved because the network's cell j is centred on pixel 4 j, which after
    mirroring is pixel 4 j + 3 of the crop, nearer to cell j + 1 (``flip_back`` and ``SHIFT_HEATMAP`` of the authors'
    ``lib/core/function.py``).
    """
    mirrored = heatmaps.flip(3)[:, _MIRRORED]
    return torch.cat([mirrored[..., :1], mirrored[..., :-1]], dim=3)


class PreparedCrop(NamedTuple):
    """The network's input (3, H, W), float32, and the (H, W) of the original crop, in pixels."""

    image: np.ndarray
    size: tuple[int, int]


class HRNetPoseModel(PoseModel):
    """Finds key points with :class:`HRNetPose`, decoded as by its authors.

    Args:
        network: changed in place: moved to ``device`` and set to evaluation mode.
        input_size: (H, W) that the network was trained with, in pixels.
        flip_test: average the heatmaps of each crop with those of its mirror image (HRNet Sec. 4.1), at twice the time.
        weights_id: the identity of the network's weights, for the fingerprint.

    Raises:
        SetupError: ``device`` cannot be used here.
    """

    def __init__(
        self,
        network: HRNetPose,
        *,
        device: str = "cpu",
        input_size: tuple[int, int] = (256, 192),
        flip_test: bool = True,
        weights_id: str = "",
    ) -> None:
        self.network = _move(network, device).eval()
        self.device = device
        self.flip_test = flip_test
        self.transform = CropTransform(input_size)
        height, width = input_size
        self.fingerprint = f"hrnet_w{network.width} {weights_id} {height}x{width}{' flip test' if flip_test else ''}"

    def prepare(self, crop: np.ndarray) -> PreparedCrop:
        return PreparedCrop(self.transform.to_input(crop), crop.shape[:2])

    def predict(self, prepared: Sequence[PreparedCrop]) -> np.ndarray:
        if not prepared:
            return np.zeros((0, NUM_KEYPOINTS, 3), dtype=np.float32)
        images = torch.from_numpy(np.stack([crop.image for crop in prepared])).to(self.device)
        heatmaps = self.heatmaps(images).cpu().numpy()
        keypoints = decode_heatmaps(heatmaps)
        cell = np.divide(images.shape[:1:-1], heatmaps.shape[:1:-1])  # (x, y) pixels of the input for each cell
        for points, crop in zip(keypoints, prepared, strict=True):
            points[:, :2] = self.transform.to_crop(points[:, :2] * cell, crop.size)
        return keypoints

    @torch.inference_mode()
    def heatmaps(self, images: torch.Tensor) -> torch.Tensor:
        """Crops (N, 3, H, W), normalised, on the device, to heatmaps (N, K, h, w), averaged by the flip test."""
        heatmaps = self.network(images)
        if self.flip_test:
            heatmaps = (heatmaps + flip_back(self.network(images.flip(3)))) / 2
        return heatmaps


def _move(network: HRNetPose, device: str) -> HRNetPose:
    try:
        return network.to(device).to(memory_format=torch.channels_last)  # the faster layout for convolutions
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise SetupError(
            f"device '{device}' cannot be used here ({str(error).splitlines()[0]}): choose cpu, or mend the driver"
        ) from error


@POSE_MODELS.register()
def hrnet(*, weights: str, device: str) -> PoseModel:
    """HRNet-W32 or W48, according to the file ``weights`` (see :func:`load_hrnet`); empty: mmpose's W32, downloaded.

    The input is 256 x 192, or 384 x 288 if the file's name contains ``384x288``. Only the name tells the input size:
    the authors and mmpose put the size of the training into the names of their files. Weights trained with other
    heatmaps (UDP, DARK) load too, but their heatmaps are decoded as plain ones, a little less exactly.
    """
    path = weights or download(WEIGHTS_URL, sha256=WEIGHTS_SHA256, size=WEIGHTS_SIZE)
    input_size = (384, 288) if "384x288" in os.path.basename(path) else (256, 192)
    return HRNetPoseModel(load_hrnet(path), device=device, input_size=input_size, weights_id=file_sha256(path)[:16])
