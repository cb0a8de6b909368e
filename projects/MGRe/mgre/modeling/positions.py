"""The position embedding of a vision transformer, for images of another size than it was trained at."""

import math

import torch
import torch.nn.functional as F
from fastreid.modeling.backbones.vision_transformer import VisionTransformer

from mgre.errors import WeightsError

# (H, W) in pixels of the images that vision transformers are trained at: ReID's, which are two or three times as high
# as wide, and ImageNet's. Square ones of any other size are known by their number of tokens.
TRAINED_SIZES = ((256, 128), (384, 128), (384, 192), (128, 64), (288, 144), (512, 256), (224, 224), (384, 384))
# The toolbox's transformer has patches of 16 x 16 pixels. Those of ReID overlap: their stride is smaller.
PATCH = 16
STRIDES = range(8, PATCH + 1)
# Tokens that are no patches, and have positions too: the class token, and the distillation token of DeiT.
EXTRA_TOKENS = ("cls_token", "dist_token")


def fit_positions(
    state: dict[str, torch.Tensor], transformer: VisionTransformer, *, above: str = "", source: str = "the weights"
) -> dict[str, torch.Tensor]:
    """A copy of ``state`` whose position embedding has the size of the toolbox's ``transformer``.

    The embedding is that of a grid of patches, and is interpolated from one grid to the other.

    Args:
        state: tensors by name. ``pos_embed`` is (1, extra tokens + rows x columns, C).
        above: what stands before the transformer's own names in ``state``.
        source: the path of the weights, for error messages.

    Raises:
        WeightsError: the number of tokens does not tell rows and columns.
    """
    name = f"{above}pos_embed"
    positions, own = state.get(name), transformer.pos_embed
    if positions is None or positions.shape == own.shape or positions.shape[::2] != own.shape[::2]:
        return state
    known = sum(state[above + token].shape[1] for token in EXTRA_TOKENS if above + token in state)
    grids = [(extra, grid) for extra in ((known,) if known else (1, 2)) for grid in _grids(positions.shape[1] - extra)]
    if not grids:
        # A file with the class token may still have no position for it: then there is one token for each patch.
        grids = [(0, grid) for grid in _grids(positions.shape[1])]
    if len(grids) != 1:
        found = " or ".join(f"{rows} x {columns} patches" for _, (rows, columns) in grids)
        raise WeightsError(
            f"the position embedding of {source} has {positions.shape[1]} tokens, which are "
            f"{found or 'no grid of patches of an image size known here'}: set INPUT.SIZE_TRAIN, INPUT.SIZE_TEST and "
            "MODEL.BACKBONE.STRIDE_SIZE as they were when it was trained"
        )
    ((extra, grid),) = grids
    size = (transformer.patch_embed.num_y, transformer.patch_embed.num_x)
    patches = positions[0, extra:].float().unflatten(0, grid).permute(2, 0, 1)[None]
    resized = F.interpolate(patches, size=size, mode="bilinear").flatten(2).transpose(1, 2)
    # The toolbox's transformer has the class token alone. Without a position of its own, nothing is added to it.
    first = positions[:, :1].float() if extra else torch.zeros_like(resized[:, :1])
    return state | {name: torch.cat([first, resized], dim=1)}


def _grids(num_patches: int) -> set[tuple[int, int]]:
    """The grids (rows, columns) of so many patches that images of a known size have."""
    side = math.isqrt(max(num_patches, 0))
    square = {(side, side)} if side and side * side == num_patches else set()
    shapes = {tuple((length - PATCH) // stride + 1 for length in size) for size in TRAINED_SIZES for stride in STRIDES}
    return square | {(rows, columns) for rows, columns in shapes if rows * columns == num_patches}
