"""Hooks of a training that report its progress and its unreadable images."""

import logging
import time

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
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
