"""The shipped configs: in the repository's configs/, and in an installed package beside this code."""

import os
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

_REPOSITORY, _INSTALLED = Path(__file__).parents[4] / "configs", Path(__file__).parents[1] / "shipped_configs"
SHIPPED = _REPOSITORY if _REPOSITORY.is_dir() else _INSTALLED
# "mgre://market.yml" is MGRe/market.yml of the shipped configs.
SCHEME = "mgre://"
_FOLDER = "configs/"


def config_path(name: str) -> str:
    """The path of a config file.

    Args:
        name: a path; or ``mgre://<name>.yml`` for a shipped config, from any folder. A path that begins with
            "configs/" and is not there is a shipped one too, so that commands of the docs run in any folder.
    """
    if name.startswith(SCHEME):
        return str(SHIPPED / "MGRe" / name.removeprefix(SCHEME))
    if name.startswith(_FOLDER) and not os.path.exists(name):
        return str(SHIPPED / name.removeprefix(_FOLDER))
    return name


def shipped_names() -> list[str]:
    """The names of the shipped configs, ``mgre://...``, sorted."""
    folder = SHIPPED / "MGRe"
    return sorted(SCHEME + path.relative_to(folder).as_posix() for path in folder.glob("**/*.yml"))


def read_with_base(path: str) -> dict[str, Any]:
    """The values of a YAML file on top of those of its ``_BASE_``, which may be a shipped config."""
    values: dict[str, Any] = _ConfigFile.load_yaml_with_base(path)
    return values


class _ConfigFile(CfgNode):
    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        # A _BASE_ arrives here behind the folder of the file that names it.
        start = filename.find(SCHEME)
        path = config_path(filename[start:]) if start >= 0 else filename
        values: dict[str, Any] = super().load_yaml_with_base(path, allow_unsafe)
        return values
