import torch
from mgre.evaluation.region_iou import evaluate_regions, has_regions
from mgre.regions import TABLE1
from torch import nn


def keypoints_for(box_of: dict[str, tuple[float, float, float, float]]) -> torch.Tensor:
    """(17, 3): two trusted points a margin inside the corners of each named region's box, on points of its own."""
    keypoints = torch.zeros(17, 3)
    own = {"head": (0, 1), "left_torso": (7, 9), "legs": (15, 16)}
    for name, (x_min, y_min, x_max, y_max) in box_of.items():
        first, second = own[name]
        keypoints[first] = torch.tensor([x_min + 0.05, y_min + 0.05, 1.0])
        keypoints[second] = torch.tensor([x_max - 0.05, y_max - 0.05, 1.0])
    return keypoints


def test_mean_over_the_images_that_have_the_region(build_small):
    model = build_small()
    head = (3 / 8, 1 / 12 - 1 / 16, 5 / 8, 1 / 12 + 1 / 16)  # the prior, which the fresh model predicts: IoU 1
    left_half = (3 / 8, 1 / 12 - 1 / 16, 1 / 2, 1 / 12 + 1 / 16)  # IoU 1/2
    left_torso = (1 / 4, 1 / 12, 3 / 4, 7 / 12)
    images = torch.rand(1, 3, 64, 32) * 255
    loader = [
        {"images": images, "keypoints": keypoints_for({"head": head, "left_torso": left_torso})[None]},
        {"images": images, "keypoints": keypoints_for({"head": left_half})[None]},
        {"images": images, "keypoints": torch.zeros(1, 17, 3)},
    ]
    figures = evaluate_regions(model, loader)
    assert abs(figures["IoU/head"] - 0.75) < 1e-5
    assert abs(figures["IoU/left_torso"] - 1.0) < 1e-5
    assert "IoU/right_torso" not in figures and "IoU/legs" not in figures
    named = [figures[f"IoU/{r.name}"] for r in TABLE1 if f"IoU/{r.name}" in figures]
    assert abs(figures["IoU/mean"] - sum(named) / len(named)) < 1e-9


def test_only_an_mgre_with_stages_has_regions(build_small):
    assert has_regions(build_small())
    assert has_regions(nn.ModuleDict({"module": build_small()}))
    assert not has_regions(build_small(**{"MODEL.MGRE.STAGES": "()"}))
    assert not has_regions(nn.Identity())
