import torch
from mgre.geometry import boxes_from_keypoints
from mgre.modeling.losses import location_loss
from mgre.regions import TABLE1


def test_equation_3_by_hand():
    boxes = torch.tensor([[[0.2, 0.1, 0.6, 0.5]], [[0.0, 0.0, 1.0, 1.0]], [[9.0, 9.0, 9.0, 9.0]]])
    targets = torch.tensor([[[0.3, 0.1, 0.6, 0.7]], [[0.1, 0.0, 1.0, 0.8]], [[0.0, 0.0, 0.0, 0.0]]])
    valid = torch.tensor([[True], [True], [False]])
    # Image 1: 0.1^2 + 0.2^2 = 0.05; image 2: 0.1^2 + 0.2^2 = 0.05; image 3 has no key points.
    torch.testing.assert_close(location_loss(boxes, targets, valid), torch.tensor(0.05))


def test_equals_a_loop_over_images_and_regions():
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(6, 17, 3, generator=generator)
    keypoints[..., 2] = (keypoints[..., 2] > 0.6).float()
    boxes = torch.rand(6, 7, 4, generator=generator)
    expected = 0.0
    for r, region in enumerate(TABLE1):
        terms = []
        for b in range(6):
            points = [keypoints[b, k] for k in region.keypoints if keypoints[b, k, 2] == 1]
            if len(points) < 2:
                continue
            xs, ys = [p[0].item() for p in points], [p[1].item() for p in points]
            target = [min(xs) - 0.05, min(ys) - 0.05, max(xs) + 0.05, max(ys) + 0.05]
            terms.append(sum((boxes[b, r, i].item() - target[i]) ** 2 for i in range(4)))
        expected += sum(terms) / len(terms) if terms else 0.0
    loss = location_loss(boxes, *boxes_from_keypoints(keypoints, TABLE1))
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_a_batch_without_key_points_gives_exactly_0_and_backpropagates():
    boxes = torch.rand(4, 7, 4, requires_grad=True)
    loss = location_loss(boxes, *boxes_from_keypoints(torch.zeros(4, 17, 3), TABLE1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(boxes.grad, torch.zeros_like(boxes))
