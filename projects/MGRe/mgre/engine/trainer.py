"""The toolbox's trainer with MGRe's data sets, step, checkpoints and evaluation."""

import copy
import logging
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer
from fastreid.engine.hooks import EvalHook, LRScheduler, PeriodicCheckpointer, PeriodicWriter
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.events import CommonMetricPrinter, EventWriter
from torch import nn

from mgre.data import build_test_loader, build_train_loader
from mgre.data.epoch_sampler import epoch_sampler
from mgre.data.loaders import end_workers
from mgre.data.torch_dataset import name_dead_workers
from mgre.engine.checkpointing import (
    BEFORE_EVALUATION,
    FINAL,
    CheckpointHook,
    SaveBeforeEvaluation,
    StopOnSignal,
    TrainingCheckpointer,
)
from mgre.engine.hooks import (
    EvaluationHook,
    LearningRateHook,
    MetricPrinter,
    MetricsWriter,
    ProgressBar,
    ReportUnreadable,
)
from mgre.engine.schedule import scale_warmup
from mgre.engine.step import TrainingStep
from mgre.errors import ConfigError, DataError, LossError, MGReError, TrainingError, WeightsError
from mgre.evaluation.evaluator import OnePassEvaluator, evaluate
from mgre.reading.images import ImageError
from mgre.system.files import make_output_dir
from mgre.system.precision import amp_dtype
from mgre.system.randomness import deterministic, random_states

logger = logging.getLogger(__name__)

# As in the toolbox.
STEPS_BETWEEN_WRITES = 200
# By the name of the test set.
TestSets = dict[str, tuple[torch.utils.data.DataLoader[Any], OnePassEvaluator]]


class Trainer(DefaultTrainer):
    """The toolbox's trainer; data sets, images and key points come through :mod:`mgre.data`.

    Attributes:
        first_iter: the first step to train, counted from 0; above 0 after a resume.
    """

    first_iter = 0
    cfg: CfgNode
    start_iter: int
    _trainer: TrainingStep

    def __init__(self, cfg: CfgNode) -> None:
        if comm.is_main_process() and cfg.OUTPUT_DIR:  # the toolbox leaves that to default_setup
            make_output_dir(cfg.OUTPUT_DIR)
        super().__init__(cfg)
        self.cfg = scale_warmup(self.cfg, self.iters_per_epoch)
        self.warmup_iters = self.cfg.SOLVER.WARMUP_ITERS
        # "stop" applies before a training only. The evaluations during a training skip unreadable images.
        self.cfg.defrost()
        self.cfg.DATASETS.UNREADABLE_IMAGES = "skip"
        self.cfg.freeze()

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> dict[str, Any]:
        if iters_per_epoch < 1:  # the toolbox's schedule would divide by it
            raise DataError(
                f"the training set has fewer images than SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}: "
                "lower that, or add images"
            )
        return super().build_lr_scheduler(scale_warmup(cfg, iters_per_epoch), optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> torch.utils.data.DataLoader[Any]:
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> tuple[torch.utils.data.DataLoader[Any], int]:
        return build_test_loader(cfg, dataset_name)

    def build_hooks(self) -> list[HookBase]:
        # The toolbox's trainer builds its hooks last. Its step is replaced here, before checkpoints ask for the scaler.
        amp = self.cfg.SOLVER.AMP
        self._trainer = TrainingStep(
            self.model,
            self.data_loader,
            self.optimizer,
            self._trainer.param_wrapper,
            amp_dtype=amp_dtype(amp.DTYPE, self.cfg.MODEL.DEVICE) if amp.ENABLED else None,
        )
        self.checkpointer = TrainingCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            save_to_disk=comm.is_main_process(),
            cfg=self.cfg,
            num_kept=self.cfg.SOLVER.CHECKPOINTS_KEPT,
            **self._stateful_parts(),
        )
        self._checkpoints = checkpoints = CheckpointHook(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        hooks, writers = [], []
        for hook in super().build_hooks():
            if isinstance(hook, PeriodicWriter):
                writers = hook._writers  # noqa: SLF001 (of the hook that is replaced below)
            elif isinstance(hook, LRScheduler):
                hooks.append(LearningRateHook(self.optimizer, self.scheduler))
            elif not isinstance(hook, EvalHook | PeriodicCheckpointer):
                hooks.append(hook)
        self._test_sets: TestSets = {}
        # The evaluation comes before the epoch's checkpoint, because its metric decides on the best one. The state is
        # saved before the evaluation too, and before all that is done after an epoch.
        period = self.cfg.TEST.EVAL_PERIOD
        hooks = [SaveBeforeEvaluation(period, checkpoints), *hooks, EvaluationHook(period, self.evaluate), checkpoints]
        if comm.is_main_process():
            hooks = [ProgressBar(), *hooks, MetricsWriter(writers, STEPS_BETWEEN_WRITES)]
        self._stop_on_signal = StopOnSignal(checkpoints)
        return [*hooks, ReportUnreadable(), self._stop_on_signal]

    def build_writers(self) -> list[EventWriter]:
        others = [writer for writer in super().build_writers() if not isinstance(writer, CommonMetricPrinter)]
        return [MetricPrinter(self.max_iter), *others]

    def _stateful_parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, **self.scheduler}
        if self.grad_scaler is not None:
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
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None
    ) -> tuple[torch.utils.data.DataLoader[Any], OnePassEvaluator]:
        loader, num_query = cls.build_test_loader(cfg, dataset_name)
        return loader, OnePassEvaluator(cfg, num_query, output_dir)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, test_sets: TestSets | None = None) -> dict[str, Any]:
        """Evaluate on each of DATASETS.TESTS; see :func:`mgre.evaluation.evaluator.evaluate`.

        Args:
            cfg: of the model.
            model: what is to be evaluated.
            test_sets: keeps what ``build_evaluator`` gives for each test set, for the next call with this ``cfg``. A
                subclass that overrides this method takes it too.

        Returns:
            Results by name, or where there are several test sets, by test set and name.
        """
        kept = {} if test_sets is None else test_sets
        # Each process has batch norm statistics of its own. Checkpoints hold process 0's: all evaluate with these.
        if comm.get_world_size() > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)
        results = OrderedDict()
        try:
            with name_dead_workers(), deterministic(cfg.DETERMINISTIC):
                for name in cfg.DATASETS.TESTS:
                    if name not in kept:
                        kept[name] = cls.build_evaluator(cfg, name)
                    results[name] = evaluate(cfg, model, *kept[name], name)
        finally:
            if test_sets is None:
                end_workers(loader for loader, _ in kept.values())
        return results if len(results) > 1 else next(iter(results.values()))

    def evaluate(self) -> dict[str, Any]:
        """Evaluate the model as it is now. The test sets are listed the first time, and their loaders kept."""
        try:
            self._last_eval_results = self.test(self.cfg, self.model, self._test_sets)
        except MGReError as error:
            before = Path(self.cfg.OUTPUT_DIR, f"{BEFORE_EVALUATION}.pth")
            if not before.exists():  # the whole training is done, and saved
                raise
            raise type(error)(
                f"{error}; the state before this evaluation is in '{before}', and --resume begins with the evaluation"
            ) from error
        return self._last_eval_results

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

    def _fit_warmup(self, progress: dict[str, Any], schedules: dict[str, dict[str, Any]]) -> None:
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

    # The toolbox starts at an epoch's first step. These methods skip the steps of that epoch which are done already.

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
        try:
            with name_dead_workers():
                super().run_step()
        except LossError as error:
            # No weight has changed yet, but the forward pass has moved the statistics of batch norm.
            self._trainer.before.put_buffers_back()
            raise LossError(self._save_before_step(error)) from error
        except ImageError as error:
            if comm.get_world_size() > 1:  # the others are still inside this step, and would not join the save
                raise
            raise DataError(self._save_before_step(error)) from error

    def _save_before_step(self, error: Exception) -> str:
        """Save the state before the failed step; the error's message with the path of the checkpoint."""
        states = random_states(self._trainer.before.random_states)
        try:
            path = self._checkpoints.save_interrupted(steps=self.iter, epochs=self.epoch, states=states)
        except TrainingError as not_saved:
            return f"{error}; and {not_saved}"
        return f"{error}; the state before this step is in '{path}'"

    def after_step(self) -> None:
        if self.iter >= self.first_iter:
            super().after_step()

    def after_train(self) -> None:
        if sys.exc_info()[0] is None:
            super().after_train()
            return
        try:  # a hook that was not ready must not hide why the training has failed
            super().after_train()
        except Exception:
            logger.debug("A hook failed after training had failed", exc_info=True)

    def train(self) -> dict[str, Any] | None:
        try:
            if self.start_epoch >= self.max_epoch:
                self._complete_final_checkpoint()
                logger.info("All %d epochs are done: evaluating the last checkpoint", self.max_epoch)
                return self.evaluate()
            with deterministic(self.cfg.DETERMINISTIC):
                return super().train()
        finally:
            self._stop_on_signal.restore_handlers()  # where the last evaluation fails, no hook comes after it
            # With this trainer and its hooks they would be left to the garbage collector, which waits for each.
            self._trainer.end_workers()
            end_workers(loader for loader, _ in self._test_sets.values())

    def _complete_final_checkpoint(self) -> None:
        """Save ``model_final`` from the state that was resumed, where that is of another file.

        The best checkpoint of the last epoch is written before it, and a training can be killed between the two.
        """
        checkpointer = self.checkpointer
        if checkpointer.resumed is not None and Path(checkpointer.resumed_from).name != f"{FINAL}.pth":
            checkpointer.save(FINAL, **checkpointer.resumed)
