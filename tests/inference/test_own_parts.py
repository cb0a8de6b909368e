"""Checkpoints of models with parts of one's own."""

import sys

import mgre
import numpy as np
import pytest
import torch
from mgre.config import load_config
from mgre.errors import ConfigError
from mgre.modeling.losses import LOSS_REGISTRY
from torch import nn

HALVES = (
    "- {name: upper, stage: 1, center: [0.5, 0.25], size: [1, 0.5], keypoints: [nose, left_hip, right_hip]}\n"
    "- {name: lower, stage: 3, center: [0.5, 0.75], size: [1, 0.5], keypoints: [left_hip, right_hip, left_ankle]}\n"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """The configs of the repository, beside files of one's own."""
    (tmp_path / "configs").symlink_to("/".join([*__file__.split("/")[:-3], "configs"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_import", raising=False)


def test_a_checkpoint_keeps_the_regions_of_a_file(save_model, write_crops, tmp_path):
    regions = tmp_path / "halves.yml"
    regions.write_text(HALVES)
    _, path = save_model(**{"MODEL.MGRE.REGIONS": "halves.yml", "MODEL.MGRE.STAGES": "(1, 3)"})
    crops = write_crops(2)
    before = mgre.load(path, device="cpu").describe(crops)
    regions.unlink()
    after = mgre.load(path, device="cpu")
    assert after.record.regions == {"stage1": ["upper"], "stage3": ["lower"], "stage4": ["whole_image"]}
    found = after.describe(crops)
    np.testing.assert_array_equal(found.features, before.features)
    assert list(found.boxes) == ["upper", "lower"]


def test_the_config_that_a_run_keeps_has_the_regions_of_a_file(tmp_path):
    (tmp_path / "halves.yml").write_text(HALVES)
    words = ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "MGRe", "MODEL.BACKBONE.NAME", "build_mgre_backbone"]
    words += ["MODEL.HEADS.NAME", "MGReHead", "MODEL.HEADS.POOL_LAYER", "GlobalAvgPool", "MODEL.MGRE.STAGES", "(1, 3)"]
    cfg = load_config("", [*words, "MODEL.MGRE.REGIONS", "halves.yml"])
    (tmp_path / "halves.yml").unlink()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    assert load_config("config.yaml") == cfg
    with pytest.raises(ConfigError, match=r"but the region set in the config has no region there: set .* \"\(1, 3\)\""):
        load_config("config.yaml", ["MODEL.MGRE.STAGES", "(2,)"])


def test_a_checkpoint_imports_nothing_by_itself(save_model, tmp_path):
    (tmp_path / "own_import.py").write_text("open('imported', 'w').close()")
    _, path = save_model(IMPORTS="('own_import.py',)")
    del sys.modules["own_import"]
    (tmp_path / "imported").unlink()
    with pytest.raises(ConfigError, match=r"the record of '.*' wants to import .*own_import.*, .* or the override IMP"):
        mgre.load(path, device="cpu")
    assert not (tmp_path / "imported").exists()
    mgre.load(path, device="cpu", overrides=["IMPORTS", "()"])
    assert not (tmp_path / "imported").exists()
    mgre.load(path, device="cpu", overrides=["IMPORTS", "('own_import.py',)"])
    assert (tmp_path / "imported").exists()


class Pull(nn.Module):
    def __init__(self, cfg, *, dim):
        super().__init__()
        self.center = nn.Parameter(torch.ones(dim))


def test_the_weights_of_a_loss_are_not_part_of_what_a_model_is_known_by(save_model, monkeypatch):
    monkeypatch.setattr(LOSS_REGISTRY, "_obj_map", {"Pull": Pull})
    _, path = save_model(**{"MODEL.LOSSES.NAME": "('Pull',)"})
    loaded = mgre.load(path, device="cpu")
    content = torch.load(path)
    names = [name for name in content["model"] if name.startswith("stage_losses.")]
    assert len(names) == 4
    for name in names:
        content["model"][name] += 1
    torch.save(content, path)
    assert mgre.load(path, device="cpu").fingerprint == loaded.fingerprint
