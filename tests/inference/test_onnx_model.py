"""Files of ``mgre export``, by onnxruntime. Their features are compared with PyTorch's in tests/export."""

import os
import subprocess
import sys

import mgre
import numpy as np
import onnx
import pytest
from mgre.errors import ConfigError, SetupError, WeightsError
from mgre.inference.exported import ExportedFacts
from mgre.inference.flavours import FLAVOURS
from mgre.record import ModelRecord
from mgre_cli.main import main
from onnx import TensorProto, helper

RECORD = ModelRecord("Baseline", (4, 2), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "")


@pytest.fixture
def write(tmp_path):
    """Write a file whose feature is the mean of each channel of what it is fed."""

    def written(name="model.onnx", facts=None, **entries):
        nodes = [helper.make_node("ReduceMean", ["images"], ["output0"], axes=[2, 3], keepdims=0)]
        graph = helper.make_graph(
            nodes,
            "means",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 4, 2])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 3])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        facts = facts or ExportedFacts(RECORD, "abc", FLAVOURS["raw-bgr"])
        helper.set_model_props(model, {**facts.to_metadata(), **entries})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return written


def test_images_are_prepared_and_fed_as_the_file_says(write):
    model = mgre.load(write())
    image = np.tile(np.array([10, 20, 30], dtype=np.uint8), (8, 6, 1))
    np.testing.assert_allclose(model.embed([image, image, image], batch_size=2), [[30, 20, 10]] * 3)
    assert (model.fingerprint, model.dim, model.record) == ("abc", 3, RECORD)


def test_int8_features_are_of_another_kind(write):
    facts = ExportedFacts(RECORD, "abc", FLAVOURS["raw-rgb"], precision="int8")
    assert mgre.load(write(facts=facts)).fingerprint == "abc-int8"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"mgre.format": "99"}, "exported in format 99, this release reads up to 1: upgrade mgre"),
        ({"mgre.format": "one"}, "is damaged"),
        ({"mgre.flavour": "yuv"}, "is damaged"),
        ({"mgre.record": "{"}, "is damaged"),
    ],
)
def test_entries_that_cannot_be_read(write, entries, message):
    with pytest.raises(WeightsError, match=message) as caught:
        mgre.load(write(**entries))
    assert "\n" not in str(caught.value)


def test_a_file_of_another_tool(write):
    path = write()
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(WeightsError, match="has no record: it is not of `mgre export`"):
        mgre.load(path)


def test_a_file_that_is_cut_short(write):
    path = write()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(WeightsError, match="is no ONNX model that can be run"):
        mgre.load(path)


def test_a_config_is_refused(write):
    with pytest.raises(ConfigError, match="a config changes nothing in it"):
        mgre.load(write(), overrides=["TEST.FLIP", "True"])


def test_describe_names_the_file_that_is_missing(write):
    path = write("my model.onnx")
    with pytest.raises(SetupError, match=r'my model\.regions\.onnx.*--regions --output ".*my model\.onnx"'):
        mgre.load(path).describe([np.zeros((4, 2, 3), np.uint8)])


def test_regions_of_another_model_are_refused(write):
    path = write()
    write("model.regions.onnx", ExportedFacts(RECORD, "other", FLAVOURS["raw-bgr"], boxes=("head",)))
    with pytest.raises(WeightsError, match="is of another model than"):
        mgre.load(path).describe([np.zeros((4, 2, 3), np.uint8)])


def test_a_missing_onnxruntime_has_its_install_line(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SetupError, match="pip install onnxruntime"):
        mgre.load(write())


def test_neither_torch_nor_the_toolbox_is_imported(write):
    code = (
        "import sys, mgre, numpy\n"
        "mgre.load(sys.argv[1]).embed([numpy.zeros((4, 2, 3), numpy.uint8)])\n"
        "print({'torch', 'fastreid', 'onnx'} & set(sys.modules))"
    )
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1"}
    words = [sys.executable, "-c", code, str(write())]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "set()"


def test_a_card_and_features_of_an_exported_file(write, tmp_path, write_crops, capsys):
    path = str(write())
    assert main(["card", path]) == 0
    assert "| architecture | Baseline |" in capsys.readouterr().out
    crops, output = write_crops(3), str(tmp_path / "f.npz")
    assert main(["extract", *map(str, crops), "--model", path, "--output", output, "--device", "cpu"]) == 0
    with np.load(output) as found:
        np.testing.assert_array_equal(found["features"], mgre.load(path, device="cpu").embed(crops))
        assert str(found["fingerprint"]) == "abc"


def test_an_exported_file_has_its_precision(write):
    with pytest.raises(ConfigError, match=r"is exported in its precision: leave mixed precision \(--amp\) out"):
        mgre.load(write(), amp=True)
