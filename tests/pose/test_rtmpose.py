"""RTMPose, of which a tiny network made here takes the place."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mgre.errors import SetupError, WeightsError
from mgre.pose import rtmpose
from mgre.pose.base import POSE_MODELS, PoseModel

SIZES = [(128, 64), (64, 48), (201, 71), (40, 90), (1, 1)]


@pytest.fixture
def crops(draw_dot: Callable[..., np.ndarray]) -> list[np.ndarray]:
    return [draw_dot(size, (0.45 * size[1], 0.55 * size[0])) for size in SIZES]


def load(weights: str = "") -> PoseModel:
    return POSE_MODELS.get("rtmpose")(weights=weights, device="cpu")


@pytest.mark.parametrize("batch", ["N", 1])
def test_points_and_scores_are_those_of_rtmlib(
    tmp_path: Path, write_pose_onnx: Callable[..., str], crops: list[np.ndarray], batch: int | str
):
    rtmlib = pytest.importorskip("rtmlib")
    path = write_pose_onnx(tmp_path / "pose.onnx", batch=batch)
    original = rtmlib.RTMPose(path, model_input_size=(48, 64))
    found = load(path)(crops)
    assert found.dtype == np.float32
    for crop, result in zip(crops, found, strict=True):
        points, scores = original(crop)
        np.testing.assert_allclose(result[:, :2], points[0], rtol=1e-6)
        np.testing.assert_allclose(result[:, 2], scores[0].clip(min=0), rtol=1e-6)


def test_points_are_found_where_they_were_drawn(
    tmp_path: Path, write_pose_onnx: Callable[..., str], crops: list[np.ndarray], joint_shifts: np.ndarray
):
    pytest.importorskip("rtmlib")
    found = load(write_pose_onnx(tmp_path / "pose.onnx"))(crops[:-1])
    for points, (height, width) in zip(found, SIZES[:-1], strict=True):
        scale = min(48 / width, 64 / height) / 1.25  # input pixels for each of the crop
        expected = np.array([0.45 * width, 0.55 * height]) + joint_shifts / scale
        assert np.abs(points[:, :2] - expected).max() < 1.05 / scale  # one input pixel


def test_scores_are_never_negative(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    pytest.importorskip("rtmlib")
    found = load(write_pose_onnx(tmp_path / "pose.onnx"))([np.zeros((64, 400, 3), dtype=np.uint8)])
    assert (found[..., 2] == 0).all()


def test_no_crops(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    pytest.importorskip("rtmlib")
    assert load(write_pose_onnx(tmp_path / "pose.onnx"))([]).shape == (0, 17, 3)


def test_a_model_of_heatmaps_is_refused(tmp_path: Path, write_pose_onnx: Callable[..., str]):
    pytest.importorskip("rtmlib")
    with pytest.raises(WeightsError, match=r"pose.onnx' gives heatmaps.*choose the pose model 'onnx'"):
        load(write_pose_onnx(tmp_path / "pose.onnx", "heatmaps"))


def test_without_weights_the_published_ones_are_taken(
    tmp_path: Path, write_pose_onnx: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("rtmlib")
    path = write_pose_onnx(tmp_path / "pose.onnx")
    asked = []
    monkeypatch.setattr(rtmpose, "download", lambda url, **options: asked.append((url, options)) or path)
    fingerprint = load().fingerprint
    [(url, options)] = asked
    assert url.endswith("/rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip")
    assert options["member"] == "end2end.onnx"
    assert fingerprint.startswith(f"rtmpose {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]} rtmlib ")


@pytest.mark.parametrize("missing", ["rtmlib", "onnxruntime"])
def test_a_missing_package_names_its_install_command(
    tmp_path: Path, write_pose_onnx: Callable[..., str], monkeypatch: pytest.MonkeyPatch, missing: str
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SetupError, match=r"pip install onnxruntime( && pip install --no-deps rtmlib|$)"):
        load(write_pose_onnx(tmp_path / "pose.onnx"))


def test_nothing_is_printed(
    tmp_path: Path, write_pose_onnx: Callable[..., str], crops: list[np.ndarray], capfd: pytest.CaptureFixture[str]
):
    pytest.importorskip("rtmlib")
    load(write_pose_onnx(tmp_path / "pose.onnx"))(crops)
    assert capfd.readouterr() == ("", "")
