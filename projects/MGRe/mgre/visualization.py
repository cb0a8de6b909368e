"""Pictures of regions and key points."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.functional import pad, resize, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_keypoints, make_grid

from mgre.colors import COLORS
from mgre.data.keypoints import COCO_SKELETON
from mgre.errors import SetupError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Width of the boxes' lines, in pixels.
LINE_WIDTH = 2

# Least width of an entry in a sheet's legend, a colour and a name, in pixels.
LEGEND_WIDTH = 112


def new_figure(**options: Any) -> "Figure":
    """A figure of matplotlib with these options, without a window.

    Raises:
        SetupError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SetupError(f"pictures and plots need the package {error.name}: pip install matplotlib") from error
    return Figure(layout="constrained", **options)


def draw_regions(image: torch.Tensor, boxes: torch.Tensor, *, scale: int = 3) -> torch.Tensor:
    """Draw the regions' boxes on an enlarged image.

    Args:
        image: (3, H, W), RGB, 0 to 255.
        boxes: (R, 4), (x_min, y_min, x_max, y_max), normalised. Boxes are cut at the image's border, and a box without
            an area is not drawn. A box that equals an earlier box is drawn a little smaller, inside the earlier one.
        scale: enlargement.

    Returns:
        (3, scale H, scale W), uint8.
    """
    height, width = (scale * side for side in image.shape[-2:])
    canvas = resize(image.clamp(0, 255).to(torch.uint8), [height, width], antialias=True)
    limit = torch.tensor([width, height, width, height], device=boxes.device) - 1
    pixels = torch.minimum((boxes.clamp(min=0) * (limit + 1)).round(), limit)
    num_same = (pixels[:, None] == pixels).all(dim=2).tril(diagonal=-1).sum(dim=1)
    pixels += LINE_WIDTH * num_same[:, None] * torch.tensor([1, 1, -1, -1], device=boxes.device)
    shown = (pixels[:, 2:] > pixels[:, :2]).all(dim=1).nonzero().flatten().tolist()
    if not shown:
        return canvas
    return draw_bounding_boxes(canvas, pixels[shown], colors=[COLORS[i % len(COLORS)] for i in shown], width=LINE_WIDTH)


def draw_skeleton(image: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """Draw the trusted key points and the limbs between them.

    Args:
        image: (3, H, W), RGB, uint8.
        keypoints: (17, 3), x, y (normalised) and trust (1 trusted, 0 not).

    Returns:
        (3, H, W), uint8.
    """
    height, width = image.shape[-2:]
    points = keypoints[None, :, :2] * torch.tensor([width, height])
    return draw_keypoints(
        image, points, connectivity=COCO_SKELETON, colors="#ffffff", width=1, visibility=keypoints[None, :, 2] > 0
    )


def contact_sheet(tiles: Sequence[torch.Tensor], regions: Sequence[str], *, columns: int = 8) -> Image.Image:
    """Pictures in a grid, over a legend of the regions' colours.

    Args:
        tiles: (3, H, W), RGB, uint8, each of its own size.
        regions: names, in the order of the boxes that :func:`draw_regions` drew.
        columns: pictures in a row.
    """
    height, width = (max(tile.shape[side] for tile in tiles) for side in (-2, -1))
    padded = [pad(tile, [0, 0, width - tile.shape[-1], height - tile.shape[-2]], fill=32) for tile in tiles]
    return add_legend(to_pil_image(make_grid(padded, nrow=columns, padding=4, pad_value=32)), regions)


def add_legend(grid: Image.Image, names: Sequence[str]) -> Image.Image:
    """The picture over a legend of regions' colours, by their ``names`` in the order of :func:`draw_regions`."""
    width = max(grid.width, 4 * LEGEND_WIDTH)
    line, step = 20, width // 4
    lines = -(-len(names) // 4)
    sheet = Image.new("RGB", (width, grid.height + line * lines + 8), "#202020")
    sheet.paste(grid, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for index, name in enumerate(names):
        x, y = step * (index % 4) + 8, grid.height + 4 + line * (index // 4)
        draw.rectangle((x, y + 3, x + 12, y + 15), fill=COLORS[index % len(COLORS)])
        draw.text((x + 18, y + 3), name.replace("_", " "), fill="#e0e0e0")
    return sheet
