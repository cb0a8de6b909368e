import sys
import types

import mgre.system.progress
from mgre.system.progress import show_progress


def test_lines_where_there_is_no_tqdm(monkeypatch, capsys):
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(mgre.system.progress, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    with show_progress(20, "image") as progress:
        for _ in range(5):
            clock.now += 6
            progress(4)
    assert capsys.readouterr().err.splitlines() == [
        "8 of 20 images, 0.7 a second",
        "16 of 20 images, 0.7 a second",
        "20 of 20 images, 0.7 a second",
    ]
