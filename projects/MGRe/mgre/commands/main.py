"""The end of every command: an exit status, and one line on stderr for an error that a user can mend."""

import os
import re
import signal
import sys
from collections.abc import Callable

from mgre.errors import MGReError, printable

# Before the message of an error that comes from another process.
_ORIGIN = re.compile(r"\Amgre\.[\w.]+Error: ")
# 128 + SIGPIPE, which Windows does not have.
_READER_LEFT = 141


def main(function: Callable[[], object]) -> int:
    """Run a command and return its exit status: the function's own if it returns one, else 0; 1 after an error.

    The status of a training that a signal has stopped is 128 + the signal's number. So is that of a command whose
    output nobody reads any more, as by ``mgre index list people | head``. An error that a user can mend is
    printed as one line on stderr, without a traceback.
    """
    try:
        status = function()
        sys.stdout.flush()
    except MGReError as error:
        return _fail(str(error))
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        return _READER_LEFT
    except Exception as error:
        status = _status_of_process(error)
        if status is None:
            raise
    return status if isinstance(status, int) else 0


def _reader_has_left() -> bool:
    """Whether what reads the standard output has ended; then the rest of the output goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # Python writes what is left when it ends, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _status_of_process(error: Exception) -> int | None:
    """The exit status where a process that torch has started has failed; None for any other error."""
    # Not imported here: commands that do without torch start no process by it.
    processes = sys.modules.get("torch.multiprocessing")
    if processes is None:
        return None
    if isinstance(error, processes.ProcessExitedException):
        if error.exit_code >= 0:
            return error.exit_code  # the process has printed the reason
        reason = " (out of memory?)" if error.exit_code == -signal.SIGKILL else ""
        print(f"error: {error}{reason}; the other processes were ended", file=sys.stderr)
        return 128 - error.exit_code
    if isinstance(error, processes.ProcessRaisedException):
        # The error of another process arrives as the text of its traceback, whose last line is the message.
        message = str(error).strip().splitlines()[-1]
        if _ORIGIN.match(message):
            return _fail(message)
    return None


def _fail(message: str) -> int:
    print(f"error: {printable(_ORIGIN.sub('', message))}", file=sys.stderr)
    return 1
