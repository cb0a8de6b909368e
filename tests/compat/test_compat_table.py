"""The table of what is replaced in the toolbox, against what is replaced and against the toolbox's sources."""

import importlib
import importlib.metadata

import mgre  # noqa: F401  (it applies the adaptations)
import pytest
from fastreid.modeling.backbones.regnet.config import cfg as regnet_cfg
from mgre.compat.patching import ORIGINALS
from mgre.compat.table import REPLACED, source_digest

# Replaced only where numpy lacks np.bool.
OPTIONAL = {"fastreid.evaluation.rank.np"}
# An attribute of an instance, which ``adapt`` does not replace.
INSTANCE = "fastreid.modeling.backbones.regnet.config.cfg.merge_from_file"


def test_every_replaced_name_is_in_the_table_and_no_other():
    assert "merge_from_file" in vars(regnet_cfg)
    replaced = {name for name in ORIGINALS if name.startswith("fastreid.")}  # other tests replace names of their own
    assert (replaced | {INSTANCE}) - OPTIONAL == set(REPLACED) - OPTIONAL


@pytest.mark.parametrize("name", [name for name, entry in REPLACED.items() if entry.digest])
def test_the_toolbox_still_has_the_source_that_is_replaced(name):
    try:
        version = importlib.metadata.version("fastreid")
    except importlib.metadata.PackageNotFoundError:
        version = "a clone"
    if version != "1.4.0":
        pytest.skip(f"the digests are of fastreid 1.4.0, this is {version}")
    assert source_digest(ORIGINALS[name]) == REPLACED[name].digest


def test_every_entry_says_why_and_until_when():
    assert all(entry.why and entry.until for entry in REPLACED.values())


@pytest.mark.parametrize("by", sorted({entry.by for entry in REPLACED.values()}))
def test_every_entry_names_its_adaptation(by):
    area, function = by.split(".")
    module = importlib.import_module(f"mgre.compat.{area}")
    assert getattr(module, function) in module.ADAPTATIONS
