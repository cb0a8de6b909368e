import pytest
import torch
from fastreid.config import configurable
from mgre.config import load_config
from mgre.engine.load_model import load_model
from mgre.errors import ConfigError
from mgre.geometry import boxes_from_keypoints
from mgre.modeling.losses import LOSS_REGISTRY, location_loss
from mgre.regions import TABLE1
from torch import nn


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


class Pull(nn.Module):
    """0.5 times the squared distance to a learned centre, which all images share."""

    @configurable
    def __init__(self, *, dim: int, scale: float) -> None:
        super().__init__()
        self.center = nn.Parameter(torch.ones(dim))
        self.scale = scale

    @classmethod
    def from_config(cls, cfg, *, dim):
        return {"dim": dim, "scale": cfg.MODEL.LOSSES.TRI.SCALE / 2}

    def forward(self, outputs, targets):
        assert targets.shape == (6,) and outputs["features"].dtype == torch.float32
        return self.scale * (outputs["features"] - self.center).square().sum(dim=1).mean()


@pytest.fixture
def pull(monkeypatch):
    monkeypatch.setattr(LOSS_REGISTRY, "_obj_map", {"Pull": Pull})
    return {"MODEL.LOSSES.NAME": "('CrossEntropyLoss', 'Pull')"}


def test_a_registered_loss_is_computed_for_each_stage_by_weights_of_its_own(pull, build_small, make_batch, storage):
    model, batch = build_small(**pull, **{"MODEL.MGRE.LAMBDA": "0.25"}).train(), make_batch()
    outputs = {}
    model.heads.register_forward_hook(lambda heads, inputs, output: outputs.update(output))
    losses = model(batch)
    assert {name for name in losses if "Pull" in name} == {f"loss_Pull_stage{i}" for i in range(1, 5)}
    for i in range(1, 5):
        features = outputs[f"stage{i}"]["features"]
        expected = (0.25 if i < 4 else 1) * 0.5 * (features - 1).square().sum() / 6
        torch.testing.assert_close(losses[f"loss_Pull_stage{i}"], expected)
    sum(losses.values()).backward()
    gradients = [module["Pull"].center.grad for module in model.stage_losses.values()]
    assert len({id(g) for g in gradients}) == 4 and all(g.abs().sum() > 0 for g in gradients)


def test_a_loss_of_more_numbers_is_refused(pull, build_small, make_batch, storage, monkeypatch):
    monkeypatch.setattr(Pull, "forward", lambda self, outputs, targets: outputs["features"].sum(dim=1))
    with pytest.raises(ConfigError, match=r"loss 'Pull' .* gives a tensor \(6,\); allowed: a scalar"):
        build_small(**pull).train()(make_batch())


def test_a_model_without_registered_losses_has_the_weights_it_had(build_small):
    assert not [name for name in build_small().state_dict() if "losses" in name]
    assert not [name for name in build_small("ablations/baseline").state_dict() if "losses" in name]


def test_a_plain_baseline_takes_a_registered_loss(pull, small_run, make_batch, storage):
    words = [*small_run, "MODEL.BACKBONE.FEAT_DIM", "512", "MODEL.HEADS.NAME", "EmbeddingHead"]
    words += ["MODEL.META_ARCHITECTURE", "Baseline", "MODEL.HEADS.NUM_CLASSES", "3"]
    from fastreid.modeling import build_model

    cfg = load_config("", [*words, *(word for pair in pull.items() for word in pair)])
    model, batch = build_model(cfg).train(), make_batch()
    features = {}
    model.heads.register_forward_hook(lambda heads, inputs, output: features.update(output))
    losses = model(batch)
    assert set(losses) == {"loss_cls", "loss_Pull"}
    expected = 0.5 * (features["features"] - 1).square().sum() / 6
    torch.testing.assert_close(losses["loss_Pull"], expected)
    assert [n for n, _ in model.named_parameters() if "losses" in n] == ["registered_losses.Pull.center"]


def test_an_evaluation_does_without_the_weights_of_losses(pull, build_small, small_config, tmp_path):
    """Whether or not the config and the checkpoint have the loss."""
    weights = tmp_path / "model.pth"
    for saved, evaluated in ((pull, {}), ({}, pull), (pull, pull)):
        model = build_small(**saved)
        torch.save({"model": model.state_dict()}, weights)
        loaded = load_model(small_config(**evaluated, **{"MODEL.WEIGHTS": str(weights)}))
        name = "heads.embeddings.stage1.bottleneck.0.weight"
        assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.LOSSES.NAME", "('Pul',)"], r"has 'Pul', which is not known \(nearest: Pull\); known: .*Pull, Triplet"),
        (
            ["MODEL.LOSSES.NAME", "('Pull',)", "MODEL.META_ARCHITECTURE", "MGN"],
            "has 'Pull', but MODEL.META_ARCHITECTURE MGN computes the toolbox's losses alone",
        ),
    ],
)
def test_a_loss_that_would_be_ignored_is_refused(pull, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("", [*overrides, "MODEL.DEVICE", "cpu"])


def test_a_loss_by_the_name_of_one_of_the_toolbox_is_refused(monkeypatch):
    monkeypatch.setattr(LOSS_REGISTRY, "_obj_map", {"TripletLoss": Pull})
    with pytest.raises(ConfigError, match="registers the loss 'TripletLoss', which is the toolbox's"):
        load_config("", ["MODEL.DEVICE", "cpu"])
