"""Hooks of a training: progress, unreadable images, evaluation, and the writing of metrics."""

import logging
import sys
import time

from fastreid.engine.hooks import EvalHook, LRScheduler, PeriodicWriter
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.events import CommonMetricPrinter, get_event_storage
from tqdm import tqdm

from mgre.errors import printable

logger = logging.getLogger(__name__)


# Between two lines of progress in the log, where the output is no terminal that could show a bar.
SECONDS_BETWEEN_LINES = 60.0


class ProgressBar(HookBase):
    """A bar over all training steps with loss, rate and remaining time; lines in the log where there is no terminal.

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


class ReportUnreadable(HookBase):
    """Logs after each epoch how many unreadable images the training has skipped."""

    num_reported = 0

    def after_epoch(self) -> None:
        dataset = self.trainer.data_loader.dataset
        if not getattr(dataset, "skip_unreadable", False):  # the loader is not one of mgre.data
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


class LearningRateHook(LRScheduler):
    """The toolbox's; asks the gradient scaler for its scale only during the warm-up, which alone looks at it.

    To ask waits for the GPU. The toolbox's hook asks before every step.
    """

    def before_step(self) -> None:
        if self.trainer.iter < self.trainer.warmup_iters:
            super().before_step()


class EvaluationHook(EvalHook):
    """The toolbox's; after a failed or interrupted training nothing is evaluated.

    The trainer calls ``after_train`` of every hook after an error too. The toolbox's hook asks there for an epoch that
    is missing before the first one, and takes a failure in the last epoch for the end of the training.
    """

    def after_train(self) -> None:
        if sys.exc_info()[0] is None:
            super().after_train()


class MetricsWriter(PeriodicWriter):
    """The toolbox's; the figures of an evaluation reach metrics.json and TensorBoard, those of the last one too.

    The writers leave out the numbers of a step that they have written already. The toolbox writes after the last step
    of an epoch, then evaluates. This hook writes the epoch's last step only after the epoch.
    """

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.trainer.iters_per_epoch:
            super().after_step()

    def after_train(self) -> None:
        if sys.exc_info()[0] is None:  # an evaluation after the last epoch has put its figures
            for writer in self._writers:
                writer.write()
        super().after_train()


class MetricPrinter(CommonMetricPrinter):
    """The toolbox's; prints runs of one or two steps too.

    Such a run is written after its last step and again after its epoch. The toolbox's printer divides the time between
    the two by the number of steps between them, which is 0.
    """

    def write(self) -> None:
        if self._last_write is None or self._last_write[0] != get_event_storage().iter:
            super().write()
