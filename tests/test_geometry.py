import torch
from mgre.geometry import boxes_from_keypoints, paired_iou
from mgre.regions import TABLE1
from torchvision.ops import box_iou

HEAD, LEFT_TORSO = TABLE1[0], TABLE1[1]


def keypoints_with(points: dict[int, tuple[float, float, float]]) -> torch.Tensor:
    keypoints = torch.full((1, 17, 3), torch.nan)  # a point nobody set must never be read
    keypoints[..., 2] = 0
    for index, point in points.items():
        keypoints[0, index] = torch.tensor(point)
    return keypoints


def test_box_is_the_outermost_trusted_points_with_the_papers_margin():
    keypoints = keypoints_with({0: (0.5, 0.1, 1), 1: (0.55, 0.08, 1), 4: (0.4, 0.12, 1), 3: (0.9, 0.9, 0)})
    boxes, valid = boxes_from_keypoints(keypoints, [HEAD])
    assert valid.tolist() == [[True]]
    torch.testing.assert_close(boxes, torch.tensor([[[0.35, 0.03, 0.60, 0.17]]]))


def test_one_trusted_point_gives_no_box():
    boxes, valid = boxes_from_keypoints(
        keypoints_with({5: (0.5, 0.2, 1), 0: (0.5, 0.1, 1), 1: (0.5, 0.1, 1)}), [LEFT_TORSO, HEAD]
    )
    assert valid.tolist() == [[False, True]]
    assert boxes[0, 0].tolist() == [0, 0, 0, 0]


def test_no_images():
    boxes, valid = boxes_from_keypoints(torch.zeros(0, 17, 3), TABLE1)
    assert boxes.shape == (0, 7, 4) and valid.shape == (0, 7)


def test_paired_iou_is_the_diagonal_of_torchvisions_matrix():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, 2, generator=generator).sort(dim=2).values
    boxes, others = corners.flatten(2)
    torch.testing.assert_close(paired_iou(boxes, others), box_iou(boxes, others).diagonal())


def test_paired_iou_of_empty_boxes_is_zero():
    zero = torch.zeros(1, 4)
    assert paired_iou(zero, zero).tolist() == [0.0]
