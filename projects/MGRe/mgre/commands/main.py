"""The end of every command: an exit status, and one line on stderr for an error that a user can mend."""

import re
import signal
import sys
from collections.abc import Callable

from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from mgre.errors import MGReError, printable


def main(function: Callable[[], object]) -> int:
    """Run a command and return its exit status: the function's own if it returns one, else 0; 1 after an error.

    The status of a training that a signal has stopped is 128 + the signal's number. An error that a user can mend is
    printed as one line on stderr, without a traceback.
    """
    try:
        status = function()
    except ProcessExitedException as error:
        if error.exit_code >= 0:
            return error.exit_code  # the process has printed the reason
        reason = " (out of memory?)" if error.exit_code == -signal.SIGKILL else ""
        print(f"error: {error}{reason}; the other processes were ended", file=sys.stderr)
        return 128 - error.exit_code
    except (MGReError, ProcessRaisedException) as error:
        # The error of another process arrives as the text of its traceback, whose last line is the message.
        message = printable(str(error) if isinstance(error, MGReError) else str(error).strip().splitlines()[-1])
        origin = re.match(r"mgre\.[\w.]+Error: ", message)
        if not isinstance(error, MGReError) and not origin:
            raise
        print(f"error: {message[origin.end() if origin else 0 :]}", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0
