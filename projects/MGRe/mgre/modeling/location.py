"""Location module: the boxes of a stage's regions, from its map (Sec. 3.1, Eq. 1-2)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from fastreid.layers import get_norm
from torch import nn
from torchvision.ops import box_convert

from mgre.modeling.autocast import without_autocast
from mgre.regions import Region

# Sizes from 1/64 of the image's side to twice its side: the exponential does not overflow, and no region needs more.
LOG_SIZE_RANGE = (-math.log(64.0), math.log(2.0))


class LocationModule(nn.Module):
    """3 x 3 convolution, ReLU, batch norm, max pooling and two fully connected layers.

    The last layer gives (arctanh dc_x, arctanh dc_y, log w, log h) of each region. It starts with zero weights and
    the prior box as bias, so every image has the prior boxes (Table 1) at step 0.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        regions: Sequence[Region],
        conv_channels: int = 64,
        pool_size: tuple[int, int] = (8, 4),
        hidden_dim: int = 128,
        norm: str = "BN",
    ) -> None:
        """
        Args:
            in_channels: channels of the stage's map.
            regions: the R regions of the stage.
            conv_channels: channels of the convolution.
            pool_size: (height, width) of the pooled map.
            hidden_dim: units of the first fully connected layer.
            norm: the toolbox's name of the normalisation layer.
        """
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, conv_channels, kernel_size=3, padding=1),
            _FiniteReLU(),
            get_norm(norm, conv_channels),
            _MaxPool(pool_size),
            nn.Flatten(),
            nn.Linear(conv_channels * pool_size[0] * pool_size[1], hidden_dim),
            nn.ReLU(inplace=True),
        )
        self.predictor = nn.Linear(hidden_dim, 4 * len(regions))
        nn.init.zeros_(self.predictor.weight)
        priors = torch.tensor([[0.0, 0.0, math.log(r.size[0]), math.log(r.size[1])] for r in regions])
        self.predictor.bias.data.copy_(priors.flatten())
        self.register_buffer("centers", torch.tensor([r.center for r in regions]), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features: F_i, (B, C_i, H_i, W_i).

        Returns:
            (B, R, 4) boxes (x_min, y_min, x_max, y_max), normalised, in float32 or better also under autocast.
        """
        convolution, relu, norm, pool, flatten, *hidden = self.features
        pooled = flatten(pool(norm(relu(convolution(_within_autocast_range(features))))))
        # The 10 bits of float16's mantissa are too coarse for the place of a box.
        with without_autocast(features.device):
            values = _finite(pooled).to(self.predictor.weight.dtype)
            for layer in (*hidden, self.predictor):
                values = layer(values)
        output = values.unflatten(1, (-1, 4))
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        centers = self.centers + output[..., :2].tanh()
        sizes = _clamp_value(output[..., 2:]).exp()  # Eq. (1)
        return box_convert(torch.cat((centers, sizes), dim=-1), "cxcywh", "xyxy")  # Eq. (2)


def _clamp_value(log_sizes: torch.Tensor) -> torch.Tensor:
    if torch.compiler.is_exporting():
        return log_sizes.clamp(*LOG_SIZE_RANGE)
    # The value is clamped, but the gradient is not, so the loss can pull back a size beyond the range. A model in half
    # precision can give infinite sizes: inf - inf is NaN, which nan_to_num replaces by 0.
    return log_sizes.detach().clamp(*LOG_SIZE_RANGE) + (log_sizes - log_sizes.detach()).nan_to_num()


class _FiniteReLU(nn.Module):
    """ReLU, and the largest number of the dtype for infinity, from which batch norm would compute NaN."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.clamp(min=0.0, max=torch.finfo(values.dtype).max)


class _MaxPool(nn.Module):
    """Adaptive max pooling, which is slow on a GPU, by windows of one size where the size divides.

    Elsewhere the gradient of torch's kernel on CUDA adds in another order in each run. Where deterministic kernels are
    asked for, the rows are pooled first and then the columns, window by window. So they are in an exported model too,
    because ONNX has no adaptive max pooling.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        (height, width), (rows, columns) = features.shape[-2:], self.size
        if height % rows or width % columns:
            if torch.are_deterministic_algorithms_enabled() or torch.compiler.is_exporting():
                for dim, windows in ((2, _windows(height, rows)), (3, _windows(width, columns))):
                    parts = [features.narrow(dim, start, length).amax(dim, keepdim=True) for start, length in windows]
                    features = torch.cat(parts, dim=dim)
                return features
            return F.adaptive_max_pool2d(features, self.size)
        return F.max_pool2d(features, (height // rows, width // columns))

    def extra_repr(self) -> str:
        return f"size={self.size}"


def _windows(cells: int, number: int) -> list[tuple[int, int]]:
    """Start and length of the windows of adaptive pooling along an axis of ``cells``, which may overlap."""
    starts = [i * cells // number for i in range(number)]
    return [(start, -(-(i + 1) * cells // number) - start) for i, start in enumerate(starts)]


def _finite(values: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The ``values``, clamped to the finite numbers of ``dtype``, by default of their own."""
    largest = torch.finfo(dtype or values.dtype).max
    return values.clamp(min=-largest, max=largest)


def _within_autocast_range(values: torch.Tensor) -> torch.Tensor:
    """The ``values``, clamped where autocast to float16 would make infinities of them."""
    device = values.device.type
    if values.dtype == torch.float16 or not torch.is_autocast_enabled(device):
        return values
    dtype = torch.get_autocast_dtype(device)
    return _finite(values, dtype) if dtype == torch.float16 else values
