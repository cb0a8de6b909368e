"""Which config may import what."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest
from fastreid.config import get_cfg
from mgre.config import Key, add_key, allow_imports, keys, load_config, overrides_of
from mgre.config.allowed import between
from mgre.errors import ConfigError

CPU = ["MODEL.DEVICE", "cpu"]


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with two modules that write a file when they are imported, and two configs that ask for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(keys, "_of_plugins", {})
    for name in ("first_import", "second_import"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(f"open('{name}', 'w').close()\n")
    Path("base.yml").write_text("IMPORTS: [first_import.py]\nMODEL: {DEVICE: cpu}\n")
    Path("derived.yml").write_text("_BASE_: base.yml\nSEED: 1\n")


def imported() -> list[str]:
    return sorted(path.name for path in Path().glob("*_import"))


@pytest.mark.parametrize("config", ["base.yml", "derived.yml"])
def test_a_file_imports_nothing_by_itself(config):
    with pytest.raises(ConfigError, match=rf"'{config}' wants to import 'first_import.py', which runs code: .*--allow"):
        load_config(config)
    assert not imported()


def test_an_override_allows_it_and_takes_its_place():
    assert load_config("derived.yml", ["IMPORTS", "()"]).IMPORTS == ()
    assert not imported()
    cfg = load_config("derived.yml", ["IMPORTS", "('second_import.py',)"])
    assert cfg.IMPORTS == ("second_import.py",) and imported() == ["second_import"]


def test_the_option_allows_those_of_the_file():
    args = Namespace(config_file="derived.yml", opts=["SEED", "2"], allow_imports=True)
    words = overrides_of(args)
    assert words == ["SEED", "2", "IMPORTS", "('first_import.py',)"]
    assert not imported()  # only to load the config imports
    cfg = load_config(args.config_file, words)
    assert (cfg.SEED, imported()) == (2, ["first_import"])

    args.opts = ["IMPORTS", "('second_import.py',)"]
    assert overrides_of(args) == args.opts
    args.allow_imports, args.opts = False, ["SEED", "2"]
    assert overrides_of(args) == args.opts
    assert overrides_of(Namespace(config_file=None, opts=[], allow_imports=True)) == []


def test_several_files_import_what_each_asks_for():
    Path("other.yml").write_text("IMPORTS: ['second_import.py', 'first_import.py']")
    words = allow_imports(["base.yml", "other.yml"], [])
    assert words == ["IMPORTS", "('first_import.py', 'second_import.py')"]


def test_the_config_that_a_run_writes_needs_the_option_too():
    cfg = load_config("base.yml", ["IMPORTS", "('first_import.py',)"])
    Path("dumped.yml").write_text(cfg.dump())
    with pytest.raises(ConfigError, match=r"wants to import 'first_import\.py'"):
        load_config("dumped.yml")
    assert load_config("dumped.yml", allow_imports(["dumped.yml"], [])).IMPORTS == cfg.IMPORTS


@pytest.mark.parametrize("value", ["first_import.py", "[1]", "{a: b}", "[[first_import.py]]", "['']", "true"])
def test_imports_of_another_type_are_refused(value):
    Path("odd.yml").write_text(f"IMPORTS: {value}")
    with pytest.raises(ConfigError, match=r"odd\.yml|IMPORTS"):
        load_config("odd.yml", CPU)
    with pytest.raises(ConfigError, match="IMPORTS"):
        load_config("", [*CPU, "IMPORTS", "3"])
    assert not imported()


def test_imports_come_before_names_are_checked():
    Path("first_import.py").write_text(
        "from mgre.config import Key, add_key\n"
        "from fastreid.modeling.backbones.build import BACKBONE_REGISTRY\n"
        "add_key(Key('MODEL.OWN.WIDTH', 16, 'Channels.'))\n"
        "BACKBONE_REGISTRY._obj_map['own_backbone'] = None\n"
    )
    words = [*CPU, "MODEL.MGRE.BACKBONE", "own_backbone", "MODEL.OWN.WIDTH", "8"]
    with pytest.raises(ConfigError, match=r"unknown config key MODEL\.OWN\.WIDTH"):
        load_config("", words)
    from fastreid.modeling.backbones.build import BACKBONE_REGISTRY

    try:
        cfg = load_config("", [*words, "IMPORTS", "('first_import.py',)"])
    finally:
        BACKBONE_REGISTRY._obj_map.pop("own_backbone", None)
    assert (cfg.MODEL.MGRE.BACKBONE, cfg.MODEL.OWN.WIDTH) == ("own_backbone", 8)


def test_a_key_of_a_plugin_is_checked_as_all_are():
    add_key(Key("MODEL.OWN.RATE", 0.5, "A rate.", between(0, 1)))
    add_key(Key("MODEL.OWN.NAME", "x", "A name."))
    assert load_config("", [*CPU, "MODEL.OWN.RATE", "1"]).MODEL.OWN.RATE == 1.0
    with pytest.raises(ConfigError, match=r"MODEL\.OWN\.RATE is 2\.0; allowed: a number from 0 to 1"):
        load_config("", [*CPU, "MODEL.OWN.RATE", "2"])


@pytest.mark.parametrize("name", ["SEED", "MODEL.DEVICE", "MODEL", "MODEL.MGRE.LAMBDA", "MODEL.DEVICE.KIND"])
def test_a_key_whose_name_is_taken_is_refused(name):
    with pytest.raises(ConfigError, match=f"config key {name}, whose name is taken"):
        add_key(Key(name, 1, "Taken."))
    cfg = get_cfg()
    keys.add_mgre_config(cfg)
    assert not keys._of_plugins
