import shutil

import pytest
import yaml
from mgre.config import load_config
from mgre.config.shipped import config_path, shipped_names
from mgre.errors import ConfigError

CPU = ["MODEL.DEVICE", "cpu"]


def test_a_shipped_config_is_the_file_in_configs():
    assert load_config("mgre://custom.yml", CPU) == load_config("configs/MGRe/custom.yml", CPU)
    assert "mgre://ablations/baseline.yml" in shipped_names()


def test_the_docs_paths_work_in_any_folder(tmp_path, monkeypatch):
    expected = load_config("configs/MGRe/market.yml", CPU)
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/MGRe/market.yml", CPU) == expected
    # A file of one's own of this name comes first.
    (tmp_path / "configs/MGRe").mkdir(parents=True)
    (tmp_path / "configs/MGRe/market.yml").write_text("SEED: 7\n")
    assert load_config("configs/MGRe/market.yml", CPU).SEED == 7


def test_a_config_of_ones_own_is_based_on_a_shipped_one(tmp_path):
    (tmp_path / "own.yml").write_text("_BASE_: mgre://ablations/cut-gradient.yml\nSEED: 7\n")
    (tmp_path / "next.yml").write_text("_BASE_: own.yml\nSOLVER:\n  MAX_EPOCH: 30\n")
    cfg = load_config(str(tmp_path / "next.yml"), CPU)
    # From own.yml, from next.yml, from the shipped config, and from the one on which that is based.
    assert (cfg.SEED, cfg.SOLVER.MAX_EPOCH, cfg.MODEL.MGRE.LOCATION.REID_GRADIENT) == (7, 30, 0.0)
    assert cfg.MODEL.BACKBONE.DEPTH == "50x" and cfg.MODEL.META_ARCHITECTURE == "MGRe"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mgre://markt.yml", "'mgre://markt.yml' does not exist .nearest: mgre://market.yml"),
        ("mgre://../../x", "does not exist"),
    ],
)
def test_an_unknown_name_is_told(name, message):
    with pytest.raises(ConfigError, match=message):
        load_config(name, CPU)


def test_every_base_of_a_shipped_config_is_shipped(tmp_path):
    folder = shutil.copytree("configs", tmp_path / "configs")
    for path in folder.glob("**/*.yml"):
        base = yaml.safe_load(path.read_text()).get("_BASE_")
        assert base is None or (path.parent / base).is_file()
    assert config_path("x.yml") == "x.yml"
