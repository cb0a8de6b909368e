"""The toolbox's trainer with MGRe's data and region figures, and the run behind tools/train_net.py."""

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any

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
from mgre.checkpointing import CheckpointHook, StopOnSignal, TrainingCheckpointer
from mgre.config import load_config
from mgre.data import KeypointDataset, build_test_loader, build_train_loader, list_images
from mgre.data.checks import check_headers
from mgre.data.sampling import epoch_sampler
from mgre.errors import ConfigError, DataError, LossError, MGReError, SetupError, WeightsError, printable
from mgre.evaluation.regions import evaluate_regions, has_regions
from mgre.randomness import random_states

__all__ = [
    "InferenceCheckpointer",
    "ProgressBar",
    "Trainer",
    "default_argument_parser",
    "launch",
    "main",
    "run",
    "setup",
]

logger = logging.getLogger(__name__)


class ProgressBar(HookBase):
    """A bar over all training steps, with rate and time left; silent where the output is not a terminal."""

    def before_train(self) -> None:
        self._bar = tqdm(
            total=self.trainer.max_iter, initial=self.trainer.start_iter, unit="step", desc="training", disable=None
        )

    def after_step(self) -> None:
        self._bar.update()

    def after_train(self) -> None:
        self._bar.close()


class ReportUnreadable(HookBase):
    """Says after each epoch how many unreadable images training has skipped."""

    num_reported = 0

    def after_epoch(self) -> None:
        dataset = self.trainer.data_loader.dataset
        if not dataset.skip_unreadable:
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
        results = super().test(cfg, model)
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
            super().run_step()
        except LossError as error:
            # No weight has changed yet, but the forward pass has, for one, moved the statistics of batch norm.
            for buffer, value in zip(buffers, before[0], strict=True):
                buffer.copy_(value)
            path = self._checkpoints.save_interrupted(steps=self.iter, epochs=self.epoch, states=before[1])
            raise LossError(f"{error}; the state before this step is in '{path}'") from error
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise self._name_held_image(error) from error
            raise

    def _name_held_image(self, error: RuntimeError) -> DataError:
        """The error of a worker that has died, with the image it held."""
        dataset = self.data_loader.dataset
        pids = re.search(r"\(pid\D*([\d, ]+)", str(error))
        held = [dataset.held_path(int(pid)) for pid in re.findall(r"\d+", pids.group(1) if pids else "")]
        images = ", ".join(f"'{path}'" for path in held if path)
        return DataError(
            f"a process that loads images has died ({' '.join(str(error).split())}); it held {images or 'no image'}: "
            "look at that, and at the machine's memory, of which fewer DATALOADER.NUM_WORKERS take less"
        )

    def after_step(self) -> None:
        if self.iter >= self.first_iter:
            super().after_step()

    def train(self) -> dict | None:
        if self.start_epoch >= self.max_epoch:
            logger.info("All %d epochs are done: evaluating the last checkpoint", self.max_epoch)
            return self.test(self.cfg, self.model)
        return super().train()


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


def setup(args: argparse.Namespace, *, shown: tuple[str, ...] | None = None) -> CfgNode:
    """Config, output folder, log files and seeds of a run.

    Args:
        args: the flags of the toolbox's ``default_argument_parser``.
        shown: if given, the console shows only these loggers and warnings; the log file keeps everything.
    """
    cfg = load_config(args.config_file, args.opts)
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise ConfigError("--eval-only needs MODEL.WEIGHTS: add MODEL.WEIGHTS path/to/model.pth to the command line")
    _check_writable(cfg.OUTPUT_DIR)
    if shown is not None:
        _quieten_console(cfg.OUTPUT_DIR, shown)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="mgre")  # the toolbox sets up its own name only
    default_setup(cfg, args)
    if cfg.SEED >= 0:
        seed_all_rng(cfg.SEED + comm.get_rank())
    return cfg


def run(args: argparse.Namespace) -> dict | None:
    """Train, or with ``--eval-only`` evaluate MODEL.WEIGHTS; the metrics, on the main process."""
    cfg = setup(args)
    if not args.eval_only:
        if cfg.DATASETS.UNREADABLE_IMAGES == "stop":
            paths = sorted({path for members in list_images(cfg).values() for path in members})
            check_headers(paths, cfg.OUTPUT_DIR)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.freeze()
    model = Trainer.build_model(cfg)
    InferenceCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return Trainer.test(cfg, model)


def launch(function: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call ``function(args)`` in the processes that the flags, or torchrun, ask for: one, or one for each GPU."""
    device = torch.device(load_config(args.config_file, args.opts).MODEL.DEVICE)
    if device.type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the toolbox's loaders and launcher go by the machine, not the config
    elif args.num_gpus > torch.cuda.device_count():
        raise SetupError(f"--num-gpus {args.num_gpus}, but there are {torch.cuda.device_count()} CUDA devices here")
    distributed.start(function, args)


def _quieten_console(output_dir: str, shown: tuple[str, ...]) -> None:
    # The toolbox sets its logger up once; set up here first, its console handler can be told what to leave out.
    for handler in setup_logger(output_dir, distributed_rank=0).handlers:
        if type(handler) is logging.StreamHandler and handler.stream is sys.stdout:
            handler.addFilter(lambda record: record.name.startswith(shown) or record.levelno >= logging.WARNING)


def main(function: Callable[[], object]) -> int:
    """Run a tool; the exit status: the function's own if it returns one, else 0, and 1 after an error.

    A training that a signal has stopped ends with 128 + the signal's number.

    What a user can mend ends in one line on stderr, not in a traceback.
    """
    logging.getLogger("fastreid.engine.train_loop").addFilter(_drop_traceback)
    try:
        status = function()
    except ProcessExitedException as error:
        if error.exit_code >= 0:
            return error.exit_code  # the process has said why
        print(f"error: {error} (out of memory?); the other processes were ended", file=sys.stderr)
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
    except OSError as error:
        raise SetupError(
            f"OUTPUT_DIR '{folder}' cannot be written ({error.strerror}): choose another folder"
        ) from error
