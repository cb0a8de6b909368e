"""Checkpoints of a training: all that it takes to go on exactly, how many are kept, and what follows a signal.

Files are named after what is in them: ``model_0012`` the state after epoch 12, ``model_best``, ``model_final``, and
``model_interrupted`` where a training had to stop between two of these.
"""

import logging
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.checkpoint import Checkpointer

from mgre.data.epoch_sampler import epoch_sampler
from mgre.errors import DamagedFileError, TrainingError, WeightsError
from mgre.system.collectives import highest_of_all
from mgre.system.files import unfinished_files
from mgre.system.randomness import random_states, set_random_states

logger = logging.getLogger(__name__)

# The toolbox names the last state so.
FINAL, INTERRUPTED = "model_final", "model_interrupted"
# Of two signals within this time, in seconds, the second one is the first one's echo: a terminal or a scheduler sends
# it to every process, and the launching one passes it on.
ECHO_TIME = 1.0


class TrainingCheckpointer(Checkpointer):
    """The toolbox's checkpointer; keeps as many files as asked for, and resumes from the newest that is whole.

    Attributes:
        progress: saved besides the model and the ``checkpointables``, see :class:`CheckpointHook`.
        resumed: what was in the checkpoint that was resumed from, besides these; None after a fresh start.
        resumed_from: its path.
    """

    def __init__(self, *args: Any, num_kept: int = 0, **kwargs: Any) -> None:
        """
        Args:
            num_kept: how many of the newest periodic and interrupted checkpoints stay; 0: all. The best and the final
                one always do.
        """
        super().__init__(*args, **kwargs)
        self.num_kept = num_kept
        self.progress: dict[str, Any] = {}
        self.resumed: dict[str, Any] | None = None
        self.resumed_from = ""

    def save(self, name: str, **kwargs: Any) -> None:
        # The hook learns of a new best metric after it has saved it.
        best = max(self.progress.get("best_metric", -1), kwargs.get("metric", -1))
        super().save(name, **(self.progress | {"best_metric": best} | kwargs))
        if self.save_to_disk and self.num_kept:
            for path in self._periodic_files()[self.num_kept :]:
                if path.stem != name:  # a clock that was put back makes the newest look old
                    path.unlink()

    def has_checkpoint(self) -> bool:
        """Whether there is one to resume from. It may be there before the note ``last_checkpoint`` is."""
        return bool(self.checkpoint_files())

    def checkpoint_files(self) -> list[Path]:
        """All checkpoints, in the order in which resuming tries them: the noted last one, then the newest first."""
        files = _newest_first(Path(self.save_dir).glob("model_*.pth"))
        noted = Path(self.save_dir, Path(self._noted_name()).name)
        return [noted, *(path for path in files if path != noted)] if noted.is_file() else files

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As the toolbox's; a damaged checkpoint is passed over with a warning.

        Raises:
            DamagedFileError: every checkpoint is damaged.
            WeightsError: the newest one is of another architecture, or holds objects besides tensors.
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
        return self.resumed

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
    """The toolbox's hook, on all processes; saves also where in the training it is.

    That is: ``iteration``, the steps that are done; ``iters_per_epoch``; ``metric``, the last evaluation's, or -1;
    ``best_metric``; ``sampler_seed``, for a loader of mgre.data; and ``random_states``, those of each process.

    Weights that are NaN or infinite are never saved: the training ends with a :class:`TrainingError`.
    """

    checkpointer: TrainingCheckpointer

    def before_train(self) -> None:
        super().before_train()
        if comm.is_main_process():
            self.checkpointer.remove_unfinished()
        progress = self.checkpointer.resumed or {}
        self.best_metric = progress.get("best_metric", self.best_metric)
        if progress.get("metric", -1) != -1:  # the last evaluation's, which is saved until the next one
            self.trainer.storage.put_scalar(self.metric_name, progress["metric"], smoothing_hint=False)
        # At the very last, since to build a trainer draws numbers.
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
        if done % self.trainer.iters_per_epoch == 0:  # what follows is the evaluation, and a checkpoint
            self._check_weights(done)

    def after_epoch(self) -> None:
        self._note_progress(self.trainer.iter)
        super().after_epoch()

    def save_interrupted(self, *, steps: int, epochs: int, states: dict[str, Any] | None = None) -> Path:
        """Save the state after ``steps`` steps and ``epochs`` whole epochs; all processes have to call it.

        Args:
            states: the process's :func:`mgre.randomness.random_states`, if not the present ones.

        Raises:
            TrainingError: weights are NaN or infinite.
        """
        self._check_weights(steps)
        self._note_progress(steps, states)
        self.checkpointer.save(INTERRUPTED, epoch=epochs - 1)
        comm.synchronize()  # the first process to end lets the others be ended
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
            **({"sampler_seed": sampler.seed} if sampler else {}),
        }


class StopOnSignal(HookBase):
    """After SIGTERM or SIGINT, finishes the step, saves a checkpoint, and leaves with 128 + the signal's number.

    The processes leave after the same step, whichever of them the signal reaches. A second signal ends a process at
    once.
    """

    def __init__(self, checkpoints: CheckpointHook) -> None:
        self.checkpoints = checkpoints
        self._received: int = 0
        self._handlers: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python gives signals to the main thread alone
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._receive)

    def after_step(self) -> None:
        # An epoch is whole when its last hooks, such as the evaluation, have run too.
        self._leave_if_asked(steps=self.trainer.iter + 1, epochs=self.trainer.epoch)

    def after_epoch(self) -> None:
        if self.trainer.epoch + 1 < self.trainer.max_epoch:
            self._leave_if_asked(steps=self.trainer.iter, epochs=self.trainer.epoch + 1)

    def after_train(self) -> None:
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
