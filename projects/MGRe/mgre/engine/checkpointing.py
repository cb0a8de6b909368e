"""Checkpoints of a training: the state for an exact resume, how many files are kept, and saving after a signal.

The files are named after their content: ``model_0012`` is the state after epoch 12, ``model_best`` that of the best
evaluation, ``model_final`` that at the end, and ``model_interrupted`` that of a training that stopped in between.
``model_before_evaluation`` is the state before the last evaluation; the next checkpoint replaces it.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from mgre.data.epoch_sampler import epoch_sampler
from mgre.engine.safe_checkpointer import SafeCheckpointer
from mgre.engine.training_record import make_record
from mgre.errors import DamagedFileError, TrainingError, WeightsError
from mgre.record import ModelRecord
from mgre.system.collectives import highest_of_all
from mgre.system.files import unfinished_files
from mgre.system.randomness import random_states, set_random_states

logger = logging.getLogger(__name__)

# "model_final" is the toolbox's name.
FINAL, INTERRUPTED = "model_final", "model_interrupted"
BEFORE_EVALUATION = "model_before_evaluation"
# The metrics that a checkpoint's record holds, where they have been measured.
RECORDED_FIGURES = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10", "IoU/mean")
# A second signal within this time, in seconds, is an echo of the first: a terminal or a scheduler signals every
# process, and the launching process passes its signal on to the others.
ECHO_TIME = 1.0


class TrainingCheckpointer(SafeCheckpointer):
    """The toolbox's checkpointer, which also limits the number of files and resumes from the newest undamaged one.

    Attributes:
        progress: entries to save besides the model and the ``checkpointables``, see :class:`CheckpointHook`.
        resumed: these entries of the checkpoint that was resumed from; None after a fresh start.
        resumed_from: the path of the checkpoint that was resumed from.
    """

    def __init__(self, *args: Any, num_kept: int = 0, **kwargs: Any) -> None:
        """
        Args:
            num_kept: how many of the newest periodic and interrupted checkpoints are kept; 0: all. The best and the
                final checkpoint are always kept.
        """
        super().__init__(*args, **kwargs)
        self.num_kept = num_kept
        self.progress: dict[str, Any] = {}
        self.resumed: dict[str, Any] | None = None
        self.resumed_from = ""

    def save(self, name: str, **kwargs: Any) -> None:
        # The hook updates its best metric only after it has saved the new best checkpoint.
        best = max(self.progress.get("best_metric", -1), kwargs.get("metric", -1))
        super().save(name, **(self.progress | {"best_metric": best} | kwargs))
        if self.save_to_disk and name != BEFORE_EVALUATION:
            Path(self.save_dir, f"{BEFORE_EVALUATION}.pth").unlink(missing_ok=True)
        if self.save_to_disk and self.num_kept:
            for path in self._periodic_files()[self.num_kept :]:
                if path.stem != name:  # after the clock was put back, the newest file looks old
                    path.unlink()

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from, with or without the note ``last_checkpoint``."""
        return bool(self.checkpoint_files())

    def checkpoint_files(self) -> list[Path]:
        """All checkpoints in the order in which resuming tries them: the one in the note ``last_checkpoint``, then the
        others, newest first."""
        files = _newest_first(Path(self.save_dir).glob("model_*.pth"))
        noted = Path(self.save_dir, Path(self._noted_name()).name)
        return [noted, *(path for path in files if path != noted)] if noted.is_file() else files

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Like the toolbox's method, but a damaged checkpoint is skipped with a warning.

        Raises:
            DamagedFileError: every checkpoint is damaged.
            WeightsError: the newest undamaged checkpoint is of another architecture, or holds objects besides tensors.
        """
        files = self.checkpoint_files() if resume else []
        if not files:
            return self.load(path, checkpointables=[])
        for file in files:
            try:
                self.resumed = self._load_training(file)
            except DamagedFileError as error:
                if file == files[-1]:
                    raise
                logger.warning("%s. Trying the checkpoint before it", error)
            else:
                self.resumed_from = str(file)
                break
        return self.resumed or {}

    def _load_training(self, file: Path) -> dict[str, Any]:
        try:
            progress = self.load(str(file))
            for key in ("epoch", "iteration", "iters_per_epoch", "sampler_seed"):
                if not isinstance(progress.get(key, 0), int):
                    raise TypeError(f"'{key}' is no whole number")
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            raise WeightsError(
                f"checkpoint '{file}' is not of this training ({' '.join(str(error).split())}): resume with the config "
                "it was trained with, or choose another OUTPUT_DIR"
            ) from error
        return progress

    def remove_unfinished(self) -> None:
        """Remove the unfinished checkpoints that killed processes have left."""
        for path in unfinished_files(self.save_dir, "model_*.pth"):
            path.unlink()

    def _noted_name(self) -> str:
        try:
            return Path(self.save_dir, "last_checkpoint").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _periodic_files(self) -> list[Path]:
        names = ("model_[0-9]*.pth", f"{INTERRUPTED}.pth")
        return _newest_first(path for name in names for path in Path(self.save_dir).glob(name))


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


class CheckpointHook(hooks.PeriodicCheckpointer):
    """The toolbox's hook on all processes, which also saves the progress of the training.

    The progress is ``iteration``, the number of finished steps; ``iters_per_epoch``; ``metric`` of the last evaluation,
    or -1; ``best_metric``; ``random_states`` of each process; ``record``, the text of the
    :class:`mgre.record.ModelRecord`; and, with a loader of mgre.data, ``sampler_seed``.

    Weights that are NaN or infinite are never saved: the training ends with a :class:`TrainingError`.
    """

    checkpointer: TrainingCheckpointer
    best_metric: float

    def before_train(self) -> None:
        super().before_train()
        if comm.is_main_process():
            self.checkpointer.remove_unfinished()
        progress = self.checkpointer.resumed or {}
        self.best_metric = progress.get("best_metric", self.best_metric)
        if progress.get("metric", -1) != -1:  # checkpoints save this metric until the next evaluation
            self.trainer.storage.put_scalar(self.metric_name, progress["metric"], smoothing_hint=False)
        # Last, because the construction of the trainer draws random numbers.
        states = progress.get("random_states", ())
        if len(states) == comm.get_world_size():
            try:
                set_random_states(states[comm.get_rank()])
            except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
                raise WeightsError(
                    f"checkpoint '{self.checkpointer.resumed_from}' has no random states: {error}"
                ) from error
        elif states:
            logger.warning(
                "The checkpoint is of %d processes, this training has %d: it goes on, but not with the same batches",
                len(states),
                comm.get_world_size(),
            )

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.trainer.iters_per_epoch == 0:  # an evaluation and a checkpoint follow
            self._check_weights(done)

    def after_epoch(self) -> None:
        self._note_progress(self.trainer.iter)
        super().after_epoch()

    def save_before_evaluation(self) -> None:
        """Save the state after an epoch's last step; all processes have to call this method."""
        self._note_progress(self.trainer.iter)
        self.checkpointer.save(BEFORE_EVALUATION, epoch=self.trainer.epoch - 1)

    def save_interrupted(self, *, steps: int, epochs: int, states: dict[str, Any] | None = None) -> Path:
        """Save the state after ``steps`` steps and ``epochs`` whole epochs; all processes have to call this method.

        Args:
            states: the process's :func:`mgre.system.randomness.random_states` to save; None: the present ones.

        Raises:
            TrainingError: weights are NaN or infinite.
        """
        self._check_weights(steps)
        self._note_progress(steps, states)
        self.checkpointer.save(INTERRUPTED, epoch=epochs - 1)
        comm.synchronize()  # when the first process ends, the launcher ends the others
        return Path(self.checkpointer.save_dir, f"{INTERRUPTED}.pth")

    def _check_weights(self, steps: int) -> None:
        weights = [parameter.isfinite().all() for parameter in self.trainer.model.parameters()]
        if highest_of_all(int(not torch.stack(weights).all())):
            files = self.checkpointer.checkpoint_files()
            raise TrainingError(
                f"after step {steps} there are weights that are NaN or infinite, which are not saved: lower "
                "SOLVER.BASE_LR or warm up longer; "
                + (f"--resume goes on from '{files[0]}'" if files else "there is no checkpoint to go on from")
            )

    def _note_progress(self, steps: int, states: dict[str, Any] | None = None) -> None:
        sampler = epoch_sampler(self.trainer.data_loader)
        self.checkpointer.progress = {
            "iteration": steps,
            "iters_per_epoch": self.trainer.iters_per_epoch,
            "best_metric": self.best_metric,
            "metric": self.trainer.storage.latest().get(self.metric_name, (-1, 0))[0],
            "random_states": comm.all_gather(states or random_states()),
            "record": make_record(self.trainer.cfg, self._figures()).to_json(),
            **({"sampler_seed": sampler.seed} if sampler else {}),
        }

    def _figures(self) -> dict[str, float]:
        """The metrics of the last evaluation that has been logged, as far as a model's record names them."""
        latest = self.trainer.storage.latest()
        earlier = (self.checkpointer.resumed or {}).get("record")
        # Until this process evaluates, the last evaluation is that of the training which it resumes.
        figures: dict[str, float] = {}
        if earlier:
            with suppress(WeightsError):  # of a damaged record: this training's own takes its place
                figures = dict(ModelRecord.from_json(earlier, self.checkpointer.resumed_from).figures)
        return figures | {name: latest[name][0] for name in RECORDED_FIGURES if name in latest}


class SaveBeforeEvaluation(HookBase):
    """Saves the state before each evaluation within a training, so that one that fails or is killed loses nothing.

    It has to be the first hook after an epoch: a resume does all that follows the epoch's last step again.

    Args:
        period: of the evaluation, in epochs.
        checkpoints: saves the state.
    """

    def __init__(self, period: int, checkpoints: CheckpointHook) -> None:
        self.period = period
        self.checkpoints = checkpoints

    def after_epoch(self) -> None:
        if (self.trainer.epoch + 1) % self.period == 0:
            self.checkpoints.save_before_evaluation()


class StopOnSignal(HookBase):
    """After SIGTERM or SIGINT, finishes the step, saves a checkpoint, and exits with status 128 + the signal's number.

    All processes exit after the same step, whichever process the signal reaches. A second signal ends a process at
    once.
    """

    def __init__(self, checkpoints: CheckpointHook) -> None:
        self.checkpoints = checkpoints
        self._received: int = 0
        self._handlers: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python handles signals in the main thread only
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._receive)

    def after_step(self) -> None:
        # An epoch counts as whole only after its hooks, such as the evaluation, have run.
        self._leave_if_asked(steps=self.trainer.iter + 1, epochs=self.trainer.epoch)

    def after_epoch(self) -> None:
        if self.trainer.epoch + 1 < self.trainer.max_epoch:
            self._leave_if_asked(steps=self.trainer.iter, epochs=self.trainer.epoch + 1)

    def after_train(self) -> None:
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Let the signals do again what they did before the training."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received, self._time = number, time.monotonic()
        elif time.monotonic() - self._time > ECHO_TIME:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _leave_if_asked(self, *, steps: int, epochs: int) -> None:
        number = highest_of_all(self._received)
        if not number:
            return
        path = self.checkpoints.save_interrupted(steps=steps, epochs=epochs)
        logger.warning(
            "Stopped by %s after step %d of %d: saved in '%s'; --resume goes on from there",
            signal.Signals(number).name,
            steps,
            self.trainer.max_iter,
            path,
        )
        raise SystemExit(128 + number)
