"""What a user sees of a key point file: figures, and sheets of crops with skeletons and the regions' boxes."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from tabulate import tabulate
from torchvision.transforms.functional import pil_to_tensor

from mgre.data.dataset import load_image
from mgre.data.keypoints import COCO_KEYPOINTS, ImageKeypoints
from mgre.geometry import boxes_from_keypoints
from mgre.regions import Region
from mgre.visualization import contact_sheet, draw_regions, draw_skeleton

# Images on a sheet, and the height in pixels at which they are shown, about.
NUM_SHOWN = 24
SHOWN_HEIGHT = 288


def sheet_paths(key_points: str) -> dict[str, str]:
    """Paths of the sheets beside a key point file: "sample" of the whole of it, and "worst" by the mean score."""
    stem = os.path.splitext(key_points)[0]
    return {kind: f"{stem}_{kind}.png" for kind in ("sample", "worst")}


def summarise(keypoints: Mapping[str, ImageKeypoints], *, min_score: float) -> str:
    """Two tables: how many images there are, and each joint's mean score and how often it is trusted.

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
) -> None:
    """Save the sheets.

    Args:
        keypoints: by ``file_name``, one image at least.
        folder: the file names are relative to it.
        paths: see :func:`sheet_paths`.
        regions: whose boxes are drawn.
        min_score: points of a lower score are not trusted; they are not drawn, and make no box.
    """
    names = list(keypoints)
    picked = np.linspace(0, len(names) - 1, min(NUM_SHOWN, len(names))).round().astype(int)
    by_score = sorted(names, key=lambda name: float(keypoints[name].points[:, 2].mean()))
    shown = {"sample": [names[index] for index in picked], "worst": by_score[:NUM_SHOWN]}
    for kind, members in shown.items():
        tiles = [_tile(os.path.join(folder, name), keypoints[name], regions, min_score) for name in members]
        contact_sheet(tiles, [region.name for region in regions]).save(paths[kind])


def _tile(path: str, found: ImageKeypoints, regions: Sequence[Region], min_score: float) -> torch.Tensor:
    height, width = found.size
    xy = torch.from_numpy(found.points[:, :2]) / torch.tensor([width, height])
    points = torch.cat((xy, torch.from_numpy(found.trusted(min_score)).float()[:, None]), dim=1)
    boxes, _ = boxes_from_keypoints(points[None], regions)  # a region that has none is not drawn
    scale = max(1, round(SHOWN_HEIGHT / height))
    return draw_skeleton(draw_regions(pil_to_tensor(load_image(path)), boxes[0], scale=scale), points)
