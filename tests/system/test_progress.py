import sys
import types

import mgre.system.progress
import pytest
from mgre.system.progress import show_progress


@pytest.mark.parametrize("has_tqdm", [False, True])
def test_lines_where_there_is_no_tqdm_or_no_terminal(monkeypatch, capsys, has_tqdm):
    clock = types.SimpleNamespace(now=100.0)
    if not has_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: not has_tqdm)
    monkeypatch.setattr(mgre.system.progress, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    with show_progress(20, "image") as progress:
        for _ in range(5):
            clock.now += 6
            progress(4)
    assert capsys.readouterr().err.splitlines() == [
        "8 of 20 images, 0.7 a second",
        "16 of 20 images, 0.7 a second",
    ]
