"""Training in several processes: started here or by torchrun, with signals passed on and the first error reported."""

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from fastreid.engine import launch as toolbox_launch
from fastreid.utils import comm

from mgre.errors import ConfigError, TrainingError
from mgre.system.foreign_messages import is_lost_connection
from mgre.system.signals import handle_signals

# The environment variables that torchrun sets for each process.
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# A process that lost its connection waits this long, in seconds, before it ends. So the process that failed ends first,
# and the launcher reports its error.
SECONDS_BEFORE_FOLLOWING = 5.0

Run = Callable[[argparse.Namespace], object]


def start(function: Run, args: argparse.Namespace) -> None:
    """Call ``function(args)`` in each process: in this one if torchrun has started it, else in those the flags ask for.

    Raises:
        ConfigError: both torchrun and the flags ask for several processes.
        ProcessRaisedException, ProcessExitedException: a process that was started here failed; the others are ended.
    """
    if all(name in os.environ for name in TORCHRUN_VARIABLES):
        _join_torchrun(function, args)
        return
    if args.num_gpus * args.num_machines == 1:
        function(args)
        return
    with _pass_on_signals():
        toolbox_launch(
            Follower(function),
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


def _join_torchrun(function: Run, args: argparse.Namespace) -> None:
    if args.num_gpus > 1 or args.num_machines > 1:
        raise ConfigError("--num-gpus and --num-machines start processes, and so does torchrun: leave the flags out")
    rank, world_size, local_rank, local_size = (int(os.environ[name]) for name in TORCHRUN_VARIABLES[:4])
    if world_size == 1:
        function(args)
        return
    # Looked up at the call, because mgre.compat.engine replaces this function.
    worker = sys.modules["fastreid.engine.launch"]._distributed_worker  # noqa: SLF001
    worker(local_rank, Follower(function), world_size, local_size, rank // local_size, "env://", (args,))


@dataclass(frozen=True)
class Follower:
    """Calls a function in one of several processes; an error because another process has ended is raised late."""

    function: Run

    def __call__(self, args: argparse.Namespace) -> object:
        try:
            return self.function(args)
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            rank = comm.get_rank()
            time.sleep(SECONDS_BEFORE_FOLLOWING)
            raise TrainingError(
                f"process {rank} lost its connection to the others: one of them has ended, for a reason of its own"
            ) from error


@contextmanager
def _pass_on_signals() -> Iterator[None]:
    """Pass the signals of this process on to the processes it has started; it only waits for their end."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        children = multiprocessing.active_children()
        for pid in (child.pid for child in children):
            if pid is not None:  # it is None before the start only
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        if not children:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    with handle_signals(pass_on) as before:
        yield
