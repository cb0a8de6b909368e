"""README.md and docs/: every command's options, files and keys exist, and every key that is named."""

import importlib
import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
from mgre.config import load_config
from mgre_cli.main import COMMANDS as MGRE_COMMANDS

PAGES = [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:tools|benchmarks)/\w+\.py[^`#\n]*")  # in a block or in `quotes`; a comment ends it
COMMANDS = sorted(
    {(page.name, command) for page in PAGES for command in COMMAND.findall(page.read_text().replace("\\\n", " "))}
)

# In a block; `mgre index remove` in a sentence is no whole command.
MGRE = re.compile(r"^(?:\.venv/bin/)?mgre [^#\n]*", flags=re.MULTILINE)
MGRE_LINES = sorted({(p.name, line) for p in PAGES for line in MGRE.findall(p.read_text().replace("\\\n", " "))})


def options_of(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


def test_commands_are_found():
    tools = {command.split()[0] for _, command in COMMANDS}
    assert {"tools/train_net.py", "tools/extract_keypoints.py"} <= tools
    whole = [command for page, command in COMMANDS if page == "custom-data.md" and "--config-file" in command]
    assert sum("train_net.py" in command for command in whole) >= 3  # train, evaluate, on a CPU


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_is_one_that_its_tool_takes(page, command, load_tool, load_benchmark):
    tool, *words = shlex.split(command)
    assert Path(tool).is_file()
    if not words:  # the tool's name
        return
    options = (load_tool if tool.startswith("tools/") else load_benchmark)(Path(tool).stem)
    if options_of(words) == words and "--config-file" not in words:  # a hint at an option, such as `--check`
        assert all(f'"{word}"' in Path(options.__file__).read_text() for word in words)
        return
    args = options.parse_args(words)
    if page == "extending.md":  # tests/test_extending.py runs its commands, beside the files they name
        return
    files = getattr(args, "config_file", None) or []
    for file in [files] if isinstance(files, str) else files:
        own = file.startswith(("your", "path/", "logs/"))
        load_config("" if own else file, [*_overrides(args), "MODEL.DEVICE", "cpu"])


@pytest.mark.parametrize(("page", "line"), MGRE_LINES)
def test_a_line_of_mgre_is_one_that_its_command_takes(page, line):
    _, name, *words = shlex.split(line)
    importlib.import_module(f"mgre_cli.{MGRE_COMMANDS[name][0]}").parse_args(words)


def _overrides(args: Namespace) -> list[str]:
    """Those of tools/reproduce.py come after the names of experiments."""
    return (
        args.opts
        if "opts" in args
        else args.words[next((i for i, w in enumerate(args.words) if "." in w), len(args.words)) :]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_config_keys_exist(page):
    cfg = load_config("", ["MODEL.DEVICE", "cpu"])
    text = page.read_text()
    added = re.findall(r'add_key\(Key\("([A-Z_.]+)"', text)  # by a plugin on the page
    for key in re.findall(rf"\b(?:{'|'.join(cfg)})(?:\.[A-Z0-9_]+)+", text):
        if key in added:
            continue
        node = cfg
        for part in key.split("."):
            assert part in node, f"{page} names {key}"
            node = node[part]
