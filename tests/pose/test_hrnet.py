import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mgre.data.keypoints import COCO_KEYPOINTS
from mgre.errors import SetupError, WeightsError
from mgre.pose import hrnet
from mgre.pose.base import POSE_MODELS
from mgre.pose.hrnet import HRNetPose, HRNetPoseModel, hrnet_state_dict, load_hrnet, load_strictly
from torch import nn
from torch.nn import functional as F

# HRNet Fig. 1 and Sec. 3, with the authors' w32_256x192 and w48_256x192 settings: after a stem and four bottleneck
# blocks at a quarter of the input's size, each stage is a number of modules of parallel branches, four basic blocks
# each; a branch has twice the channels and half the size of the one before. All maps of a module are fused into all,
# in the very last one into the first alone.
STAGES = {"stage2": {"modules": 1, "branches": 2}, "stage3": {"modules": 4, "branches": 3}}
STAGES["stage4"] = {"modules": 3, "branches": 4}
BLOCKS = 4

State = dict[str, torch.Tensor]


def _layers(width: int) -> Iterator[tuple[str, str, int, int, int]]:
    """Each convolution with its norm: their names, and the convolution's output and input channels and side."""
    yield "conv1", "bn1", 64, 3, 3
    yield "conv2", "bn2", 64, 64, 3
    for block in range(4):
        name = f"layer1.{block}"
        yield f"{name}.conv1", f"{name}.bn1", 64, 256 if block else 64, 1
        yield f"{name}.conv2", f"{name}.bn2", 64, 64, 3
        yield f"{name}.conv3", f"{name}.bn3", 256, 64, 1
    yield "layer1.0.downsample.0", "layer1.0.downsample.1", 256, 64, 1
    yield "transition1.0.0", "transition1.0.1", width, 256, 3
    yield "transition1.1.0.0", "transition1.1.0.1", 2 * width, 256, 3
    yield "transition2.2.0.0", "transition2.2.0.1", 4 * width, 2 * width, 3
    yield "transition3.3.0.0", "transition3.3.0.1", 8 * width, 4 * width, 3
    for stage, numbers in STAGES.items():
        channels = [width * 2**branch for branch in range(numbers["branches"])]
        for module in range(numbers["modules"]):
            for branch, num in enumerate(channels):
                for block in range(BLOCKS):
                    name = f"{stage}.{module}.branches.{branch}.{block}"
                    yield f"{name}.conv1", f"{name}.bn1", num, num, 3
                    yield f"{name}.conv2", f"{name}.bn2", num, num, 3
            last = stage == "stage4" and module == numbers["modules"] - 1
            for to in range(1 if last else len(channels)):
                for start in range(len(channels)):
                    name = f"{stage}.{module}.fuse_layers.{to}.{start}"
                    if start > to:
                        yield f"{name}.0", f"{name}.1", channels[to], channels[start], 1
                    for step in range(to - start):
                        num = channels[to] if step == to - start - 1 else channels[start]
                        yield f"{name}.{step}.0", f"{name}.{step}.1", num, channels[start], 3


def _expected_shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, norm, num_out, num_in, side in _layers(width):
        shapes[f"{conv}.weight"] = (num_out, num_in, side, side)
        shapes |= {f"{norm}.{name}": (num_out,) for name in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{norm}.num_batches_tracked"] = ()
    return shapes | {"final_layer.weight": (17, width, 1, 1), "final_layer.bias": (17,)}


def _make_state(width: int = 32) -> State:
    """Random weights by the authors' names; slices of a few numbers, so that files of them are small."""
    rng = torch.Generator().manual_seed(width)
    noise = torch.randn(1_400_000, generator=rng) * 0.04
    scale = 1 + 0.2 * torch.randn(2000, generator=rng).clamp(-2, 2)
    state = {}
    for number, (name, shape) in enumerate(_expected_shapes(width).items()):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        is_scale = len(shape) == 1 and name.endswith(("weight", "running_var"))
        count = int(np.prod(shape))
        start = 31 * number % 1000
        state[name] = (scale if is_scale else noise)[start : start + count].view(shape)
    return state


@pytest.fixture(scope="module")
def state() -> State:
    return _make_state()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    def save(content: object, name: str = "pose_hrnet_w32_256x192.pth") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture(scope="module")
def network(state: State) -> HRNetPose:
    network = HRNetPose(32).eval()
    network.load_state_dict(state)
    return network


def _run_by_name(state: State, images: torch.Tensor) -> torch.Tensor:
    """HRNet from its weights' names alone."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        statistics = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        mean, var, gain, bias = (value[:, None, None] for value in statistics)
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    def block(x: torch.Tensor, name: str, convs: int) -> torch.Tensor:
        y = x
        for i in range(1, convs + 1):
            y = layer(y, f"{name}.conv{i}", f"{name}.bn{i}")
            y = y.relu() if i < convs else y
        if f"{name}.downsample.0.weight" in state:
            x = layer(x, f"{name}.downsample.0", f"{name}.downsample.1")
        return (x + y).relu()

    def fuse(maps: list[torch.Tensor], name: str, to: int) -> torch.Tensor:
        total = maps[to]
        for start, x in enumerate(maps):
            if start > to:
                x = layer(x, f"{name}.{to}.{start}.0", f"{name}.{to}.{start}.1")
                total = total + x.repeat_interleave(2 ** (start - to), 2).repeat_interleave(2 ** (start - to), 3)
            elif start < to:
                for step in range(to - start):
                    x = layer(x, f"{name}.{to}.{start}.{step}.0", f"{name}.{to}.{start}.{step}.1", stride=2)
                    x = x.relu() if step < to - start - 1 else x
                total = total + x
        return total.relu()

    x = layer(images, "conv1", "bn1", stride=2).relu()
    x = layer(x, "conv2", "bn2", stride=2).relu()
    for i in range(4):
        x = block(x, f"layer1.{i}", convs=3)
    maps = [layer(x, "transition1.0.0", "transition1.0.1").relu()]
    new = layer(x, "transition1.1.0.0", "transition1.1.0.1", stride=2).relu()
    for stage, numbers in STAGES.items():
        if stage != "stage2":
            name = f"transition{int(stage[-1]) - 1}.{len(maps)}.0"
            new = layer(maps[-1], f"{name}.0", f"{name}.1", stride=2).relu()
        maps = [*maps, new]
        for module in range(numbers["modules"]):
            for branch in range(numbers["branches"]):
                for i in range(BLOCKS):
                    maps[branch] = block(maps[branch], f"{stage}.{module}.branches.{branch}.{i}", convs=2)
            last = stage == "stage4" and module == numbers["modules"] - 1
            maps = [fuse(maps, f"{stage}.{module}.fuse_layers", to) for to in range(1 if last else len(maps))]
    return F.conv2d(maps[0], state["final_layer.weight"], state["final_layer.bias"])


@pytest.mark.parametrize(("width", "millions"), [(32, 28.5), (48, 63.6)])  # HRNet Table 1
def test_names_and_shapes_are_the_originals(width: int, millions: float):
    with torch.device("meta"):
        network = HRNetPose(width)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == _expected_shapes(width)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@torch.inference_mode()
def test_the_forward_pass_is_the_originals(state: State, network: HRNetPose):
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    expected = _run_by_name(state, images)
    assert expected.shape == (2, 17, 16, 24) and expected.std(dim=(2, 3)).min() > 1e-3
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def _mmpose(state: State, head: str) -> State:
    return {(head if name.startswith("final_layer") else "backbone.") + name: value for name, value in state.items()}


def _parallel(state: State) -> State:
    return {f"module.{name}": value for name, value in state.items()}


def _old(state: State) -> State:
    """As torch 0.4.0 saved it."""
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


FORMS: dict[str, Callable[[State], object]] = {
    "authors": lambda state: state,
    "authors, parallel": lambda state: {"epoch": 210, "model": "pose_hrnet", "state_dict": _parallel(_old(state))},
    "mmpose 0.x": lambda state: {"meta": {"epoch": 210}, "state_dict": _mmpose(state, "keypoint_head.")},
    "mmpose 1.x, parallel": lambda state: {"meta": {}, "state_dict": _parallel(_mmpose(state, "head."))},
}


@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_each_form_of_the_weights_loads_into_the_same_function(
    form: str, state: State, network: HRNetPose, save: Callable[..., str]
):
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    loaded = load_hrnet(save(FORMS[form](state))).eval()
    expected = network(images)
    torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def _without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda s: _without(s, "stage3.2.fuse_layers.2.0.1.1.bias"),
            r"stage3\.2\.fuse_layers\.2\.0\.1\.1\.bias is mis",
        ),
        (lambda s: _without(s, "final_layer.weight"), "HRNet-W32: tensor final_layer.weight is missing"),
        (lambda s: s | {"bn2.weight": torch.ones(63)}, r"tensor bn2\.weight is \(63,\), not \(64,\)"),
        (
            lambda s: s | {"final_layer.weight": torch.ones(16, 32, 1, 1), "final_layer.bias": torch.ones(16)},
            r"tensor final_layer\.weight is \(16, 32, 1, 1\), not \(17, 32, 1, 1\)",
        ),
        (lambda s: s | {"bn1.num_batches_tracked": torch.ones(2)}, r"bn1\.num_batches_tracked is \(2,\), not \(\)"),
        (
            lambda s: s | {"stage4.2.fuse_layers.1.0.0.0.weight": torch.ones(2)},
            r"fuse_layers\.1\.0\.0\.0\.weight is not",
        ),
        (lambda s: s | {"head.deconv_layers.0.weight": torch.ones(2)}, r"head\.deconv_layers\.0\.weight is not part"),
        (lambda s: {"fc.weight": torch.ones(2)}, "tensor conv1.weight is missing"),
    ],
)
def test_the_first_tensor_that_differs_is_named(
    damage: Callable[[State], State], message: str, state: State, network: HRNetPose
):
    with pytest.raises(WeightsError, match=message) as caught:
        load_strictly(network, hrnet_state_dict(damage(state)), source="my.pth")
    assert "'my.pth'" in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(state: State, save: Callable[..., str]):
    backbone = {name: value for name, value in state.items() if not name.startswith("final_layer")}
    with pytest.raises(
        WeightsError, match=r"'.*pose_hrnet_w32_256x192\.pth' does not fit .* final_layer\.weight is mis"
    ):
        load_hrnet(save(backbone))


class _MakesFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_weight_file_is_not_run(tmp_path: Path, state: State, save: Callable[..., str]):
    path = save({"state_dict": state, "meta": _MakesFolder(tmp_path / "made")})
    with pytest.raises(WeightsError, match="could run code"):
        load_hrnet(path)
    assert not (tmp_path / "made").exists()


@torch.inference_mode()
def test_the_flip_test_is_as_done_by_hand(network: HRNetPose):
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    plain = network(images).numpy()
    of_mirrored = network(torch.from_numpy(images.numpy()[..., ::-1].copy())).numpy()
    expected = np.empty_like(plain)
    width = plain.shape[3]
    for joint, name in enumerate(COCO_KEYPOINTS):
        swap = {"left": "right", "right": "left"}
        side, _, part = name.partition("_")
        other = COCO_KEYPOINTS.index(f"{swap[side]}_{part}") if side in swap else joint
        for column in range(width):
            back = width - 1 - max(column - 1, 0)  # mirrored, after the move by one cell
            expected[:, joint, :, column] = (plain[:, joint, :, column] + of_mirrored[:, other, :, back]) / 2
    with_flip = HRNetPoseModel(network, input_size=(64, 32), flip_test=True)
    without = HRNetPoseModel(network, input_size=(64, 32), flip_test=False)
    tolerance = 1e-4 * np.abs(plain).max()
    np.testing.assert_allclose(with_flip.heatmaps(images).numpy(), expected, rtol=1e-3, atol=tolerance)
    np.testing.assert_allclose(without.heatmaps(images).numpy(), plain, rtol=1e-3, atol=tolerance)
    assert np.abs(expected - plain).max() > 100 * tolerance


class _BrightSpots(nn.Module):
    """Stands for a network: right key points are where the image is reddest, all others where it is greenest."""

    width = 32

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ramp = 8 - (torch.arange(15.0) - 7).abs()
        kernel = (ramp[:, None] * ramp)[None, None] / ramp.sum() ** 2
        black = images.amin(dim=(2, 3), keepdim=True)
        maps = [F.conv2d(x, kernel, stride=4, padding=7) for x in (images - black).split(1, dim=1)]
        return torch.cat([maps[0] if name.startswith("right") else maps[1] for name in COCO_KEYPOINTS], dim=1)


def test_spots_are_found_in_one_batch_of_crops_of_many_sizes():
    model = HRNetPoseModel(_BrightSpots(), flip_test=False)
    rng = np.random.default_rng(0)
    sizes = [(128, 64), (64, 64), (48, 160), (91, 37), (300, 150)]
    crops, points = [], []
    for height, width in sizes:
        crop = np.zeros((height, width, 3), dtype=np.uint8)
        red, green = spots = rng.integers(4, (width - 4, height - 4), (2, 2))
        for channel, (x, y) in enumerate(spots):
            crop[y - 1 : y + 2, x - 1 : x + 2, channel] = 255
        crops.append(crop)
        points.append([red if name.startswith("right") else green for name in COCO_KEYPOINTS])
    keypoints = model(crops)
    assert keypoints.shape == (5, 17, 3) and keypoints.dtype == np.float32
    assert (keypoints[..., 2] > 0).all()
    quarter_cells = [1.25 * max(height / 256, width / 192) for height, width in sizes]  # a pixel of the input
    error = np.abs(keypoints[..., :2] - points).max(axis=(1, 2)) / quarter_cells
    assert error.max() <= 1.05


def test_no_crops_give_no_points():
    assert HRNetPoseModel(_BrightSpots()).predict([]).shape == (0, 17, 3)


def test_the_registry_entry_reads_all_from_the_file(state: State, save: Callable[..., str]):
    build = POSE_MODELS.get("hrnet")
    path = save(state)
    w32 = build(weights=path, device="cpu")
    w48 = build(weights=save(_make_state(48), "pose_hrnet_w48_384x288.pth"), device="cpu")
    assert (w32.network.width, w48.network.width) == (32, 48)
    crop = np.zeros((20, 10, 3), np.uint8)
    assert w32.prepare(crop).image.shape == (3, 256, 192) and w48.prepare(crop).image.shape == (3, 384, 288)
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] in w32.fingerprint


def test_the_fingerprint_tells_settings_apart(network: HRNetPose):
    settings = [{}, {"flip_test": False}, {"input_size": (384, 288)}, {"weights_id": "abc"}]
    assert len({HRNetPoseModel(network, **setting).fingerprint for setting in settings}) == len(settings)


def test_without_weights_the_published_ones_are_downloaded(
    network: HRNetPose, save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    def download(url: str, *, sha256: str, size: int) -> str:
        assert url.startswith("https://") and f"256x192-{sha256}_" in url
        assert size == pytest.approx(4 * 28.5e6, rel=0.01)  # HRNet Table 1's parameters
        return save("published")

    monkeypatch.setattr(hrnet, "download", download)
    monkeypatch.setattr(hrnet, "load_hrnet", {save("published"): network}.__getitem__)
    assert POSE_MODELS.get("hrnet")(weights="", device="cpu").network is network


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str, network: HRNetPose):
    with pytest.raises(SetupError, match=f"device '{device}' cannot be used here") as caught:
        HRNetPoseModel(network, device=device)
    assert "\n" not in str(caught.value)
