"""How every command ends: with an exit status, and with one line for what a user can mend."""

import re
import signal
import sys
from collections.abc import Callable

from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from mgre.errors import MGReError, printable


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
