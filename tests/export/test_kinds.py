"""Every kind of model that is shipped exports, and agrees with PyTorch on people."""

from pathlib import Path

import mgre
import numpy as np
import pytest
from mgre_cli.export import main

# The first has all that an MGRe has. The others are about their backbone or boxes, for which one stage is enough: an
# export takes as long as its graph is large.
ONE_STAGE = {"MODEL.MGRE.STAGES": "(3,)"}
KINDS = {
    "MGRe, ResNet-50-IBN": ("Base-MGRe", {"MODEL.BACKBONE.DEPTH": "50x"}),
    "MGRe, OSNet": (
        "Base-MGRe",
        {"MODEL.MGRE.BACKBONE": "build_osnet_backbone", "MODEL.BACKBONE.DEPTH": "x0_25"} | ONE_STAGE,
    ),
    "MGRe, ConvNeXt, boxes of the priors": (
        "Base-MGRe",
        {"MODEL.MGRE.BACKBONE": "build_timm_backbone", "MODEL.TIMM.NAME": "convnext_atto", "MODEL.MGRE.BOXES": "prior"}
        | ONE_STAGE,
    ),
    "Baseline": ("quickstart-baseline", {}),
    "MGN": ("ablations/mgn", {"MODEL.BACKBONE.DEPTH": "50x"}),
}


@pytest.mark.slow  # each takes 10 to 60 s on a core of its own, and many times that on a busy one
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_agrees_with_pytorch(tmp_path, capsys, save_checkpoint, kind):
    config, overrides = KINDS[kind]
    checkpoint = save_checkpoint(tmp_path / "model.pth", config, **overrides)
    assert main([str(checkpoint)]) == 0, capsys.readouterr().err
    print(f"{kind}\n{capsys.readouterr().out}")
    assert_same_features(checkpoint, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_small_resnet_of_one_stage_agrees_with_pytorch(exported):
    assert_same_features(exported.checkpoint, exported.onnx)


def assert_same_features(checkpoint: Path, exported: Path) -> None:
    """The command itself has compared mAP; here the numbers of a batch, whose people differ."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 48), dtype=np.uint8)
    expected = mgre.load(checkpoint, device="cpu").embed_pixels(pixels)
    found = mgre.load(exported).embed_pixels(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()
