"""Components swapped by config keys alone: two training steps and one evaluation each."""

import pytest
import torch
from fastreid.modeling import build_model
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage
from mgre.config.checks import POOL_LAYERS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_random_weights")]

DEPTH, BACKBONE = "MODEL.BACKBONE.DEPTH", "MODEL.MGRE.BACKBONE"
TIMM = {BACKBONE: "build_timm_backbone"}
SIZES = {"INPUT.SIZE_TRAIN": "(128, 64)", "INPUT.SIZE_TEST": "(128, 64)"}
LOSSES = "MODEL.LOSSES.NAME"
BACKBONES = {
    **{f"resnet{d}-ibn": {DEPTH: f"{d}x"} for d in (18, 34, 50, 101)},
    **{f"resnet{d}": {DEPTH: f"{d}x", "MODEL.BACKBONE.WITH_IBN": "False"} for d in (18, 34, 50, 101)},
    **{f"resnet{d}-se": {DEPTH: f"{d}x", "MODEL.BACKBONE.WITH_SE": "True"} for d in (18, 34, 50, 101)},
    **{f"resnet{d}-non-local": {DEPTH: f"{d}x", "MODEL.BACKBONE.WITH_NL": "True"} for d in (50, 101)},
    "resnext50": {DEPTH: "50x", BACKBONE: "build_resnext_backbone"},
    "resnest50": {DEPTH: "50x", BACKBONE: "build_resnest_backbone"},
    "regnet": {DEPTH: "400x", BACKBONE: "build_regnet_backbone"},
    "osnet": {DEPTH: "x0_25", BACKBONE: "build_osnet_backbone"},
    "timm-resnet152": TIMM | {"MODEL.TIMM.NAME": "resnet152"},
    "timm-convnext": TIMM | {"MODEL.TIMM.NAME": "convnext_atto"},
    "last-stride-2": {"MODEL.BACKBONE.LAST_STRIDE": "2"},
    "syncbn": {"MODEL.BACKBONE.NORM": "SyncBN", "MODEL.HEADS.NORM": "SyncBN"},
}
# Parts that any backbone may have, so it is one of four convolutions.
SMALL = {
    BACKBONE: "build_toy_backbone",
    "MODEL.MGRE.LOCATION.CONV_CHANNELS": "8",
    "MODEL.MGRE.LOCATION.HIDDEN_DIM": "16",
}
PARTS = {
    **{f"pool-{name}": {"MODEL.HEADS.POOL_LAYER": name} for name in POOL_LAYERS},
    **{f"softmax-{name}": {"MODEL.HEADS.CLS_LAYER": name, "MODEL.HEADS.SCALE": "16", "MODEL.HEADS.MARGIN": "0.1"}
       for name in ("Linear", "ArcSoftmax", "CosSoftmax", "CircleSoftmax")},
    "loss-cls": {LOSSES: "('CrossEntropyLoss',)"},
    "loss-triplet": {LOSSES: "('TripletLoss',)"},
    "loss-circle": {LOSSES: "('CrossEntropyLoss', 'CircleLoss')"},
    "loss-cosface": {LOSSES: "('Cosface',)"},
    "loss-all": {LOSSES: "('CrossEntropyLoss', 'TripletLoss', 'CircleLoss', 'Cosface')"},
    "no-stages": {"MODEL.MGRE.STAGES": "()"},
    **{f"stages{s}": {"MODEL.MGRE.STAGES": s} for s in ("(1,)", "(2,)", "(3,)", "(1, 2)", "(1, 3)", "(2, 3)")},
    "no-guidance": {"MODEL.MGRE.GUIDANCE": "False"},
    "no-embedding": {"MODEL.HEADS.EMBEDDING_DIM": "0"},
    "neck-after": {"MODEL.HEADS.NECK_FEAT": "after"},
    "384x128": {"INPUT.SIZE_TRAIN": "(384, 128)", "INPUT.SIZE_TEST": "(384, 128)"},
    "128x64": SIZES,
    "gradient-cut": {"MODEL.MGRE.LOCATION.REID_GRADIENT": "0.0"},
}  # fmt: skip
SWAPS = BACKBONES | {name: SMALL | swap for name, swap in PARTS.items()}


@pytest.mark.parametrize("name", SWAPS)
def test_trains_two_steps_and_evaluates(name, small_config):
    torch.manual_seed(0)
    cfg = small_config(**SWAPS[name])
    model = build_model(cfg)
    optimizer, _ = build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["fused"] = True  # the same step in one pass over the numbers, a fifth of the time
    batch = {
        "images": torch.rand(4, 3, *cfg.INPUT.SIZE_TRAIN) * 255,
        "targets": torch.tensor([0, 0, 2, 2]),
        "keypoints": torch.cat((torch.rand(4, 17, 2), torch.ones(4, 17, 1)), dim=2),
    }
    before = [p.detach().clone() for p in model.parameters()]
    with EventStorage(0):
        for _ in range(2):
            losses = model.train()(batch)
            assert all(loss.isfinite() for loss in losses.values())
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    with torch.no_grad():
        features = model.eval()(batch)
    assert features.shape[0] == 4 and features.isfinite().all()
    # Eq. (6): the squared norm is the sum of the squared weights of the stages that are built.
    weights = dict(enumerate(cfg.MODEL.MGRE.STAGE_WEIGHTS, start=1))
    expected = sum(weights[i] ** 2 for i in (*cfg.MODEL.MGRE.STAGES, 4))
    torch.testing.assert_close(features.square().sum(dim=1), torch.full((4,), expected), rtol=1e-4, atol=1e-4)
