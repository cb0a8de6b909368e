"""Pose models made on the fly."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from mgre.pose.hrnet import HRNetPose

# Where each of the 17 joints is found, in input pixels (x, y) from the reddest pixel: all different.
JOINT_SHIFTS = np.array([(4 * (k % 5 - 2), 4 * (k // 5 - 2)) for k in range(17)])


@pytest.fixture
def joint_shifts() -> np.ndarray:
    return JOINT_SHIFTS


@pytest.fixture
def write_pose_onnx() -> Callable[..., str]:
    """Write an ONNX model that finds joint k at the reddest pixel of its input plus ``JOINT_SHIFTS[k]``.

    Its scores are the input's value there. It gives heatmaps of a quarter of the input's height and half its width, or
    two SimCC vectors ("simcc": x before y, "simcc_yx": y before x) of two bins for each pixel.
    """

    def write(
        path: Path,
        outputs: str = "simcc",
        *,
        size: tuple[int, int] = (64, 48),
        batch: int | str = "N",
        names: Sequence[str] = ("first", "second"),
        num_joints: int = 17,
    ) -> str:
        from onnx import TensorProto, helper, numpy_helper, save

        kernel = np.zeros((num_joints, 3, 17, 17), dtype=np.float32)
        for joint in range(num_joints):
            x, y = JOINT_SHIFTS[joint % 17]
            kernel[joint, 0, 8 - y, 8 - x] = 1
        constants = {"kernel": kernel, "scales": np.array([1, 1, 2], dtype=np.float32)}
        strides = [4, 2] if outputs == "heatmaps" else [1, 1]
        maps = names[0] if outputs == "heatmaps" else "maps"
        nodes = [helper.make_node("Conv", ["image", "kernel"], [maps], pads=[8] * 4, strides=strides)]
        if outputs != "heatmaps":
            for name, axis in zip(names, (2, 3) if outputs == "simcc" else (3, 2), strict=True):
                nodes += [
                    helper.make_node("ReduceMax", [maps], [f"{name}_bins"], axes=[axis], keepdims=0),
                    helper.make_node(
                        "Resize",
                        [f"{name}_bins", "", "scales"],
                        [name],
                        mode="nearest",
                        nearest_mode="floor",
                        coordinate_transformation_mode="asymmetric",
                    ),
                ]
        graph = helper.make_graph(
            nodes,
            "pose",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *size])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                for name in (names[:1] if outputs == "heatmaps" else names)
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return str(path)

    return write


@pytest.fixture
def draw_dot() -> Callable[..., np.ndarray]:
    """Draw a red dot that fades around the point (x, y) on a crop (H, W, 3) of blue and green noise."""

    def draw(size: tuple[int, int], point: tuple[float, float]) -> np.ndarray:
        crop = np.random.default_rng(0).integers(0, 256, (*size, 3))
        rows, columns = np.mgrid[: size[0], : size[1]]
        distance = np.hypot(columns - point[0], rows - point[1]) / max(size)
        crop[..., 0] = 255 * np.exp(-((distance / 0.1) ** 2))
        return crop.astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def hrnet_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weight file of HRNet-W32 with random numbers, in its authors' form; all tensors are parts of a few, so that the
    file is small. Its scores are so large that rounding to three decimals hides none of their digits."""
    rng = torch.Generator().manual_seed(0)
    noise = 0.05 * torch.randn(600_000, generator=rng)
    positive = 1 + 0.1 * torch.randn(600, generator=rng)
    state = {}
    for name, tensor in HRNetPose(32).state_dict().items():
        if tensor.ndim:
            source = noise if tensor.ndim > 1 or name.endswith(("bias", "mean")) else positive
            state[name] = source[: tensor.numel()].view(tensor.shape)
        else:
            state[name] = tensor
    path = tmp_path_factory.mktemp("weights") / "pose_hrnet_w32_256x192.pth"
    torch.save(state, path)
    return str(path)
