import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mgre.version import VERSION
from mgre_cli.main import COMMANDS, main


def _takes_a_config(module: str) -> bool:
    text = Path(f"projects/MGRe/mgre_cli/{module}.py").read_text()
    return any(said in text for said in ('"--config-file"', "add_model_use", "add_evaluated_model"))


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help_and_its_tool(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"usage: mgre {name}" in capsys.readouterr().out
    assert os.path.exists(f"tools/{'train_net' if name == 'train' else name.replace('-', '_')}.py")


def test_an_unknown_command_is_one_line(capsys):
    assert main(["xtract"]) == 2
    assert capsys.readouterr().err == (
        f"error: 'xtract' is no command of mgre (nearest: extract); there are {', '.join(COMMANDS)}\n"
    )


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mgre {VERSION}\n"


def test_help_imports_no_torch():
    code = "import sys; from mgre_cli.main import main; main([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


WITH_CONFIG = [name for name, (module, _) in COMMANDS.items() if _takes_a_config(module)]


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_a_command_that_takes_a_config_can_allow_its_imports(name, capsys):
    with pytest.raises(SystemExit):
        main([name, *(["add"] if name == "index" else []), "--help"])
    assert "--allow-imports" in capsys.readouterr().out
    # What the command does with it: it gives the config an override.
    module = COMMANDS[name][0]
    work = "engine/run.py" if module == "train" else f"commands/{module}.py"
    text = Path("projects/MGRe/mgre", work).read_text()
    if "import load_evaluated" in text or "commands.evaluated" in text:
        text = Path("projects/MGRe/mgre/commands/evaluated.py").read_text()
    assert re.search("overrides_of|allow_imports|imports_of_model", text)
