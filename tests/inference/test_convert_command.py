"""Files of weights and record alone."""

import dataclasses
import os
import subprocess
import sys

import mgre
import numpy as np
import pytest
import safetensors.torch
import torch
from mgre.errors import WeightsError
from mgre.system.model_files import read_record, write_model, write_record
from mgre.system.safetensors_header import is_safetensors
from mgre.system.weight_files import read_state_dict
from mgre_cli.main import main


@pytest.mark.parametrize(("config", "name"), [("Base-MGRe", "small.safetensors"), ("ablations/baseline", "small.pth")])
def test_a_converted_model_is_the_same_without_the_classifier(save_model, write_crops, tmp_path, name, config, capsys):
    network, path = save_model(config)
    content = torch.load(path)
    torch.save(content | {"optimizer": {"state": torch.zeros(1000)}}, path)
    small = str(tmp_path / name)
    assert main(["convert", str(path), small, "--licence", "for research only"]) == 0
    assert capsys.readouterr().out.startswith(f"{small}: ")
    before, after = mgre.load(path, device="cpu"), mgre.load(small, device="cpu")
    assert after.fingerprint == before.fingerprint
    assert after.record == dataclasses.replace(before.record, licence="for research only")
    crops = write_crops(2)
    np.testing.assert_array_equal(after.embed(crops), before.embed(crops))
    tensors = safetensors.torch.load_file(small) if name.endswith("s") else torch.load(small)["model"]
    state = network.state_dict()
    left_out = set(state) - set(tensors)
    assert left_out and all(name.endswith(".weight") and len(state[name]) == 3 for name in left_out)  # 3 identities
    for tensor_name, tensor in tensors.items():
        assert torch.equal(tensor, state[tensor_name])


def test_a_record_is_read_from_safetensors_without_torch(save_model, tmp_path):
    path = str(tmp_path / "m.safetensors")
    assert main(["convert", str(save_model()[1]), path]) == 0
    code = (
        "import sys\nfrom mgre.inference.card import model_card\nfrom mgre.system.model_files import read_record\n"
        f"print(model_card(read_record({path!r}), 'm')[:15], 'torch' in sys.modules)"
    )
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "# Model card: m False\n"


@pytest.mark.parametrize("name", ["m.safetensors", "m.pth"])
def test_a_record_is_replaced_and_all_else_stays(save_model, tmp_path, name):
    network, path = save_model()
    given, written = str(tmp_path / name), str(tmp_path / "other")
    write_model(given, network.state_dict(), read_record(str(path)))
    record = dataclasses.replace(read_record(given), calibration={"dataset": "x"})
    write_record(given, record, written)
    assert read_record(written) == record
    before, after = read_state_dict(given), read_state_dict(written)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert is_safetensors(written) == is_safetensors(given) == name.endswith("s")


def test_safetensors_without_a_record_takes_a_config(save_model, tmp_path):
    network, _ = save_model()
    path = str(tmp_path / "m.safetensors")
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, path)
    assert read_record(path) is None
    with pytest.raises(WeightsError, match=r"no record .* --config-file"):
        mgre.load(path)


def test_an_output_that_is_there_is_kept(save_model, tmp_path, capsys):
    path = save_model()[1]
    (tmp_path / "m.pth").write_text("mine")
    assert main(["convert", str(path), str(tmp_path / "m.pth")]) == 1
    assert "m.pth' is there already: add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "m.pth").read_text() == "mine"
    assert main(["convert", str(path), str(tmp_path / "m.pth"), "--overwrite"]) == 0
    assert read_record(str(tmp_path / "m.pth")) == read_record(str(path))


def test_an_output_that_cannot_be_written(save_model, tmp_path, capsys):
    path = save_model()[1]
    (tmp_path / "file").touch()
    assert main(["convert", str(path), str(tmp_path / "file" / "m.pth")]) == 1
    error = capsys.readouterr().err
    assert "m.pth' cannot be written (File exists): make room there, or name another file" in error
    assert error.count("\n") == 1


def test_an_output_of_another_kind_is_seen_before_the_model_is_read(capsys):
    assert main(["convert", "none.pth", "m.bin"]) == 1
    message = "error: model 'm.bin' ends in neither of .safetensors, .pth: name such a file\n"
    assert capsys.readouterr().err == message


def test_a_record_of_no_file(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pth' is not there: name its file"):
        read_record(str(tmp_path / "none.pth"))
