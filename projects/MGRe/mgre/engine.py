"""The toolbox's trainer with MGRe's data and region figures, and the run behind tools/train_net.py."""

import argparse
import copy
import importlib.metadata
import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastreid
import torch
import torch.distributed as dist
from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer, default_argument_parser, default_setup
from fastreid.engine.hooks import PeriodicCheckpointer, PeriodicWriter
from fastreid.engine.train_loop import HookBase
from fastreid.modeling.heads.embedding_head import EmbeddingHead
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer
from fastreid.utils.env import seed_all_rng
from fastreid.utils.logger import setup_logger
from torch import nn
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm import tqdm

from mgre import distributed
from mgre.checkpointing import FINAL, CheckpointHook, StopOnSignal, TrainingCheckpointer
from mgre.config import load_config
from mgre.data import KeypointDataset, build_test_loader, build_train_loader, list_images
from mgre.data.checks import check_headers
from mgre.data.dataset import ImageError, dead_workers_named
from mgre.data.sampling import epoch_sampler
from mgre.errors import (
    ConfigError,
    DataError,
    LossError,
    MGReError,
    SetupError,
    TrainingError,
    WeightsError,
    printable,
)
from mgre.evaluation.regions import evaluate_regions, has_regions
from mgre.files import written_in_one_step
from mgre.randomness import random_states

__all__ = [
    "InferenceCheckpointer",
    "ProgressBar",
    "Trainer",
    "default_argument_parser",
    "launch",
    "load_model",
    "main",
    "run",
    "scale_warmup",
    "setup",
]

logger = logging.getLogger(__name__)

# What the console shows of the log. The toolbox's logger itself and that of its trainer's defaults are not among it:
# they dump the environment, the config and the model. The log file keeps everything.
SHOWN = (
    "fastreid.data",
    "fastreid.engine.hooks",
    "fastreid.engine.train_loop",
    "fastreid.evaluation",
    "fastreid.utils.checkpoint",
    "fastreid.utils.events",
    "mgre",
)
# The metrics of a training that is done, and of --eval-only, in OUTPUT_DIR.
RESULTS_FILE, EVALUATION_FILE = "results.json", "evaluation.json"
# Of the progress in the log, where there is no terminal for a bar.
SECONDS_BETWEEN_LINES = 60.0


class ProgressBar(HookBase):
    """A bar over all training steps, with loss, rate and time left; where the output is no terminal, lines in the log.

    The first line comes after the first step, however long an epoch is.
    """

    def before_train(self) -> None:
        trainer = self.trainer
        logger.info(
            "Training: %d steps (%d epochs of %d), %d images a step, on %s",
            trainer.max_iter - trainer.start_iter,
            trainer.max_epoch - trainer.start_epoch,
            trainer.iters_per_epoch,
            trainer.cfg.SOLVER.IMS_PER_BATCH,
            trainer.cfg.MODEL.DEVICE,
        )
        self._start = time.monotonic()
        self._next_line = self._start
        self._bar = tqdm(total=trainer.max_iter, initial=trainer.start_iter, unit="step", desc="training", disable=None)

    def after_step(self) -> None:
        loss, _ = self.trainer.storage.latest()["total_loss"]
        self._bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now >= self._next_line:
            self._next_line = now + SECONDS_BETWEEN_LINES
            done = self.trainer.iter + 1
            pace = (now - self._start) / (done - self.trainer.start_iter)
            left = tqdm.format_interval(pace * (self.trainer.max_iter - done))
            logger.info("Step %d of %d: loss %.2f, %.2g s a step, about %s left", done, self.trainer.max_iter, loss,
                        pace, left)  # fmt: skip

    def after_train(self) -> None:
        self._bar.close()


def scale_warmup(cfg: CfgNode, iters_per_epoch: int) -> CfgNode:
    """The config with the SOLVER.WARMUP_ITERS of its WARMUP_EPOCHS, where those are set.

    Raises:
        ConfigError: no epoch is left after the warm-up.
    """
    cfg = cfg.clone()
    cfg.defrost()
    solver = cfg.SOLVER
    if solver.WARMUP_EPOCHS > 0:
        solver.WARMUP_ITERS = int(solver.WARMUP_EPOCHS * iters_per_epoch)
    cfg.freeze()
    most = (solver.MAX_EPOCH - 1) * iters_per_epoch
    if iters_per_epoch and most < solver.WARMUP_ITERS:
        raise ConfigError(
            f"SOLVER.WARMUP_ITERS is {solver.WARMUP_ITERS}; allowed: at most {most}, all but one of "
            f"SOLVER.MAX_EPOCH {solver.MAX_EPOCH} epochs of {iters_per_epoch} steps; or use SOLVER.WARMUP_EPOCHS"
        )
    return cfg


class ReportUnreadable(HookBase):
    """Says after each epoch how many unreadable images training has skipped."""

    num_reported = 0

    def after_epoch(self) -> None:
        dataset = self.trainer.data_loader.dataset
        if not getattr(dataset, "skip_unreadable", False):  # a loader of others
            return
        paths = sorted({path for part in comm.all_gather(dataset.unreadable_paths()) for path in part})
        if len(paths) > self.num_reported:
            self.num_reported = len(paths)
            logger.warning(
                "%d of %d training images could not be read so far; others of the same identity took their place: %s",
                len(paths),
                len(dataset),
                ", ".join(map(printable, paths)),
            )


class Trainer(DefaultTrainer):
    """The toolbox's trainer; data sets, images and key points come through :mod:`mgre.data`.

    Attributes:
        first_iter: the first step to train, counted from 0; above 0 after a resume.
    """

    first_iter = 0

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self.cfg = scale_warmup(self.cfg, self.iters_per_epoch)
        self.warmup_iters = self.cfg.SOLVER.WARMUP_ITERS
        # "stop" is before a training; the evaluations within it go on.
        self.cfg.defrost()
        self.cfg.DATASETS.UNREADABLE_IMAGES = "skip"
        self.cfg.freeze()

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> dict:
        return super().build_lr_scheduler(scale_warmup(cfg, iters_per_epoch), optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> torch.utils.data.DataLoader:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> tuple[torch.utils.data.DataLoader, int]:
        return build_test_loader(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase]:
        self.checkpointer = TrainingCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            save_to_disk=comm.is_main_process(),
            num_kept=self.cfg.SOLVER.CHECKPOINTS_KEPT,
            **self._stateful_parts(),
        )
        self._checkpoints = checkpoints = CheckpointHook(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        hooks = [hook for hook in super().build_hooks() if not isinstance(hook, PeriodicCheckpointer)]
        # Before the writers, as in the toolbox, and after the evaluation, whose figure decides on the best.
        hooks.insert(next((i for i, h in enumerate(hooks) if isinstance(h, PeriodicWriter)), len(hooks)), checkpoints)
        hooks += [ReportUnreadable(), StopOnSignal(checkpoints)]
        return [ProgressBar(), *hooks] if comm.is_main_process() else hooks

    def _stateful_parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, **self.scheduler}
        if self.grad_scaler is not None and self.grad_scaler.is_enabled():
            parts["grad_scaler"] = self.grad_scaler
        return parts

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        try:
            return super().build_model(cfg)
        except KeyError as error:
            if error.args == (cfg.MODEL.BACKBONE.DEPTH,):  # the toolbox's backbones look their depth up in a dict
                raise ConfigError(
                    f"MODEL.BACKBONE.DEPTH is '{cfg.MODEL.BACKBONE.DEPTH}', which the backbone does not have; ResNets "
                    "have 18x, 34x, 50x and 101x, and MODEL.MGRE.BACKBONE build_timm_backbone has others"
                ) from error
            raise

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict:
        """The toolbox's evaluation; for MGRe also ``IoU/<region>`` on the test images that have key points.

        The IoU is among the results of its data set, as the toolbox's metrics are, and on all processes.
        """
        # Each process has batch norm statistics of its own; the first one's are those that are saved.
        if comm.get_world_size() > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        with dead_workers_named():
            return cls._evaluate(cfg, model)

    @classmethod
    def _evaluate(cls, cfg: CfgNode, model: nn.Module) -> dict:
        results = super().test(cfg, model)
        if cfg.TEST.RERANK.ENABLED:
            rerank = cfg.TEST.RERANK
            logger.info("These figures are re-ranked: K1 %d, K2 %d, LAMBDA %g", rerank.K1, rerank.K2, rerank.LAMBDA)
        if not (cfg.TEST.REGION_IOU.ENABLED and has_regions(model)):
            return results
        for name in cfg.DATASETS.TESTS:
            loader, _ = cls.build_test_loader(cfg, name)
            if not isinstance(loader.dataset, KeypointDataset):
                continue
            overlaps = evaluate_regions(model, loader)
            of_name = results if len(cfg.DATASETS.TESTS) == 1 else results[name]
            if comm.is_main_process():
                logger.info("Regions on %s: %s", name, ", ".join(f"{key} {iou:.2f}" for key, iou in overlaps.items()))
            of_name.update(overlaps)
        return results

    def resume_or_load(self, resume: bool = True) -> None:
        schedules = {name: copy.deepcopy(schedule.state_dict()) for name, schedule in self.scheduler.items()}
        if not resume and self.checkpointer.has_checkpoint():
            logger.warning(
                "OUTPUT_DIR '%s' has checkpoints of an earlier training, which this one will replace: to go on with it "
                "instead, stop now and add --resume; to keep it, choose another OUTPUT_DIR",
                self.cfg.OUTPUT_DIR,
            )
        super().resume_or_load(resume=resume)
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                if any(v.dim() and v.shape != parameter.shape for v in state.values() if isinstance(v, torch.Tensor)):
                    raise WeightsError(
                        f"the last checkpoint in OUTPUT_DIR '{self.cfg.OUTPUT_DIR}' is of another model or data set: "
                        "resume with the config it was trained with, or choose another OUTPUT_DIR"
                    )

        if self.checkpointer.resumed is not None:
            self._go_to(self.checkpointer.resumed)
            self._fit_warmup(self.checkpointer.resumed, schedules)

    def _go_to(self, progress: dict[str, Any]) -> None:
        """Let the training go on with the step at which ``progress`` was saved."""
        self.first_iter = self.start_epoch * self.iters_per_epoch
        if progress.get("iters_per_epoch") == self.iters_per_epoch:
            self.first_iter = progress["iteration"]
        elif "iters_per_epoch" in progress:
            logger.warning(
                "The checkpoint is of epochs of %d steps, this training's have %d: it goes on at the start of an epoch",
                progress["iters_per_epoch"],
                self.iters_per_epoch,
            )
        sampler = epoch_sampler(self.data_loader)
        if sampler is None:
            logger.warning("The training loader is not one of mgre.data: the training goes on, but with other batches")
        else:
            sampler.seed = progress.get("sampler_seed", sampler.seed)
            sampler.go_to(self.first_iter)
        logger.info(
            "Resuming from '%s': %d of %d steps are done (%d of %d epochs)",
            self.checkpointer.resumed_from,
            self.first_iter,
            self.max_iter,
            self.start_epoch,
            self.max_epoch,
        )

    def _fit_warmup(self, progress: dict[str, Any], schedules: dict[str, dict]) -> None:
        """Let a warm-up that had another length, or steps of another one, go on as the config says.

        Args:
            schedules: their states before the checkpoint's were loaded.
        """
        warmup = self.scheduler.get("warmup_sched")
        same_steps = progress.get("iters_per_epoch", self.iters_per_epoch) == self.iters_per_epoch
        if warmup is None or (same_steps and warmup.warmup_iters == self.warmup_iters):
            return
        if warmup.last_epoch >= warmup.warmup_iters:
            self.warmup_iters = min(self.warmup_iters, self.first_iter)  # it is over, and stays so
            return
        for name, state in schedules.items():
            self.scheduler[name].load_state_dict(state)
        # It counts steps, whatever the name says.
        warmup.last_epoch = min(self.first_iter, self.warmup_iters)
        for group, rate in zip(self.optimizer.param_groups, warmup.get_lr(), strict=True):
            group["lr"] = rate
        logger.warning("The warm-up goes on: %d of %d steps are done", warmup.last_epoch, self.warmup_iters)

    # The toolbox trains whole epochs: the steps of the first one that are done already are passed over.

    def before_train(self) -> None:
        self.start_iter = max(self.start_iter, self.first_iter)
        super().before_train()

    def before_step(self) -> None:
        if self.iter >= self.first_iter:
            super().before_step()
        else:
            self.storage.iter = self.iter

    def run_step(self) -> None:
        if self.iter < self.first_iter:
            return
        buffers = list(self.model.buffers())
        before = [buffer.clone() for buffer in buffers], random_states()
        try:
            with dead_workers_named():
                super().run_step()
        except LossError as error:
            # No weight has changed yet, but the forward pass has, for one, moved the statistics of batch norm.
            for buffer, value in zip(buffers, before[0], strict=True):
                buffer.copy_(value)
            raise LossError(self._save_before_step(error, before[1])) from error
        except ImageError as error:
            if comm.get_world_size() > 1:  # the others are in this step, and cannot save
                raise
            raise DataError(self._save_before_step(error, before[1])) from error

    def _save_before_step(self, error: Exception, states: dict[str, Any]) -> str:
        """Save the state before a step that has failed; the message of its error, and where the state is."""
        try:
            path = self._checkpoints.save_interrupted(steps=self.iter, epochs=self.epoch, states=states)
        except TrainingError as not_saved:
            return f"{error}; and {not_saved}"
        return f"{error}; the state before this step is in '{path}'"

    def after_step(self) -> None:
        if self.iter >= self.first_iter:
            super().after_step()

    def train(self) -> dict | None:
        if self.start_epoch >= self.max_epoch:
            self._complete_final_checkpoint()
            logger.info("All %d epochs are done: evaluating the last checkpoint", self.max_epoch)
            return self.test(self.cfg, self.model)
        return super().train()

    def _complete_final_checkpoint(self) -> None:
        """Save ``model_final`` from the state that was resumed, where that is of another file.

        The best checkpoint of the last epoch is written before it, and a training can be killed between the two.
        """
        checkpointer = self.checkpointer
        if checkpointer.resumed is not None and Path(checkpointer.resumed_from).name != f"{FINAL}.pth":
            checkpointer.save(FINAL, **checkpointer.resumed)


class InferenceCheckpointer(Checkpointer):
    """Refuses weights that leave a part of the model at its random start; the toolbox logs that and goes on."""

    def _log_incompatible_keys(self, incompatible) -> None:
        # A classifier has as many rows as training had identities, and inference does not use it.
        unused = {f"{name}.weight" for name, m in self.model.named_modules() if isinstance(m, EmbeddingHead)}
        wrong = [k for k in incompatible.missing_keys if k not in unused]
        wrong += [k for k, _, _ in incompatible.incorrect_shapes if k not in unused]
        # The toolbox's older models kept the pixel statistics in their weights.
        wrong += [k for k in incompatible.unexpected_keys if k not in ("pixel_mean", "pixel_std")]
        if wrong:
            raise WeightsError(
                f"MODEL.WEIGHTS is of another architecture: {len(wrong)} tensors are missing in it, have another shape "
                f"or are none of the model's, first {wrong[0]}; use the config the weights were trained with"
            )


def setup(args: argparse.Namespace, *, shown: tuple[str, ...] = SHOWN) -> CfgNode:
    """Config, output folder, log files and seeds of a run.

    Args:
        args: the flags of the toolbox's ``default_argument_parser``.
        shown: the console shows only these loggers and warnings; the log file keeps everything.
    """
    cfg = _load_config(args)
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise ConfigError("--eval-only needs MODEL.WEIGHTS: add MODEL.WEIGHTS path/to/model.pth to the command line")
    _check_writable(cfg.OUTPUT_DIR)
    _quieten_console(cfg.OUTPUT_DIR, shown)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mgre")  # the toolbox sets up its own name only
    logger.info("Log file, with environment, config and model: %s", os.path.join(cfg.OUTPUT_DIR, "log.txt"))
    logging.getLogger("fastreid.engine.train_loop").addFilter(_drop_traceback)
    logger.info("Toolbox: %s", _describe_toolbox())
    default_setup(cfg, args)
    if cfg.SEED >= 0:
        seed_all_rng(cfg.SEED + comm.get_rank())
    return cfg


def run(args: argparse.Namespace) -> dict | None:
    """Train, or with ``--eval-only`` evaluate MODEL.WEIGHTS; the metrics, on the main process.

    They are also left in OUTPUT_DIR, as :data:`RESULTS_FILE` or :data:`EVALUATION_FILE`, when all is done.
    """
    cfg = setup(args)
    file_name = EVALUATION_FILE if args.eval_only else RESULTS_FILE
    if args.eval_only:
        model = load_model(cfg)
        _forget_results(cfg.OUTPUT_DIR, file_name)
        results = Trainer.test(cfg, model)
    else:
        if cfg.DATASETS.UNREADABLE_IMAGES == "stop":
            paths = sorted({path for members in list_images(cfg).values() for path in members})
            check_headers(paths, cfg.OUTPUT_DIR)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        _forget_results(cfg.OUTPUT_DIR, file_name)
        results = trainer.train()
    if comm.is_main_process() and results:
        _write_results(os.path.join(cfg.OUTPUT_DIR, file_name), results)
    return results


def _forget_results(folder: str, file_name: str) -> None:
    """Remove those of another run, which this one, that can begin now, may not come to replace."""
    if comm.is_main_process():
        Path(folder, file_name).unlink(missing_ok=True)


def _write_results(path: str, results: dict) -> None:
    """Metrics by name, or by data set and name where there are several test sets."""
    with written_in_one_step(path) as unfinished, open(unfinished, "w") as file:
        json.dump(results, file, indent=2, default=float)


def load_model(cfg: CfgNode) -> nn.Module:
    """The config's model with MODEL.WEIGHTS, for inference.

    Raises:
        WeightsError: they are missing, damaged or of another architecture.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.freeze()
    model = Trainer.build_model(cfg)
    InferenceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def launch(function: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call ``function(args)`` in the processes that the flags, or torchrun, ask for: one, or one for each GPU."""
    device = torch.device(_load_config(args).MODEL.DEVICE)
    if device.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the toolbox's loaders and launcher go by the machine, not the config
    elif args.num_gpus > torch.cuda.device_count():
        raise SetupError(f"--num-gpus {args.num_gpus}, but there are {torch.cuda.device_count()} CUDA devices here")
    distributed.start(function, args)


def _load_config(args: argparse.Namespace) -> CfgNode:
    """The config of the flags. If its device is missing, the error names missing data too: a machine may lack both."""
    try:
        return load_config(args.config_file, args.opts)
    except SetupError as no_device:
        try:
            list_images(load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"]))
        except MGReError as no_data:
            raise SetupError(f"{no_device}; and then: {no_data}") from no_data
        raise


def _describe_toolbox() -> str:
    """The wheel of fast-reid 1.4.0 calls itself 1.3, so the distribution's version counts; a clone has none."""
    try:
        version = importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed by pip"
    return f"fastreid {version} in {os.path.dirname(fastreid.__file__)} (__version__ {fastreid.__version__})"


def _quieten_console(output_dir: str, shown: tuple[str, ...]) -> None:
    # The toolbox sets its logger up once; set up here first, its console handler can be told what to leave out.
    for handler in setup_logger(output_dir, distributed_rank=comm.get_rank()).handlers:
        if type(handler) is logging.StreamHandler and handler.stream is sys.stdout:
            handler.addFilter(lambda record: record.name.startswith(shown) or record.levelno >= logging.WARNING)


def main(function: Callable[[], object]) -> int:
    """Run a tool; the exit status: the function's own if it returns one, else 0, and 1 after an error.

    A training that a signal has stopped ends with 128 + the signal's number.

    What a user can mend ends in one line on stderr, not in a traceback.
    """
    try:
        status = function()
    except ProcessExitedException as error:
        if error.exit_code >= 0:
            return error.exit_code  # the process has said why
        reason = " (out of memory?)" if error.exit_code == -signal.SIGKILL else ""
        print(f"error: {error}{reason}; the other processes were ended", file=sys.stderr)
        return 128 - error.exit_code
    except (MGReError, ProcessRaisedException) as error:
        # Another process hands its error over as a whole traceback: the last line is the message.
        message = printable(str(error) if isinstance(error, MGReError) else str(error).strip().splitlines()[-1])
        origin = re.match(r"mgre\.[\w.]+Error: ", message)
        if not isinstance(error, MGReError) and not origin:
            raise
        print(f"error: {message[origin.end() if origin else 0 :]}", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0


def _drop_traceback(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], MGReError))


def _check_writable(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError, TypeError) as error:  # the latter two for what is no path
        reason = getattr(error, "strerror", error)
        raise SetupError(f"OUTPUT_DIR '{folder}' cannot be written ({reason}): choose another folder") from error
