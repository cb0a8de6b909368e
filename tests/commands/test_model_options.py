"""What a command that loads a model may import for it."""

from argparse import Namespace

import pytest
import torch
from mgre.commands.model_options import imports_of_model
from mgre.config import load_config
from mgre.engine.training_record import make_record


@pytest.fixture
def options(tmp_path, small_config):
    """A checkpoint, one without a record, and a config file: two of them want to import something."""
    for name, content in (("own", "recorded.py"), ("other", "filed.py")):
        (tmp_path / f"{name}.yml").write_text(f"IMPORTS: [{content}]\n")
    cfg = load_config("", ["MODEL.DEVICE", "cpu"])
    cfg.defrost()
    cfg.IMPORTS = ("recorded.py",)
    torch.save({"model": {}, "record": make_record(cfg, {}).to_json()}, tmp_path / "model.pth")
    torch.save({"model": {}}, tmp_path / "plain.pth")

    def make(model, config_file="", **options):
        config_file = str(tmp_path / config_file) if config_file else ""
        return Namespace(model=str(tmp_path / model), config_file=config_file, **{"allow_imports": True} | options)

    return make


def test_with_the_option_it_is_what_the_record_or_the_config_file_wants(options):
    assert imports_of_model(options("model.pth")) == ["IMPORTS", "('recorded.py',)"]
    assert imports_of_model(options("model.pth", "other.yml")) == ["IMPORTS", "('filed.py',)"]
    assert imports_of_model(options("plain.pth")) == []


def test_without_it_nothing(options):
    assert imports_of_model(options("model.pth", allow_imports=False, opts=["SEED", "1"])) == []
    assert imports_of_model(options("model.pth", "other.yml", allow_imports=False)) == []


@pytest.mark.parametrize("allowed", [True, False])
def test_an_override_counts_in_any_case(options, allowed):
    words = ["SEED", "1", "IMPORTS", "('mine.py',)"]
    assert imports_of_model(options("model.pth", allow_imports=allowed, opts=words)) == words[2:]


def test_a_config_file_needs_no_model(options):
    given = options("model.pth", "other.yml")
    given.model = None  # as of mgre rank --config-file
    assert imports_of_model(given) == ["IMPORTS", "('filed.py',)"]


def test_an_exported_model_imports_nothing(options):
    assert imports_of_model(options("person.onnx", opts=["IMPORTS", "('mine.py',)"])) == []
