"""Half precision and eight bits, of a small graph with the notes that torch's exporter leaves."""

import numpy as np
import onnx
import onnxruntime
import pytest
from mgre.errors import DataError
from mgre.export.precision import read_calibration, to_half, to_int8
from mgre.inference.flavours import FLAVOURS
from mgre.record import ModelRecord
from onnx import TensorProto, helper, numpy_helper

RECORD = ModelRecord("MGRe", (8, 4), None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "")


@pytest.fixture
def model():
    """A convolution of the backbone, and one of a location module."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(4, channels, 3, 3)).astype(np.float32) for channels in (3, 4)]
    nodes = [
        helper.make_node("Conv", ["images", "w0"], ["maps"], pads=[1] * 4),
        helper.make_node("Conv", ["maps", "w1"], ["places"], pads=[1] * 4),
        helper.make_node("ReduceMean", ["places"], ["output0"], axes=[2, 3], keepdims=0),
    ]
    modules = ("network.backbone: ResNet", "network.location.stage1: mgre.LocationModule", "network.heads: Pool")
    for node, module in zip(nodes, modules, strict=True):
        node.metadata_props.add(key="namespace", value=f": ExportedNetwork/{module}")
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PIXELS = np.random.default_rng(1).integers(0, 256, (12, 3, 8, 4), dtype=np.uint8)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": FLAVOURS["unit-rgb"].feed(PIXELS)})[0]


def weight_types(model):
    return {w.name: onnx.TensorProto.DataType.Name(w.data_type) for w in model.graph.initializer if len(w.dims) == 4}


def test_half_precision_keeps_places_in_float32(model):
    half = to_half(model)
    assert weight_types(half) == {"w0": "FLOAT16", "w1": "FLOAT"}
    assert half.graph.input[0].type.tensor_type.elem_type == half.graph.output[0].type.tensor_type.elem_type == 1
    np.testing.assert_allclose(run(half), run(model), rtol=5e-3, atol=5e-3)
    assert weight_types(model) == {"w0": "FLOAT", "w1": "FLOAT"}  # the model itself is left as it was


def test_eight_bits_keep_places_in_float32(model):
    quantised = to_int8(model, PIXELS, FLAVOURS["unit-rgb"])
    assert set(weight_types(quantised).values()) == {"INT8", "FLOAT"}
    found, expected = run(quantised), run(model)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert np.abs(found - expected).max() > 0  # the numbers are coarser indeed
    kernels = [w for w in quantised.graph.initializer if w.data_type == TensorProto.INT8 and len(w.dims) == 4]
    largest = max(np.abs(numpy_helper.to_array(kernel).astype(int)).max() for kernel in kernels)
    assert 32 < largest <= 64  # 7 of the bits, see to_int8


def test_a_folder_without_crops(tmp_path, write_image):
    write_image(tmp_path / "one.png")
    with pytest.raises(DataError, match="has 1 images: give a folder of some hundred crops"):
        read_calibration(str(tmp_path), RECORD)


def test_a_damaged_image_is_named(tmp_path, write_image):
    for i in range(3):
        write_image(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"--calibration: Image '.*1\.png' cannot be read"):
        read_calibration(str(tmp_path), RECORD)


def test_the_folder_is_picked_evenly(tmp_path, write_image, monkeypatch):
    monkeypatch.setattr("mgre.export.precision.MOST_IMAGES", 3)
    for i in range(5):
        write_image(tmp_path / f"{i}.png", (8, 4))
    found = read_calibration(str(tmp_path), RECORD)
    assert found.shape == (3, 3, 8, 4)
