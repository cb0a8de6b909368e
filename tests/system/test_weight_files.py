import argparse
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mgre.errors import DamagedFileError, WeightsError
from mgre.system.weight_files import read_state_dict, read_weights
from torch import nn


def weights(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.full((2, 3), value), "conv.bias": torch.arange(2.0)}


def assert_read(path, expected):
    state = read_state_dict(str(path))
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        weights(),
        {"teacher": weights()},
        {"student": weights(2), "teacher": weights(), "epoch": 3},
        {"encoder": weights(), "decoder": weights(2)},
        {"model_ema": weights(), "arch": "resnet"},
        {"model": weights(), "model_ema": weights(2)},
        {"net": weights(), "lr": torch.tensor(0.1)},
        {"module": {"state_dict": weights()}},
        {"network": weights(), "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1}]}},
        {"generator": weights(), "epoch": 3},  # no known key, but only one state dict
        {"results": {"best": weights()}, "optimizer": {"exp_avg": torch.zeros(2), "param_groups": []}},
    ],
)
def test_the_state_dict_is_taken_out_of_any_wrapper(tmp_path, content):
    assert_read(saved(tmp_path / "w.pth", content), weights())


def test_which_of_several_was_taken_is_logged(tmp_path, caplog):
    with caplog.at_level("INFO", "mgre"):
        read_state_dict(str(saved(tmp_path / "w.pth", {"student": weights(2), "teacher": weights()})))
    assert "w.pth holds teacher, student: the weights of 'teacher' are taken" in caplog.text


def code_of_command(error: pytest.ExceptionInfo) -> str:
    """The code of the command that a message gives, as a shell hands it to Python."""
    command = re.search(r"python -c .*(?=, and load)", str(error.value)).group()
    words = shlex.split(command)
    assert words[:2] == ["python", "-c"] and len(words) == 3
    return words[2]


@pytest.fixture
def run_command(run_script: Callable[..., subprocess.CompletedProcess], tmp_path: Path) -> Callable[..., None]:
    """Run the command that a message gives, without importing torch anew."""

    def run(error: pytest.ExceptionInfo) -> None:
        script = tmp_path / "command.py"
        script.write_text(code_of_command(error))
        finished = run_script(script)
        assert finished.returncode == 0, finished.stderr

    return run


def test_several_state_dicts_of_unknown_keys_are_listed_with_a_command(tmp_path):
    path = saved(tmp_path / "two 'dicts'.pth", {"gen": {"a": weights()}, "dis": weights(2), "epoch": 1})
    with pytest.raises(WeightsError, match=r"holds several state dicts, under gen\.a, dis: take the one out") as error:
        read_state_dict(str(path))
    subprocess.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(code_of_command(error))}", shell=True, check=True)
    assert_read(tmp_path / "two 'dicts'_weights.pth", weights())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "args": {"lr": 1}}, r"holds no state dict \(its keys: epoch, args\)"),
        ({"model": {"args": 1}}, r"no state dict \(its keys: model\)"),
        ([torch.zeros(1)], "no state dict but a list"),
        (torch.zeros(1), "no state dict but a Tensor"),
        ({}, r"its keys: none"),
    ],
)
def test_files_without_a_state_dict(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        read_state_dict(str(saved(tmp_path / "w.pth", content)))


@pytest.mark.parametrize("name", ["w.safetensors", "renamed.pth"])
def test_safetensors(tmp_path, name):
    safetensors.torch.save_file(weights(), tmp_path / name)
    assert_read(tmp_path / name, weights())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-3])
    with pytest.raises(DamagedFileError, match=r"is damaged or cut short \(\d+ bytes\)"):
        read_state_dict(str(tmp_path / name))


def test_the_format_before_torch_1_6(tmp_path):
    torch.save({"state_dict": weights()}, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=False)
    assert_read(tmp_path / "w.pth.tar", weights())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        {"args": argparse.Namespace(lr=0.1, name="dino")},
        {"rank1": np.float32(0.9), "mAP": np.float64(0.8), "epoch": np.int64(3)},
    ],
)
def test_values_of_well_known_codes_beside_the_weights(tmp_path, beside, zipped):
    torch.save({"model": weights()} | beside, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "w.pth", weights())
    assert vars(read_weights(str(tmp_path / "w.pth"))["args"]) == vars(beside["args"]) if "args" in beside else True


def test_a_number_of_numpy_1(tmp_path):
    """numpy 1 has the function that rebuilds a number in a module of another name."""
    path = saved(tmp_path / "new.pth", {"model": weights(), "rank1": np.float32(0.5)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "w.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_read(tmp_path / "w.pth", weights())


def test_a_whole_module_names_its_class_and_a_command(run_command, tmp_path):
    path = saved(tmp_path / "whole.pth", nn.Linear(3, 2))
    with pytest.raises(WeightsError, match=r"objects besides tensors \(.*torch.nn.modules.linear.Linear.*\)") as error:
        read_state_dict(str(path))
    run_command(error)
    assert read_state_dict(str(tmp_path / "whole_weights.pth")).keys() == {"weight", "bias"}


def test_torchscript_is_told_from_a_damaged_file(run_command, tmp_path):
    torch.jit.script(nn.Linear(3, 2)).save(tmp_path / "traced.pt")
    with pytest.raises(WeightsError, match="is a TorchScript model") as error:
        read_state_dict(str(tmp_path / "traced.pt"))
    assert not isinstance(error.value, DamagedFileError)
    run_command(error)
    assert read_state_dict(str(tmp_path / "traced_weights.pth")).keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Google Drive can't scan this file", "is a web page.*open the link in a browser"),
        (b"\n <HTML><head>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102\n", "git lfs pull"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML page, which the server sent"),
        (b"", "is damaged or cut short .0 bytes"),
        (b"PK", "is damaged"),
    ],
)
def test_downloads_that_are_no_weights(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(str(tmp_path / "w.pth"))


def test_an_archive_of_weights_is_to_be_unpacked(tmp_path):
    saved(tmp_path / "market.pth", weights())
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        archive.write(tmp_path / "market.pth", "zoo/market.pth")
    with pytest.raises(WeightsError, match=r"is an archive \(zoo/market.pth\) .*unpack it") as error:
        read_state_dict(str(tmp_path / "zoo.zip"))
    assert not isinstance(error.value, DamagedFileError)


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(WeightsError, match="is a folder: name the file in it"):
        read_state_dict(str(tmp_path))
    with pytest.raises(WeightsError, match=r"nowhere.pth' does not exist"):
        read_state_dict(str(tmp_path / "nowhere.pth"))
