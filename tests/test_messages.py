"""The examples in messages can be pasted into a shell as they stand: pairs of key and value, options, commands.

The messages are all texts in the source that are no docstrings. A placeholder is filled with the key's default.
"""

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode
from mgre.config import load_config
from mgre.config.loading import leaves
from mgre.errors import ConfigError, shell_word

SOURCE = Path("projects/MGRe")
# Tables of keys and of replaced functions: no messages.
NO_MESSAGES = ("mgre/config/keys.py", "mgre/compat/table.py")
KEY = r"(?<![\w./{])(?:[A-Z][A-Z0-9_]*\.)+[A-Z][A-Z0-9_]*"
PAIR = re.compile(rf"({KEY}) (\"[^\"]*\"|'[^']*'|\[[^]]*\]|\((?![A-Z])[^)]*\)|\{{[^}}]*\}}|[^\s,;:(][^\s,;:]*)")
# What follows a key in a sentence, and is no value of it.
PROSE = {
    *("is", "has", "have", "to", "or", "and", "as", "above", "asks", "adds", "take", "takes", "loads", "keeps", "may"),
    *("gives", "does", "needs", "names", "counts", "in", "of", "on", "with", "where", "if", "are"),
}
COMMAND = re.compile(r"(tools/\w+\.py)((?: --?[\w-]+(?: (?!--)[^\s,;:]+)?)*)|(pip (?:un)?install [^,;:()]+)")
VALUE = re.compile(r"True|False|-?\d[\d.e-]*|[\"'\[{].*|\([\d.,]*\)")


def text_of(node: ast.AST) -> str | None:
    """A text of the source, with each placeholder as ``{}``, or ``{quoted}`` if it is quoted for a shell."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value
            if isinstance(part, ast.Constant)
            else "{quoted}"
            if ast.unparse(part.value).startswith(("shell_word(", "shlex.quote("))
            else "{}"
            for part in node.values
        )
    return None


def messages_of(path: Path) -> list[tuple[str, str]]:
    """(file and line, text) of the texts with a space in them."""
    tree = ast.parse(path.read_text())
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in ast.walk(node) if part is not node}
        elif isinstance(node, ast.Expr):  # docstrings
            inner.add(id(node.value))
    found = ((node, text_of(node)) for node in ast.walk(tree) if id(node) not in inner)
    return [(f"{path.relative_to(SOURCE)}:{node.lineno}", text) for node, text in found if text and " " in text]


MESSAGES = [
    message
    for path in sorted(SOURCE.glob("mgre*/**/*.py"))
    if path.relative_to(SOURCE).as_posix() not in NO_MESSAGES
    for message in messages_of(path)
]


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return dict(leaves(load_config("", ["MODEL.DEVICE", "cpu"])))


def examples_of(text: str, defaults: dict[str, Any]) -> list[tuple[str, str]]:
    """Key and value of each pair in ``text`` that is an example, as they stand there."""
    pairs = []
    for key, value in PAIR.findall(text):
        value = value.rstrip(").") if value[0] not in "\"'([{" else value
        if value not in PROSE:
            default = defaults.get(key)
            inner = value != "{}" and isinstance(default, tuple | list)  # a member of the tuple
            value = value.replace("{}", str(default[0] if inner else default))
            pairs.append((key, value.replace("{quoted}", shell_word(str(default)))))
    return pairs


def shell_words(text: str) -> list[str]:
    """The words that a shell makes of ``text``; an error of the shell is a CalledProcessError."""
    command = ["bash", "-c", f"printf '%s\\n' {text}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def merge(key: str, value: str) -> CfgNode:
    """Merge one override, whether or not other keys would have to change with it."""
    try:
        return load_config("", [key, value, "MODEL.DEVICE", "cpu"])
    except ConfigError as error:
        assert f"{key} is {value!r}" not in str(error) and f"{key} has" not in str(error), error


def test_there_are_messages_and_examples(defaults):
    examples = {example for _, text in MESSAGES for example in examples_of(text, defaults)}
    assert len(MESSAGES) > 300
    assert len(examples) > 25
    assert {
        ("MODEL.MGRE.STAGES", '"()"'),
        ("MODEL.DEVICE", "cpu"),
        ("MODEL.MGRE.LOCATION.LOSS_WEIGHT", "0"),
    } <= examples


@pytest.mark.parametrize(("place", "text"), [(p, t) for p, t in MESSAGES if re.search(KEY, t)])
def test_a_pair_is_two_words_that_the_config_takes(place, text, defaults):
    for key, value in examples_of(text, defaults):
        assert key in defaults, f"{place} names {key}"
        words = shell_words(f"{key} {value}")
        assert len(words) == 2 and words[0] == key, f"{place}: a shell makes {words} of: {key} {value}"
        merge(*words)


def test_keys_in_examples_are_whole(defaults):
    """ "LAST_STRIDE 2" cannot be pasted: the config knows only MODEL.BACKBONE.LAST_STRIDE."""
    last = {key.split(".")[-1] for key in defaults if "." in key}
    part = re.compile(r"(?<![\w.{])([A-Z][A-Z0-9_]+) (\S+)")
    cut = [
        f"{place}: {key} {value}"
        for place, text in MESSAGES
        for key, value in part.findall(text)
        if key in last and VALUE.fullmatch(value)
    ]
    assert not cut


@pytest.mark.parametrize(("place", "text"), [(p, t) for p, t in MESSAGES if COMMAND.search(t)])
def test_a_command_is_one_that_a_shell_and_its_tool_take(place, text, load_tool):
    for tool, options, install in COMMAND.findall(text):
        if install:
            words = shell_words(install.strip().replace("{}", "package").replace("&&", "'&&'"))
            assert words[:2] in (["pip", "install"], ["pip", "uninstall"]), place
            continue
        assert Path(tool).is_file(), place
        words = shlex.split(re.sub(r"\{\w*\}", "configs/MGRe/market.yml", options))
        options = load_tool(Path(tool).stem)
        if words and words[-1].startswith("--"):  # the hint at an option
            assert f'"{words[-1]}"' in Path(options.__file__).read_text(), place
        elif words:
            options.parse_args(words)


def test_options_exist():
    known = set(re.findall(r'"(--[a-z][\w-]*)"', "".join(p.read_text() for p in SOURCE.glob("mgre_cli/*.py"))))
    assert "--eval-only" in known
    named = {
        (place, option)
        for place, text in MESSAGES
        if "pip " not in text
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
    }
    assert not {(place, option) for place, option in named if option not in known}


@pytest.mark.parametrize(
    "text",
    [
        "plain.pth",
        "with blank.pth",
        "it's",
        'say "x"',
        "$HOME",
        "`ls`",
        "a\\b",
        "(1, 2)",
        "[1]*",
        "",
        "ü",
        "#1",
        "!x",
        "~",
    ],
)
def test_any_text_becomes_one_word(text):
    assert shell_words(shell_word(text)) == ([text] if text else [""])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.BACKBONE.DEPTH", "1.0"),
        ("MODEL.BACKBONE.DEPTH", "5"),
        ("DATASETS.NAMES", "Market1501"),
        ("DATASETS.NAMES", "('Market1501')"),
        ("DATASETS.NAMES", "['Market1501'"),
        ("DATASETS.NAMES", "Market1501, DukeMTMC"),
        ("INPUT.SIZE_TRAIN", "big"),
        ("MODEL.PIXEL_MEAN", "1"),
    ],
)
def test_the_example_for_a_value_of_another_type_can_be_pasted(key, value):
    with pytest.raises(ConfigError, match="allowed: ") as error:
        load_config("", [key, value, "MODEL.DEVICE", "cpu"])
    example = re.search(r"(?:, like|quotes in quotes,) (.*)$", str(error.value)).group(1)
    (word,) = shell_words(example)
    merge(key, word)


def test_examples_that_cannot_be_pasted_would_be_seen(defaults):
    (example,) = examples_of("build none: MODEL.MGRE.STAGES ()", defaults)
    with pytest.raises(subprocess.CalledProcessError):
        shell_words(" ".join(example))
    (example,) = examples_of("set SOLVER.MAX_EPOCH many of them", defaults)
    with pytest.raises(AssertionError):
        merge(*shell_words(" ".join(example)))
    assert not examples_of("MODEL.DEVICE is wrong, and INPUT.SIZE_TEST has no size", defaults)


HELP = sorted(SOURCE.glob("mgre_cli/*.py"))


@pytest.mark.parametrize("path", [p for p in HELP if "Examples:" in p.read_text()], ids=lambda path: path.stem)
def test_the_examples_of_the_help_are_those_the_tool_takes(path, load_tool, defaults):
    examples = re.findall(
        r"^    (tools/.*)$", ast.get_docstring(ast.parse(path.read_text()), clean=False), re.MULTILINE
    )
    assert examples
    for example in examples:
        tool, *words = shell_words(example)
        args = load_tool(Path(tool).stem).parse_args(words)
        for key in getattr(args, "opts", [])[::2]:
            assert key in defaults, example
