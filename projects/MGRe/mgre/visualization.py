"""Pictures of predicted regions."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torchvision.transforms.functional import resize, to_pil_image
from torchvision.utils import draw_bounding_boxes, make_grid

# One colour a region, in the region set's order.
COLORS = ("#ffd400", "#ff3b30", "#34c8ff", "#4cd964", "#ff7ad9", "#b48cff", "#ffffff", "#ff9500")


def draw_regions(image: torch.Tensor, boxes: torch.Tensor, *, scale: int = 3) -> torch.Tensor:
    """Draw the regions' boxes on an enlarged image.

    Args:
        image: (3, H, W), RGB, 0 to 255.
        boxes: (R, 4), (x_min, y_min, x_max, y_max), normalised; what lies outside the image is cut off.
        scale: enlargement.

    Returns:
        (3, scale H, scale W), uint8.
    """
    height, width = (scale * side for side in image.shape[-2:])
    canvas = resize(image.clamp(0, 255).to(torch.uint8), [height, width], antialias=True)
    limit = torch.tensor([width, height, width, height], device=boxes.device) - 1
    pixels = torch.minimum((boxes.clamp(min=0) * (limit + 1)).round(), limit)
    colors = [COLORS[i % len(COLORS)] for i in range(len(boxes))]
    return draw_bounding_boxes(canvas, pixels, colors=colors, width=2)


def contact_sheet(
    images: torch.Tensor, boxes: dict[str, torch.Tensor], *, columns: int = 8, scale: int = 3
) -> Image.Image:
    """Images with their predicted regions in a grid, over a legend of the regions' colours.

    Args:
        images: (B, 3, H, W), RGB, 0 to 255.
        boxes: (B, 4), normalised, by the region's name (``MGRe.predict_boxes``).
        columns: images in a row.
        scale: enlargement.
    """
    stacked = torch.stack(list(boxes.values()), dim=1)
    drawn = [draw_regions(image, b, scale=scale) for image, b in zip(images, stacked, strict=True)]
    grid = to_pil_image(make_grid(drawn, nrow=columns, padding=4, pad_value=32))
    return _add_legend(grid, list(boxes))


def _add_legend(grid: Image.Image, names: Sequence[str]) -> Image.Image:
    line, step = 20, max(grid.width // 4, 1)
    lines = -(-len(names) // 4)
    sheet = Image.new("RGB", (grid.width, grid.height + line * lines + 8), "#202020")
    sheet.paste(grid, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for index, name in enumerate(names):
        x, y = step * (index % 4) + 8, grid.height + 4 + line * (index // 4)
        draw.rectangle((x, y + 3, x + 12, y + 15), fill=COLORS[index % len(COLORS)])
        draw.text((x + 18, y + 3), name.replace("_", " "), fill="#e0e0e0")
    return sheet
