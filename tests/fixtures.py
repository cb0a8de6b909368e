"""Fixtures for all tests: configs and tiny data sets, made on the fly."""

import gc
import importlib.util
import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import mgre  # noqa: F401  (before fastreid: it makes fastreid importable)
import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling import build_model
from fastreid.utils.logger import setup_logger
from mgre.config import add_mgre_config, load_config
from mgre.engine.training_record import make_record
from PIL import Image
from torch import nn

from tests import command_process, toy_backbone  # noqa: F401  (the latter registers itself)

WriteImage = Callable[..., Path]

# x and y of the 17 COCO key points of a person who stands and faces the camera, from 0 to 1: first the nose, then pairs
# of the person's left, at these x, and right, mirrored.
_NOSE = (0.5, 0.1)
_LEFT = ((0.56, 0.07), (0.62, 0.1), (0.75, 0.25), (0.85, 0.4), (0.85, 0.52), (0.65, 0.55), (0.65, 0.75), (0.65, 0.95))


@pytest.fixture(autouse=True)
def hide_gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tests marked ``gpu`` see CUDA devices. All others run on a machine with a GPU as they do without one."""
    if request.node.get_closest_marker("gpu") is not None:
        return
    # In this process, where CUDA may be in use already, and in those that the test starts.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of tools/ or benchmarks/ in a process that has the imports already: ``run_script(path, *words)``.

    It returns what ``subprocess.run`` of a new Python returns with ``capture_output`` and ``text``. The processes that
    the script starts with ``spawn`` are forked too. Where the start itself is tested, start a new Python.
    """

    def run(
        *words: str | Path,
        cwd: Path = Path(),
        env: Mapping[str, str] = os.environ,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            strings = [os.fspath(word) for word in words]
            return command_process.run_script(strings, Path(folder), cwd=cwd, env=env, timeout=timeout)

    return run


def standing_person(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(17, 3): the points of a standing person in a crop of ``size`` (H, W), each a little elsewhere, with score 1."""
    xy = np.array([_NOSE, *((x if left else 1 - x, y) for x, y in _LEFT for left in (True, False))])
    xy += rng.uniform(-0.02, 0.02, xy.shape)
    return np.column_stack([xy * size[::-1], np.ones(17)])


@pytest.fixture
def draw_standing() -> Callable[..., np.ndarray]:
    """:func:`standing_person`."""
    return standing_person


@pytest.fixture
def cfg() -> CfgNode:
    """The toolbox's defaults with MGRe's keys."""
    cfg = get_cfg()
    add_mgre_config(cfg)
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture
def write_image() -> WriteImage:
    """Write an image of random pixels, the same for the same file name."""

    def write(path: Path, size: tuple[int, int] = (32, 16), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(path.name.encode()))
        shape = size if mode == "L" else (*size, len(mode))
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None).save(path)
        return path

    return write


@pytest.fixture
def make_market_folder(write_image: WriteImage) -> Callable[..., Path]:
    """Make a folder in the Market-1501 layout: each identity once in each camera, the gallery once more."""

    def make(
        folder: Path,
        *,
        train_ids: Sequence[int] = (2, 7),
        test_ids: Sequence[int] = (1, 3),
        cameras: Sequence[int] = (1, 2),
        size: tuple[int, int] = (32, 16),
        suffix: str = ".jpg",
    ) -> Path:
        splits = {"bounding_box_train": (train_ids, 1), "query": (test_ids, 1), "bounding_box_test": (test_ids, 2)}
        for name, (identities, frame) in splits.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for identity in identities:
                for camera in cameras:
                    write_image(folder / name / f"{identity:04d}_c{camera}s1_{frame:06d}_00{suffix}", size)
        return folder

    return make


@pytest.fixture
def write_keypoints() -> Callable[..., Path]:
    """Write a COCO key point JSON from (17, 3) x, y, score by file name."""

    def write(path: Path, points: Mapping[str, np.ndarray], size: tuple[int, int] = (32, 16)) -> Path:
        images = [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(points)]
        annotations = [
            {"id": i, "image_id": i, "category_id": 1, "keypoints": np.asarray(value).ravel().tolist()}
            for i, value in enumerate(points.values())
        ]
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
        return path

    return write


@pytest.fixture(autouse=True)
def take_down_logs() -> Iterator[Callable[[], None]]:
    """Take down what a run's set-up of the logs leaves, so that each test's log goes to its own streams."""

    def take_down() -> None:
        setup_logger.cache_clear()
        for name in ("fastreid", "mgre"):
            logger = logging.getLogger(name)
            for handler in logger.handlers[:]:
                logger.removeHandler(handler)
            logger.propagate = True

    yield take_down
    take_down()


@pytest.fixture
def quick_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill large tensors with repeats of 4093 random numbers, where any weights will do: drawing all takes as long as
    the rest of a model's construction."""
    size = 4093  # a prime: with a power of two most rows of a layer would be equal, and so would its channels

    def repeating(name: str) -> Callable[..., torch.Tensor]:
        draw = getattr(torch.Tensor, name)

        def fill(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            if tensor.numel() <= size or not tensor.is_contiguous():
                return draw(tensor, *args, **kwargs)
            flat = tensor.view(-1)
            repeats, rest = divmod(len(flat), size)
            numbers = draw(flat.new_empty(size), *args, **kwargs)
            flat[: repeats * size].view(repeats, size).copy_(numbers)
            flat[repeats * size :].copy_(numbers[:rest])
            return tensor

        return fill

    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, repeating(name))


@pytest.fixture
def small_run(
    tmp_path: Path, make_market_folder: Callable[..., Path], write_keypoints: Callable[..., Path]
) -> Iterator[list[str]]:
    """Overrides for a run of two steps on a tiny data set of one's own with key points, written below ``tmp_path``."""
    folder = make_market_folder(tmp_path / "own", train_ids=range(1, 9), test_ids=(21, 22, 23))
    rng = np.random.default_rng(0)
    images = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
    points = {name: standing_person(rng, (32, 16)) for name in images}
    write_keypoints(folder / "keypoints.json", points)
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "INPUT.SIZE_TRAIN": "(64, 32)",
        "INPUT.SIZE_TEST": "(64, 32)",
        "DATASETS.NAMES": "('CustomReID',)",
        "DATASETS.TESTS": "('CustomReID',)",
        "DATASETS.CUSTOM.ROOT": str(folder),
        "DATASETS.KEYPOINTS": "keypoints.json",
        "DATALOADER.NUM_WORKERS": "0",
        "DATALOADER.NUM_INSTANCE": "2",
        "SOLVER.IMS_PER_BATCH": "8",
        "SOLVER.MAX_EPOCH": "1",
        "SOLVER.WARMUP_EPOCHS": "0",
        "SOLVER.WARMUP_ITERS": "0",
        "TEST.EVAL_PERIOD": "1",
        "TEST.IMS_PER_BATCH": "8",
        "SEED": "1",
        "OUTPUT_DIR": str(tmp_path / "out"),
    }
    yield [word for pair in options.items() for word in pair]
    gc.collect()  # a trainer and its hooks hold each other, and some 100 MB with them


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel, built from a copy, because a build leaves its folders beside setup.py."""
    repository = Path(__file__).parents[1]
    source = tmp_path_factory.mktemp("wheel") / "source"
    for name in ("projects", "configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(repository / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "..", "."]
    subprocess.run(command, cwd=source, check=True)
    return next(source.parent.glob("mgre-*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The command ``mgre`` as pip installs it from the wheel, in a folder of its own, and its PYTHONPATH.

    That path goes before the package which is tested elsewhere.
    """
    prefix = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed"]
    subprocess.run([*install, "--prefix", prefix, wheel], check=True)
    packages = sysconfig.get_path("purelib", "posix_prefix", {"base": str(prefix)})
    return prefix / "bin" / "mgre", packages


# Runs each command of a list in a child of its own, and prints its exit status.
_RUN_EACH = """
import json, os, runpy, sys
import mgre.engine.run
print(mgre.__file__)
for number, (script, *words) in enumerate(json.load(sys.stdin)):
    process = os.fork()
    if not process:
        console = os.open(f"{number}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(console, 1), os.dup2(console, 2)
        sys.argv = [script, *words]
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.fixture
def run_each() -> Callable[..., tuple[str, list[str]]]:
    """Run commands in a folder, one after the other, in children of a new Python that has the imports already:
    ``run_each(commands, folder, env)``. All have to succeed.

    It returns the file of the package that they have imported, and what each has printed.
    """

    def run(commands: Sequence[Sequence[str]], folder: Path, env: Mapping[str, str]) -> tuple[str, list[str]]:
        options = {"cwd": folder, "env": env, "input": json.dumps(commands), "stdout": subprocess.PIPE, "text": True}
        done = subprocess.run([sys.executable, "-c", _RUN_EACH], timeout=300, check=True, **options)
        package, *statuses = done.stdout.splitlines()
        consoles = [(folder / f"{number}.txt").read_text() for number in range(len(commands))]
        assert statuses == ["0"] * len(commands), consoles
        return package, consoles

    return run


@pytest.fixture
def load_tool() -> Callable[[str], ModuleType]:
    """The options of tools/<name>.py."""

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"mgre_cli.{'train' if name == 'train_net' else name}")

    return load


@pytest.fixture
def load_benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import benchmarks/<name>.py, which is no package, with the benchmarks that it imports in turn."""
    monkeypatch.syspath_prepend("benchmarks")

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", f"benchmarks/{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def tiny_run(small_run: list[str]) -> list[str]:
    """``small_run`` with a model of 0.2 M parameters, whose checkpoints are quickly written."""
    options = {
        "MODEL.MGRE.BACKBONE": "build_osnet_backbone",
        "MODEL.BACKBONE.DEPTH": "x0_25",
        "MODEL.HEADS.EMBEDDING_DIM": "16",
        "MODEL.MGRE.LOCATION.CONV_CHANNELS": "8",
        "MODEL.MGRE.LOCATION.HIDDEN_DIM": "16",
    }
    return [*small_run, *(word for pair in options.items() for word in pair)]


@pytest.fixture
def toy_run(tiny_run: list[str]) -> list[str]:
    """``tiny_run`` in half of its time, with a backbone of four convolutions.

    That backbone is registered in the tests' processes and in those of ``run_script``. A new Python cannot build it.
    """
    return [*tiny_run, "MODEL.MGRE.BACKBONE", "build_toy_backbone"]


@contextmanager
def logged_by(name: str, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What this logger logs, also where another test has set up loggers that do not propagate."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


@pytest.fixture
def data_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What mgre.data logs."""
    with logged_by("mgre.data", caplog):
        yield caplog


@pytest.fixture
def new_processes() -> Callable[[], set[BaseProcess]]:
    """The child processes that have been started since the test began, and live."""
    before = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - before


def load_small_config(config: str = "Base-MGRe", **overrides: str) -> CfgNode:
    """Load a shipped config at small size, with overrides ``**{"KEY": "VALUE"}``."""
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.BACKBONE.DEPTH": "18x",
        "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.HEADS.NUM_CLASSES": "3",
        "MODEL.HEADS.EMBEDDING_DIM": "8",
        "INPUT.SIZE_TRAIN": "(64, 32)",
        "INPUT.SIZE_TEST": "(64, 32)",
    }
    pairs = [word for pair in (options | overrides).items() for word in pair]
    return load_config(f"configs/MGRe/{config}.yml", pairs)


@pytest.fixture
def small_config() -> Callable[..., CfgNode]:
    """:func:`load_small_config`."""
    return load_small_config


@pytest.fixture
def build_small(small_config: Callable[..., CfgNode]) -> Callable[..., nn.Module]:
    """Build the model of ``small_config``."""

    def build(config: str = "Base-MGRe", **overrides: str) -> nn.Module:
        torch.manual_seed(0)
        return build_model(small_config(config, **overrides))

    return build


@pytest.fixture
def save_model(tmp_path: Path, small_config: Callable[..., CfgNode], build_small: Callable[..., nn.Module]) -> Callable:
    """Write a checkpoint with a record, of a small model that is not trained but whose statistics and boxes are no
    longer those of the start; the model itself and the path."""

    def save(config: str = "Base-MGRe", name: str = "model.pth", **overrides: str) -> tuple[nn.Module, Path]:
        model = build_small(config, **overrides)
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor += 0.02 * torch.randn_like(tensor)
        path = tmp_path / name
        record = make_record(small_config(config, **overrides), {"mAP": 12.5})
        torch.save({"model": model.state_dict(), "record": record.to_json()}, path)
        return model.eval(), path

    return save


@pytest.fixture
def write_crops(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., list[Path]]:
    """Write crops of several sizes."""

    def write(number: int = 5) -> list[Path]:
        return [write_image(tmp_path / "crops" / f"{i}.png", (40 + 9 * i, 20 + 5 * i)) for i in range(number)]

    return write
