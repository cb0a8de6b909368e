"""How every command ends."""

import os
import subprocess
import sys

import pytest
from mgre.commands.main import main

_PRINT = (
    "import sys; from mgre.commands.main import main; sys.exit(main(lambda: [print(i) for i in range({lines})] and 0))"
)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_ends_a_command_without_a_word(unbuffered, lines):
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1", "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", _PRINT.format(lines=lines)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_not_hidden(capsys):
    def work() -> None:
        raise BrokenPipeError("of a process")

    with pytest.raises(BrokenPipeError, match="of a process"):
        main(work)
