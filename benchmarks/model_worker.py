#!/usr/bin/env python
"""What benchmarks/model.py starts, one process for each checkout: it builds models and times them, one call at a time.

It reads a JSON object from each line of its input, and answers with one:

    {"build": {"model": ..., "task": ..., "batch": ..., "precision": ..., "mode": ...}}    a cell of the table
    {"time": {"model": ..., "calls": ...}}                                                of a cell that was built
    {"drop": {}}                                                                          all cells

``mgre`` is that of the checkout on PYTHONPATH, which may be older than this file.
"""

import ctypes
import gc
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import mgre
import torch
from fastreid.config import CfgNode
from fastreid.engine import train_loop
from fastreid.utils.events import EventStorage
from mgre.config import load_config
from mgre.reproduction.cost import TABLE8
from torch import nn

CONFIG = Path(mgre.__file__).parents[3] / "configs/MGRe/market.yml"
NUM_IDENTITIES = 751  # Market-1501's training set
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# MODEL.CHANNELS_LAST and MODEL.COMPILE of each mode.
MODES = {
    "eager": (False, "off"),
    "channels-last": (True, "off"),
    "compiled": (False, "default"),
    "channels-last compiled": (True, "default"),
    "reduce-overhead": (False, "reduce-overhead"),
    "channels-last reduce-overhead": (True, "reduce-overhead"),
    "deterministic": (True, "off"),
}
# What a checkout without the key does.
WITHOUT_KEY = {"MODEL.CHANNELS_LAST": "False", "MODEL.COMPILE": "off"}
# A compiled model and cuDNN's search need some calls until they are as fast as they get.
WARM_UP = 3
# CU_CTX_SCHED_MASK and CU_CTX_SCHED_BLOCKING_SYNC of CUDA's driver.
HOW_TO_WAIT, SLEEP = 7, 4


class NotInThisCheckoutError(Exception):
    """The checkout has no such mode or precision."""


class Cell:
    """A model that is ready to be timed.

    Attributes:
        call: an inference or a training step.
        seconds_to_warm_up: of its first calls, which compile and search.
    """

    def __init__(
        self, *, model: str, task: str, batch: int, precision: str, mode: str, device: str, opts: list[str]
    ) -> None:
        """
        Args:
            model: a name in Table 8.
            task: "inference" or "training".
            batch: images of a batch or step.
            precision: "float32", "tf32", "float16" or "bfloat16".
            mode: one of :data:`MODES`.
            device: of the model.
            opts: overrides for all models.
        """
        self.device = torch.device(device)
        self.training = task == "training"
        self.precision, self.mode = precision, mode
        cfg = build_config(model, mode, precision, device, opts)
        torch.manual_seed(0)
        before = self._allocated()
        with self.settings():
            make = self._make_step if self.training else self._make_inference
            self.call = make(cfg, make_batch(cfg, batch, self.device, training=self.training))
            start = time.perf_counter()
            for _ in range(WARM_UP):
                self.call()
            self.synchronize()
        self.seconds_to_warm_up = time.perf_counter() - start
        self._kept = self._allocated() - before

    def settings(self) -> AbstractContextManager:
        """The switches of this cell, which belong to the process."""
        tf32 = self.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        if self.mode != "deterministic":
            return nullcontext()
        try:
            from mgre.system.randomness import deterministic
        except ImportError:
            raise NotInThisCheckoutError("DETERMINISTIC") from None
        return deterministic(True)

    def _make_inference(self, cfg: CfgNode, batch: dict[str, torch.Tensor]) -> Callable[[], Any]:
        model = trainer_class().build_model(cfg).eval()
        dtype = DTYPES.get(self.precision)

        def infer() -> torch.Tensor:
            with torch.no_grad(), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                return model(batch)

        return infer

    def _make_step(self, cfg: CfgNode, batch: dict[str, torch.Tensor]) -> Callable[[], Any]:
        trainer = trainer_class()
        model = trainer.build_model(cfg)
        step = make_step(model, Endless(batch), *trainer.build_optimizer(cfg, model), DTYPES.get(self.precision))
        step.iter = 0
        storage = EventStorage(0)

        def train() -> None:
            with storage:
                step.run_step()

        return train

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _allocated(self) -> float:
        """MiB on the GPU, those of other cells too."""
        return torch.cuda.memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0

    def time(self, calls: int) -> dict[str, Any]:
        """Milliseconds of each call, and what the cell held on the GPU at most meanwhile, in MiB.

        On CUDA a call that is not counted goes before them. ``host_ms`` is the CPU time of a training step, in which
        the host sleeps while it waits for the GPU; None where that is not known.
        """
        on_gpu = self.device.type == "cuda"
        times = []
        others = self._allocated() - self._kept
        with self.settings():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
                self.call()
            for _ in range(calls):
                self.synchronize()
                start = time.perf_counter()
                self.call()
                self.synchronize()
                times.append(1000 * (time.perf_counter() - start))
            host = self._host_time() if on_gpu and self.training else None
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 - others if on_gpu else None
        return {"ms": times, "host_ms": host, "peak_mib": peak}

    def _host_time(self) -> float | None:
        with sleep_while_waiting() as sleeps:
            if not sleeps:
                return None
            self.synchronize()
            start = time.process_time()
            self.call()
            return 1000 * (time.process_time() - start)


@contextmanager
def sleep_while_waiting() -> Iterator[bool]:
    """Within the block the host sleeps while it waits for the GPU, instead of asking it over and over.

    Gives False where CUDA's driver cannot be told.
    """
    flags = ctypes.c_uint()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        told = driver.cuCtxGetFlags(ctypes.byref(flags)) == 0
        told = told and driver.cuCtxSetFlags(flags.value & ~HOW_TO_WAIT | SLEEP) == 0
    except (OSError, AttributeError):
        told = False
    try:
        yield told
    finally:
        if told:
            driver.cuCtxSetFlags(flags)


class Endless:
    """A loader whose batches are one and the same, ready on the device."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield self.batch


def build_config(model: str, mode: str, precision: str, device: str, opts: list[str]) -> CfgNode:
    overrides = next(contender.overrides for contender in TABLE8 if contender.name == model)
    half = precision if precision in DTYPES else None
    channels_last, compiled = MODES[mode]
    wanted = {
        "MODEL.DEVICE": device,
        "MODEL.BACKBONE.PRETRAIN": "False",
        "MODEL.HEADS.NUM_CLASSES": str(NUM_IDENTITIES),
        "MODEL.CHANNELS_LAST": str(channels_last),
        "MODEL.COMPILE": compiled,
        "SOLVER.AMP.ENABLED": str(half is not None),
        "SOLVER.AMP.DTYPE": half or "auto",
        "TEST.AMP.ENABLED": str(half is not None),
        "TEST.AMP.DTYPE": half or "auto",
    }
    known = load_config(str(CONFIG), ["MODEL.DEVICE", "cpu"])
    for name, value in list(wanted.items()):
        if not has_key(known, name):
            if WITHOUT_KEY.get(name, value) != value:
                raise NotInThisCheckoutError(name)
            del wanted[name]
    return load_config(str(CONFIG), [*overrides, *(word for pair in wanted.items() for word in pair), *opts])


def has_key(cfg: CfgNode, name: str) -> bool:
    node: Any = cfg
    for part in name.split("."):
        if part not in node:
            return False
        node = node[part]
    return True


def trainer_class() -> Any:
    try:
        from mgre.engine.trainer import Trainer
    except ImportError:  # an older checkout
        from mgre.engine import Trainer
    return Trainer


def make_step(
    model: nn.Module, loader: Endless, optimizer: Any, params: Any, dtype: torch.dtype | None
) -> train_loop.SimpleTrainer:
    try:
        from mgre.engine.step import TrainingStep
    except ImportError:  # an older checkout, whose step is the toolbox's as mgre.compat has changed it
        if dtype is None:
            return train_loop.SimpleTrainer(model, loader, optimizer, params)
        if dtype != (torch.float16 if next(model.parameters()).is_cuda else torch.bfloat16):
            raise NotInThisCheckoutError(str(dtype)) from None
        return train_loop.AMPTrainer(model, loader, optimizer, params)
    return TrainingStep(model, loader, optimizer, params, amp_dtype=dtype)


def make_batch(cfg: CfgNode, size: int, device: torch.device, *, training: bool) -> dict[str, torch.Tensor]:
    """Random images, and in training identities with four images each, and key points, all of them trusted."""
    draw = torch.Generator().manual_seed(0)
    height, width = cfg.INPUT.SIZE_TRAIN if training else cfg.INPUT.SIZE_TEST
    batch = {"images": torch.randint(256, (size, 3, height, width), generator=draw).float()}
    if training:
        batch["targets"] = torch.arange(size) // cfg.DATALOADER.NUM_INSTANCE % NUM_IDENTITIES
        batch["camids"] = torch.zeros(size, dtype=torch.int64)
        places = 0.1 + 0.8 * torch.rand(size, 17, 2, generator=draw)
        batch["keypoints"] = torch.cat((places, torch.ones(size, 17, 1)), dim=2)
    return {name: value.to(device) for name, value in batch.items()}


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What the package warns of within the block."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("mgre")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def count_graphs() -> int:
    """How many graphs torch.compile has compiled since the last ``torch._dynamo.reset()``."""
    if "torch._dynamo" not in sys.modules:
        return 0
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def answer(request: dict[str, Any], cells: dict[str, Cell], device: str, opts: list[str]) -> dict[str, Any]:
    (verb, arguments), *_ = request.items()
    if verb == "build":
        before = count_graphs()
        with collected_warnings() as warnings:
            cell = cells[arguments["model"]] = Cell(**arguments, device=device, opts=opts)
        built = {"warm_up_s": cell.seconds_to_warm_up, "graphs": count_graphs() - before}
        return built | ({"warned": "; ".join(warnings)} if warnings else {})
    if verb == "time":
        return cells[arguments["model"]].time(arguments["calls"])
    cells.clear()
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {}


def serve(device: str, threads: int, opts: list[str]) -> None:
    # Libraries print to the standard output. The answers go to a copy of it, and the rest to the standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if threads:
        torch.set_num_threads(threads)
    cells: dict[str, Cell] = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), cells, device, opts)
        except NotInThisCheckoutError as missing:
            reply = {"skipped": f"no {missing} in this checkout"}
        except Exception as error:  # of any kind: the other cells are measured all the same
            reply = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
