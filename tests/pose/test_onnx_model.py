"""Pose models in ONNX files."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from mgre.errors import SetupError, WeightsError
from mgre.pose.base import POSE_MODELS, PoseModel
from mgre.pose.onnx_model import OnnxNetwork
from onnx import TensorProto, helper

SIZES = [(64, 48), (128, 64), (200, 71), (40, 90), (401, 150), (33, 12)]


def load(weights: str, device: str = "cpu") -> PoseModel:
    return POSE_MODELS.get("onnx")(weights=weights, device=device)


def save_model(path: Path, nodes: list, inputs: list, outputs: list, **options: bool) -> str:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, options.pop("initializer", None))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("some.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path, **options)
    return str(path)


def image(shape: tuple, name: str = "image", kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize("outputs", ["heatmaps", "simcc", "simcc_yx"])
@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_points_are_found_where_they_were_drawn(
    tmp_path: Path,
    write_pose_onnx: Callable[..., str],
    draw_dot: Callable[..., np.ndarray],
    joint_shifts: np.ndarray,
    outputs: str,
    batch: int | str,
):
    model = load(write_pose_onnx(tmp_path / "pose.onnx", outputs, batch=batch))
    dots = [(0.45 * width, 0.55 * height) for height, width in SIZES]
    points = model([draw_dot(size, dot) for size, dot in zip(SIZES, dots, strict=True)])
    assert points.shape == (len(SIZES), 17, 3)
    assert points.dtype == np.float32
    for found, dot, (height, width) in zip(points, dots, SIZES, strict=True):
        # The crop fills 1 / 1.25 of the input (64 high, 48 wide). A quarter of a heatmap's cell is one input pixel, and
        # the dot's reddest pixel may be a little beside its centre.
        scale = min(48 / width, 64 / height) / 1.25
        assert np.abs(found[:, :2] - (dot + joint_shifts / scale)).max() < 1.05 / scale


@pytest.mark.parametrize("outputs", ["heatmaps", "simcc"])
def test_the_score_is_the_output_for_the_normalised_rgb_crop(
    tmp_path: Path, write_pose_onnx: Callable[..., str], outputs: str
):
    crop = np.full((64, 48, 3), (204, 0, 255), dtype=np.uint8)
    points = load(write_pose_onnx(tmp_path / "pose.onnx", outputs))([crop])
    np.testing.assert_allclose(points[..., 2], (0.8 - 0.485) / 0.229, rtol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [("simcc", ("simcc_x", "simcc_y")), ("simcc_yx", ("simcc_y", "simcc_x")), ("simcc", ("621", "622"))],
)
def test_simcc_vectors_of_a_square_input_are_told_by_name_then_by_order(
    tmp_path: Path,
    write_pose_onnx: Callable[..., str],
    draw_dot: Callable[..., np.ndarray],
    joint_shifts: np.ndarray,
    outputs: str,
    names: tuple[str, str],
):
    model = load(write_pose_onnx(tmp_path / "pose.onnx", outputs, size=(64, 64), names=names))
    found = model([draw_dot((64, 64), (20, 40))])[0, :, :2]
    assert np.abs(found - ((20, 40) + 1.25 * joint_shifts)).max() < 1.25


def test_no_crops(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    assert load(write_pose_onnx(tmp_path / "pose.onnx"))([]).shape == (0, 17, 3)


def test_the_fingerprint_tells_files_apart(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    files = [("a", "simcc"), ("b", "simcc"), ("c", "heatmaps")]
    a, b, c = (load(write_pose_onnx(tmp_path / name, outputs)).fingerprint for name, outputs in files)
    assert a == b != c


def test_the_split_ratio_is_read_off_the_lengths(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    assert OnnxNetwork(write_pose_onnx(tmp_path / "a", "simcc"), device="cpu").split_ratio == 2
    assert OnnxNetwork(write_pose_onnx(tmp_path / "b", "heatmaps"), device="cpu").split_ratio is None


@pytest.mark.parametrize(
    ("shape", "kind", "found"),
    [
        (("N", 3, "height", "width"), TensorProto.FLOAT, r"\['N', 3, 'height', 'width'\] tensor\(float\)"),
        ((1, 64, 48, 3), TensorProto.FLOAT, r"\[1, 64, 48, 3\]"),
        ((1, 3, 64, 48), TensorProto.FLOAT16, r".*tensor\(float16\)"),
        ((1, 3), TensorProto.FLOAT, r"\[1, 3\]"),
    ],
)
def test_inputs_of_another_form_are_refused(tmp_path: Path, shape: tuple, kind: int, found: str):
    nodes = [helper.make_node("Identity", ["image"], ["output"])]
    path = save_model(tmp_path / "a.onnx", nodes, [image(shape, kind=kind)], [image(shape, "output", kind)])
    with pytest.raises(WeightsError, match=rf"a.onnx' is a model of input 'image' {found}.*of fixed H and W"):
        load(path)


def test_a_second_input_is_refused(tmp_path: Path):
    shape = (1, 3, 64, 48)
    nodes = [helper.make_node("Add", ["image", "mask"], ["output"])]
    path = save_model(tmp_path / "a.onnx", nodes, [image(shape), image(shape, "mask")], [image(shape, "output")])
    with pytest.raises(WeightsError, match=r"'image' .*, 'mask' .*expected is one image"):
        load(path)


@pytest.mark.parametrize("outputs", ["heatmaps", "simcc"])
def test_another_number_of_joints_is_refused(tmp_path: Path, write_pose_onnx: Callable[..., str], outputs: str):
    path = write_pose_onnx(tmp_path / "whole_body.onnx", outputs, num_joints=133)
    with pytest.raises(WeightsError, match=r"whole_body.onnx' is a model of output 'first' \(133, .*17 heatmaps"):
        load(path)


@pytest.mark.parametrize("lengths", [(96,), (96, 128, 20), (96, 100), (17, 17)])
def test_outputs_of_another_form_are_refused(tmp_path: Path, lengths: tuple[int, ...]):
    shapes = {f"shape{i}": np.array([-1, 17, length]) for i, length in enumerate(lengths)}
    crops = {f"end{i}": np.array([17 * length]) for i, length in enumerate(lengths)}
    nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
    for i in range(len(lengths)):
        nodes.append(helper.make_node("Slice", ["flat", "zero", f"end{i}", "one"], [f"part{i}"]))
        nodes.append(helper.make_node("Reshape", [f"part{i}", f"shape{i}"], [f"output{i}"]))
    constants = {"zero": np.array([0]), "one": np.array([1]), **shapes, **crops}
    path = save_model(
        tmp_path / "a.onnx",
        nodes,
        [image(("N", 3, 64, 48))],
        [image(None, f"output{i}") for i in range(len(lengths))],
        initializer=[onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    found = ", ".join(rf"'output{i}' \(17, {length}\)" for i, length in enumerate(lengths))
    with pytest.raises(WeightsError, match=rf"a model of output {found} for each image; expected"):
        load(path)


def test_a_batch_that_is_not_what_the_file_says_is_refused(tmp_path: Path):
    nodes = [helper.make_node("Reshape", ["image", "shape"], ["output"])]
    shape = onnx.numpy_helper.from_array(np.array([1, 3, 64, 48]), "shape")
    inputs, outputs = [image(("N", 3, 64, 48))], [image(None, "output")]
    path = save_model(tmp_path / "a.onnx", nodes, inputs, outputs, initializer=[shape])
    with pytest.raises(WeightsError, match=r"the model fails on 2 empty images.*Reshape"):
        load(path)


def test_files_that_are_not_a_whole_model_are_refused(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    whole = Path(write_pose_onnx(tmp_path / "whole.onnx")).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("not a model")
    shape = (1, 3, 64, 48)
    save_model(
        tmp_path / "custom.onnx",
        [helper.make_node("MyOp", ["image"], ["output"], domain="some.ops")],
        [image(shape)],
        [image(shape, "output")],
    )
    save_model(
        tmp_path / "external.onnx",
        [helper.make_node("Add", ["image", "other"], ["output"])],
        [image(shape)],
        [image(shape, "output")],
        initializer=[onnx.numpy_helper.from_array(np.ones(shape, dtype=np.float32), "other")],
        save_as_external_data=True,
        location="external.bin",
    )
    load_error = "is no ONNX model that can be run, or not all of it"
    with pytest.raises(WeightsError, match="is a model of output"):  # whole while the data is there
        load(str(tmp_path / "external.onnx"))
    (tmp_path / "external.bin").unlink()
    for name in ("cut", "text", "custom", "external"):
        with pytest.raises(WeightsError, match=rf"{name}.onnx' {load_error} \(.+\): copy") as caught:
            load(str(tmp_path / f"{name}.onnx"))
        assert "\n" not in str(caught.value)


def test_a_missing_file_and_no_file_are_told(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"none.onnx' does not exist"):
        load(str(tmp_path / "none.onnx"))
    with pytest.raises(WeightsError, match=r"'onnx' has no published weights.*--weights"):
        load("")


def test_a_missing_onnxruntime_names_its_install_command(
    tmp_path: Path, write_pose_onnx: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    path = write_pose_onnx(tmp_path / "pose.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SetupError, match=r"pip install onnxruntime$"):
        load(path)


def test_devices_that_onnxruntime_cannot_use(
    tmp_path: Path, write_pose_onnx: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    path = write_pose_onnx(tmp_path / "pose.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SetupError, match=r"cannot use device 'cuda:0'.*pip install onnxruntime-gpu"):
        load(path, device="cuda:0")
    with pytest.raises(SetupError, match="not 'mps'"):
        load(path, device="mps")


def test_warnings_of_onnxruntime_are_not_shown(
    tmp_path: Path, write_pose_onnx: Callable[..., str], capfd: pytest.CaptureFixture[str]
):
    path = write_pose_onnx(tmp_path / "pose.onnx", "heatmaps")  # with a constant that nothing uses
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert "not used by any node" in capfd.readouterr().err
    load(path)
    assert capfd.readouterr().err == ""
