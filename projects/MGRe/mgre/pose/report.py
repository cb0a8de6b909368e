"""Summary of a key point file for its user: tables, and sheets of crops with skeletons and the regions' boxes."""

import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from tabulate import tabulate
from torchvision.transforms.functional import pil_to_tensor, resize

from mgre.data.keypoints import COCO_KEYPOINTS, ImageKeypoints
from mgre.errors import DataError
from mgre.geometry import boxes_from_keypoints
from mgre.reading.images import ImageError, load_image
from mgre.regions import Region
from mgre.system.files import explain_unwritable, write_atomically
from mgre.visualization import contact_sheet, draw_regions, draw_skeleton

# Images on a sheet, and the (H, W) in pixels into which each image is fitted.
NUM_SHOWN = 24
SHOWN_SIZE = (288, 192)

SHEETS = ("sample", "worst")
# An entry in a sheet's file by which the sheet is told from a crop and from any other picture.
SHEET_MARK = {"Software": "MGRe key point sheet"}


def sheet_paths(key_points: str) -> dict[str, str]:
    """Paths of the sheets beside a key point file: "sample" shows evenly spaced images, "worst" the lowest scores."""
    stem = os.path.splitext(key_points)[0]
    return {kind: f"{stem}_{kind}.png" for kind in SHEETS}


def is_sheet(path: str) -> bool:
    """Whether an image is a sheet of any key point file."""
    if not path.endswith(tuple(f"_{kind}.png" for kind in SHEETS)):
        return False
    try:
        with Image.open(path) as image:
            return image.info.items() >= SHEET_MARK.items()
    except Exception:  # no readable image, which is reported when the image is used
        return False


def require_free_sheets(key_points: str, image_paths: Collection[str], *, overwrite: bool) -> None:
    """
    Args:
        key_points: the file beside which the sheets are to be saved.
        image_paths: the images that have the key points; they are never overwritten.

    Raises:
        DataError: a sheet would replace a file that is no sheet.
    """
    images = {os.path.realpath(path) for path in image_paths}
    for path in sheet_paths(key_points).values():
        if not os.path.exists(path) or is_sheet(path):
            continue
        if os.path.realpath(path) in images:
            raise DataError(f"a sheet would replace the image '{path}': choose another --output")
        if not overwrite:
            raise DataError(
                f"a sheet would replace '{path}', which is none: add --overwrite, or choose another --output"
            )


def summarise(keypoints: Mapping[str, ImageKeypoints], *, min_score: float) -> str:
    """Two tables: the number of images, and for each joint its mean score and how often it is trusted.

    Args:
        keypoints: by ``file_name``.
        min_score: points of a lower score are not trusted.
    """
    scores = np.array([found.points[:, 2] for found in keypoints.values()]).reshape(-1, len(COCO_KEYPOINTS))
    trusted = np.array([found.trusted(min_score) for found in keypoints.values()]).reshape(scores.shape)
    counts = {"images": len(scores), "images with no trusted point": int((~trusted.any(axis=1)).sum())}
    tables = [tabulate(counts.items(), tablefmt="plain")]
    if len(scores):
        rows = zip(COCO_KEYPOINTS, scores.mean(axis=0), 100 * trusted.mean(axis=0), strict=True)
        tables.append(tabulate(rows, headers=["joint", "mean score", "trusted, %"], floatfmt=("", ".2f", ".1f")))
    return "\n\n".join(tables)


def save_sheets(
    keypoints: Mapping[str, ImageKeypoints],
    folder: str,
    paths: Mapping[str, str],
    *,
    regions: Sequence[Region],
    min_score: float,
) -> dict[str, str]:
    """Save the sheets, each atomically.

    Args:
        keypoints: by ``file_name``.
        folder: the folder to which the file names are relative.
        paths: see :func:`sheet_paths`.
        regions: whose boxes are drawn.
        min_score: points of a lower score are not trusted; they are not drawn, and make no box.

    Returns:
        The reasons why images could not be shown, by ``file_name``.

    Raises:
        SetupError: a sheet cannot be written.
    """
    names = list(keypoints)
    picked = np.linspace(0, len(names) - 1, min(NUM_SHOWN, len(names))).round().astype(int)
    by_score = sorted(names, key=lambda name: float(keypoints[name].points[:, 2].mean()))
    shown = {"sample": [names[index] for index in picked], "worst": by_score[:NUM_SHOWN]}
    faulty: dict[str, str] = {}
    for kind, members in shown.items():
        tiles = []
        for name in members:
            try:
                tiles.append(_tile(os.path.join(folder, name), keypoints[name], regions, min_score))
            except ImageError as error:
                faulty[name] = str(error)
        if tiles:
            _save(contact_sheet(tiles, [region.name for region in regions]), paths[kind])
    return faulty


def _tile(path: str, found: ImageKeypoints, regions: Sequence[Region], min_score: float) -> torch.Tensor:
    image = pil_to_tensor(load_image(path))
    scale = min(shown / side for shown, side in zip(SHOWN_SIZE, image.shape[1:], strict=True))
    image = resize(image, [max(1, round(scale * side)) for side in image.shape[1:]], antialias=True)
    xy = torch.from_numpy(found.points[:, :2]) / torch.tensor(found.size[::-1])
    points = torch.cat((xy, torch.from_numpy(found.trusted(min_score)).float()[:, None]), dim=1)
    boxes, _ = boxes_from_keypoints(points[None], regions)  # a box without an area is not drawn
    return draw_skeleton(draw_regions(image, boxes[0], scale=1), points)


def _save(sheet: Image.Image, path: str) -> None:
    marks = PngImagePlugin.PngInfo()
    for key, value in SHEET_MARK.items():
        marks.add_text(key, value)
    remedy = (
        "the key points are there; make room and give permission, and start the same command with --sheets to have the "
        "sheets too"
    )
    with explain_unwritable(f"the sheet '{path}'", remedy), write_atomically(path) as unfinished:
        # The usual level of compression takes five times as long, for a file a tenth smaller.
        sheet.save(unfinished, format="PNG", pnginfo=marks, compress_level=1)
