"""Which commands do without torch and the toolbox."""

from argparse import Namespace

import pytest
from mgre_cli import start


@pytest.mark.parametrize(
    ("command", "options", "needs_stack"),
    [
        ("compare", {"model": "person.onnx"}, False),
        ("compare", {"model": "person.xml"}, False),
        ("compare", {"model": "person.torchscript"}, True),
        ("compare", {"model": "person.pth"}, True),
        ("index", {"model": ""}, False),
        ("index", {}, False),
        ("index", {"model": "", "rerank": True}, True),
        ("index", {"model": "person.xml", "rerank": True}, True),
        ("evaluate", {"model": "person.onnx"}, True),
        ("rank", {"model": None}, True),
    ],
)
def test_the_training_stack_is_asked_for_where_it_is_needed(monkeypatch, command, options, needs_stack):
    asked = []
    monkeypatch.setattr(start, "call", lambda work: asked.append(True))
    monkeypatch.setattr(start, "_run", lambda work: asked.append(False))
    monkeypatch.setattr(start, "_import_without_toolbox", lambda: None)
    start.start(command, Namespace(**options))
    assert asked == [needs_stack]
