"""Stored outputs of a small MGRe: maps, features, boxes, losses and gradients, which no change of the code may move.

The weights are drawn by parameter name, so neither torch's generator nor the order in which the model is built plays a
part. Everything is float64: in float32 processors differ by their rounding, which a ReLU near 0 turns into other
gradients. A change that is meant to move the outputs writes them anew: ``python tests/modeling/test_golden.py``.
"""

import json
import sys
import zlib
from pathlib import Path

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import numpy as np
import pytest
import torch
from fastreid.modeling import build_model
from fastreid.utils.events import EventStorage
from mgre.config import load_config
from torch import nn

GOLDEN = Path("tests/modeling/golden/mgre.json")
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.DEPTH": "18x",
    "MODEL.BACKBONE.PRETRAIN": "False",
    "MODEL.HEADS.NUM_CLASSES": "3",
    "MODEL.HEADS.EMBEDDING_DIM": "8",
    "MODEL.MGRE.LOCATION.LOSS_WEIGHT": "10.0",
    "MODEL.MGRE.LOCATION.REID_GRADIENT": "1.0",
    "INPUT.SIZE_TRAIN": "(64, 32)",
    "INPUT.SIZE_TEST": "(64, 32)",
}
VARIANTS = {
    "mgre": {},
    "stages23-cut-gradient": {"MODEL.MGRE.STAGES": "(2, 3)", "MODEL.MGRE.LOCATION.REID_GRADIENT": "0.0"},
    "single-grained-features": {"MODEL.MGRE.SOURCE_BLOCKS": "(4, 4, 4)"},
    "keypoint-boxes": {"MODEL.MGRE.BOXES": "keypoints"},
}


def build(variant: str) -> nn.Module:
    options = SMALL | VARIANTS[variant]
    cfg = load_config("configs/MGRe/Base-MGRe.yml", [word for pair in options.items() for word in pair])
    model = build_model(cfg).double()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
            if name.endswith("running_var"):
                drawn = 1 + 0.1 * np.abs(drawn)
            elif name.endswith("running_mean") or value.dim() == 1:
                drawn = 0.1 * drawn + (1.0 if name.endswith("weight") else 0.0)
            else:
                drawn = drawn * np.sqrt(1.0 / max(1, value[0].numel()))
            if name.startswith("location") and name.endswith("predictor.bias"):
                drawn = value.numpy() + drawn  # near the priors, as in a training
            value.copy_(torch.from_numpy(drawn))
    return model


def draw_batch() -> dict[str, torch.Tensor]:
    rng = np.random.RandomState(0)
    points = np.concatenate([rng.uniform(0.1, 0.9, (4, 17, 2)), rng.uniform(size=(4, 17, 1)) > 0.2], axis=2)
    return {
        "images": torch.from_numpy(rng.uniform(0, 255, (4, 3, 64, 32))),
        "targets": torch.tensor([0, 0, 1, 1]),
        "camids": torch.tensor([0, 1, 0, 1]),
        "keypoints": torch.from_numpy(points).float(),
        "img_paths": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
    }


def compute(variant: str) -> dict[str, list | dict]:
    """All outputs as nested lists, by name."""
    batch = draw_batch()
    model = build(variant).eval()
    with torch.no_grad():
        maps = model.backbone(model.preprocess_image(batch))
        outputs = {
            "map_means": {stage: value.mean(dim=(0, 2, 3))[:8].tolist() for stage, value in maps.items()},
            "features": model(batch).tolist(),
            "boxes": {region: value.tolist() for region, value in model.predict_boxes(batch).items()},
        }
    model.train()
    with EventStorage(0):
        losses = model(batch)
    sum(losses.values()).backward()
    outputs["losses"] = {name: loss.item() for name, loss in losses.items()}
    norms: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = ".".join(name.split(".")[:2])
            norms[part] = norms.get(part, 0.0) + parameter.grad.square().sum().item()
    outputs["squared_gradients"] = norms
    return outputs


def assert_same(found, stored, path: str) -> None:
    if isinstance(stored, dict):
        assert list(found) == list(stored), path
        for key, value in stored.items():
            assert_same(found[key], value, f"{path}/{key}")
    else:
        np.testing.assert_allclose(found, stored, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_the_stored_ones(variant):
    assert_same(compute(variant), json.loads(GOLDEN.read_text())[variant], variant)


def test_a_changed_output_is_seen():
    stored = json.loads(GOLDEN.read_text())["mgre"]
    found = json.loads(json.dumps(stored))
    found["boxes"]["head"][0][0] += 0.01
    with pytest.raises(AssertionError, match="mgre/boxes/head"):
        assert_same(found, stored, "mgre")


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(member) for key, member in value.items()}
    return [rounded(member) for member in value] if isinstance(value, list) else float(f"{value:.6g}")


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps({variant: rounded(compute(variant)) for variant in VARIANTS}, indent=1) + "\n")
    print(f"{GOLDEN}: {', '.join(VARIANTS)}", file=sys.stderr)
