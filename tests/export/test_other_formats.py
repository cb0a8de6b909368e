"""OpenVINO's, TorchScript's and TensorRT's files of a small network: the mean of each normalised channel."""

import json
import shlex
import sys
from dataclasses import replace

import mgre
import numpy as np
import pytest
import torch
from mgre.errors import ConfigError, SetupError, WeightsError
from mgre.export.exporting import Options, check_options
from mgre.export.network import ExportedNetwork
from mgre.export.openvino_file import write_openvino
from mgre.export.tensorrt import make_tensorrt_files
from mgre.export.torchscript_file import write_torchscript
from mgre.inference.exported import ExportedFacts
from mgre.inference.flavours import FLAVOURS
from mgre.record import ModelRecord
from onnx import TensorProto, helper
from torch import nn

RECORD = ModelRecord("Baseline", (8, 4), None, (100.0, 50.0, 20.0), (10.0, 20.0, 40.0), "")
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 4), dtype=np.uint8)
MEANS = (PIXELS.mean(axis=(2, 3)) - RECORD.pixel_mean) / RECORD.pixel_std


class Means(nn.Module):
    def forward(self, batch):
        return self.preprocess_image(batch).mean(dim=(2, 3))


@pytest.fixture
def onnx_model():
    node = helper.make_node("ReduceMean", ["images"], ["output0"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node],
        "means",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("flavour", ["raw-bgr", "raw-rgb"])
def test_openvino_takes_bytes(onnx_model, tmp_path, flavour):
    openvino = pytest.importorskip("openvino", reason="pip install openvino")
    path = str(tmp_path / "model.xml")
    write_openvino(onnx_model, path, ExportedFacts(RECORD, "abc", FLAVOURS[flavour]))
    model = mgre.load(path)
    np.testing.assert_allclose(model.embed_pixels(PIXELS), MEANS, rtol=1e-5)
    assert (model.fingerprint, model.record) == ("abc", RECORD)
    # Without this package, as a demo feeds it.
    compiled = openvino.Core().compile_model(path, "CPU")
    assert compiled.input(0).element_type == openvino.Type.u8
    fed = PIXELS if flavour == "raw-rgb" else PIXELS[:, ::-1]
    np.testing.assert_allclose(compiled(np.ascontiguousarray(fed[:1]))[0], MEANS[:1], rtol=1e-2)


def test_openvinos_files_belong_together(onnx_model, tmp_path):
    pytest.importorskip("openvino", reason="pip install openvino")
    path = tmp_path / "model.xml"
    write_openvino(onnx_model, str(path), ExportedFacts(RECORD, "abc", FLAVOURS["raw-bgr"]))
    (tmp_path / "model.bin").unlink()
    with pytest.raises(WeightsError, match=r"has no '.*model\.bin' beside it"):
        mgre.load(path)


def test_a_missing_openvino_has_its_install_line(onnx_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SetupError, match="pip install openvino"):
        write_openvino(onnx_model, str(tmp_path / "model.xml"), ExportedFacts(RECORD, "abc", FLAVOURS["raw-bgr"]))
    (tmp_path / "model.xml").touch()
    with pytest.raises(SetupError, match="pip install openvino"):
        mgre.load(tmp_path / "model.xml")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_torchscript(tmp_path, flavour):
    network = ExportedNetwork(Means().eval(), RECORD, FLAVOURS[flavour], normalize=False, regions=False)
    path = str(tmp_path / "model.torchscript")
    write_torchscript(network, path, ExportedFacts(RECORD, "abc", FLAVOURS[flavour]), (8, 4))
    model = mgre.load(path, device="cpu")
    np.testing.assert_allclose(model.embed_pixels(PIXELS), MEANS, rtol=1e-4, atol=1e-5)
    assert model.fingerprint == "abc"
    # A tracker gets a tensor, not a tuple.
    assert isinstance(torch.jit.load(path)(torch.zeros(1, 3, 8, 4)), torch.Tensor)


def test_a_damaged_torchscript_file(tmp_path):
    (tmp_path / "model.torchscript").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is no TorchScript file that can be read") as caught:
        mgre.load(tmp_path / "model.torchscript", device="cpu")
    assert "\n" not in str(caught.value)


def test_tensorrts_profile_and_script():
    profile, script = make_tensorrt_files("out/my person.onnx", (256, 128))
    assert (profile.path, script.path) == ("out/my person.tensorrt.json", "out/my person.tensorrt.sh")
    content = json.loads(profile.text)
    assert content["profile"]["images"] == {
        "min": [1, 3, 256, 128],
        "opt": [16, 3, 256, 128],
        "max": [100, 3, 256, 128],
    }
    words = shlex.split(script.text.splitlines()[-1])
    assert words == content["command"]
    assert "--onnx=my person.onnx" in words and "--maxShapes=images:100x3x256x128" in words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "openvino", "flavour": "unit-rgb"}, "takes bytes, which --input unit-rgb are not: choose raw-bgr"),
        ({"format": "torchscript", "precision": "fp16"}, "--format torchscript has no --precision fp16"),
    ],
)
def test_options_that_do_not_fit(options, message):
    flavour = FLAVOURS[options.pop("flavour", "raw-rgb")]
    with pytest.raises(ConfigError, match=message):
        check_options(replace(Options("onnx", flavour), **options))
