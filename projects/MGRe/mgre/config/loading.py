"""Configs from files and command lines."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from fastreid.config import CfgNode, get_cfg
from fastreid.utils.logger import log_first_n

from mgre.config.checks import check_config
from mgre.config.keys import add_mgre_config
from mgre.config.shipped import SCHEME, config_path, shipped_names
from mgre.errors import ConfigError, nearest, shell_word

# Most values of a config file: far more than there are keys, far fewer than a few lines of YAML aliases can stand for.
MAX_VALUES = 10_000

# Former names of keys, which are still loaded, with a warning: {"OLD.NAME": "NEW.NAME"}.
RENAMED_KEYS: Mapping[str, str] = {}


def load_config(config_file: str = "", overrides: Sequence[str] = ()) -> CfgNode:
    """The toolbox's and MGRe's defaults, then a config file, then ``KEY VALUE`` pairs; checked and frozen.

    Raises:
        ConfigError: a file, key, name or value is wrong.
        SetupError: the config asks for a device that is not there.
    """
    cfg = get_cfg()
    add_mgre_config(cfg)
    if config_file:
        _merge_file(cfg, config_file)
    return _finish(cfg, overrides)


def parse_config(text: str, overrides: Sequence[str], source: str) -> CfgNode:
    """Like :func:`load_config`, from the ``text`` of a file that needs no other.

    Args:
        text: YAML.
        overrides: ``KEY VALUE`` pairs.
        source: where the text is from, for messages.
    """
    cfg = get_cfg()
    add_mgre_config(cfg)
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    _merge_values(cfg, loaded, source)
    return _finish(cfg, overrides)


def _finish(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    _merge_overrides(cfg, list(overrides))
    for node in (cfg.MODEL.BACKBONE, cfg.MODEL.HEADS):
        if node.NORM == "SyncBN":  # the name of the toolbox's "syncBN" in detectron2 and in papers
            node.NORM = "syncBN"
    try:
        check_config(cfg)
    except (TypeError, ValueError, AttributeError, LookupError) as error:  # yacs does not check the members of a list
        raise ConfigError(f"a value in the config is of another type than it should be: {error}") from error
    cfg.freeze()
    return cfg


def _is_larger_than(size: int, value: Any) -> bool:
    """Whether nested lists and dicts have more than ``size`` values; an object at two places counts twice."""
    rest, seen = [value], 0
    while rest and seen <= size:
        node = rest.pop()
        seen += 1
        if isinstance(node, dict | list | tuple | set):
            rest.extend(node.values() if isinstance(node, dict) else node)
    return seen > size


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings, each with its name: the keys joined by dots.

    >>> list(leaves({"MODEL": {"DEVICE": "cpu", "MGRE": {}}, "SEED": 0}))
    [('MODEL.DEVICE', 'cpu'), ('SEED', 0)]
    """
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge_file(cfg: CfgNode, config_file: str) -> None:
    given, config_file = config_file, config_path(config_file)
    if not os.path.isfile(config_file):
        near = nearest(given, shipped_names()) if given.startswith(SCHEME) else f" (working directory {os.getcwd()})"
        raise ConfigError(f"config file '{given}' does not exist{near}; see configs/, or mgre train --help")
    try:
        loaded = CfgNode.load_yaml_with_base(config_file)
    except FileNotFoundError as error:
        raise ConfigError(f"config file '{config_file}': its _BASE_ '{error.filename}' does not exist") from error
    except (yaml.YAMLError, OSError, RecursionError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ConfigError(
            f"config file '{config_file}' is not a YAML mapping of keys: {' '.join(str(error).split())}"
        ) from error
    _merge_values(cfg, loaded, f"config file '{config_file}'")


def _merge_values(cfg: CfgNode, loaded: Any, source: str) -> None:
    if not isinstance(loaded, dict):
        raise ConfigError(f"{source} is not a YAML mapping of keys: {str(loaded)[:60]!r}")
    if _is_larger_than(MAX_VALUES, loaded):
        raise ConfigError(f"{source} has more than {MAX_VALUES} values, its aliases written out")
    _merge(cfg, dict(leaves(loaded)), source)


def _merge_overrides(cfg: CfgNode, overrides: list[str]) -> None:
    if len(overrides) % 2:
        raise ConfigError(f"overrides come in pairs KEY VALUE; got {len(overrides)} words: {' '.join(overrides)}")
    _merge(cfg, dict(zip(overrides[0::2], overrides[1::2], strict=True)), "the command line")


def _merge(cfg: CfgNode, values: dict[str, Any], source: str) -> None:
    known = dict(leaves(cfg))
    for given, value in values.items():
        key = _current_name(given, values, source)
        if key not in known:
            raise ConfigError(f"unknown config key {key} in {source}{nearest(key, known)}")
        if isinstance(known[key], float) and str(value).lstrip("+-").isdigit():
            value = float(value)  # yacs refuses a whole number where the default is a float
        try:
            cfg.merge_from_list([key, value])
        except ValueError as error:
            allowed = _describe_type(known[key], value)
            raise ConfigError(f"{key} is {value!r} in {source}; allowed: {allowed}") from error


def _current_name(name: str, values: Mapping[str, Any], source: str) -> str:
    """The present name of a key that may have been renamed. A former name gives one warning."""
    if name not in RENAMED_KEYS:
        return name
    current = RENAMED_KEYS[name]
    if current in values:
        raise ConfigError(f"{source} has both {current} and its former name {name}: leave out {name}")
    log_first_n(
        logging.WARNING,
        f"config key {name} in {source} is now called {current}: rename it",
        name=__name__,
        key="message",
    )
    return current


def _describe_type(default: Any, value: Any) -> str:
    """The type of a key with this default, in words, with an example in the syntax of the command line."""
    if isinstance(default, bool):
        return "True or False"
    if isinstance(default, int | float):
        return f"a {'whole ' if isinstance(default, int) else ''}number, like {default}"
    if isinstance(default, str):
        return f"text; what looks like something else takes quotes in quotes, {shell_word(repr(str(value)))}"
    example = tuple(default)
    if not default or isinstance(default[0], str):
        # What was meant is most often the names themselves, with a bracket, a quote or a comma missing.
        names = (name.strip("()[]'\" ") for name in str(value).split(","))
        example = tuple(name for name in names if name) or example
    return f"a tuple in quotes, like {shell_word(str(example))}"
