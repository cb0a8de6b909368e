"""Features files that are wrong, and one that is right."""

import os

import numpy as np
import pytest
from mgre.errors import DataError
from mgre.gallery.features_file import read_features


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {
        "features": np.arange(6, dtype=np.float32).reshape(3, 2),
        "paths": np.array(["a.jpg", "ü b.jpg", "c.jpg"]),
        "cameras": np.array([3, 1, 2]),
        "metadata": np.array(['{"a": 1}', "", "{}"]),
        "fingerprint": np.array("abc"),
        "record": np.array('{"b": 2}'),
    }


def test_a_features_file(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_features(str(tmp_path / "a.npz"))
    assert (found.vectors == arrays["features"]).all()
    assert (found.fingerprint, found.record) == ("abc", '{"b": 2}')
    assert (found.paths, found.cameras) == (["a.jpg", "ü b.jpg", "c.jpg"], ["3", "1", "2"])
    assert (found.metadata, found.times, found.ids) == (['{"a": 1}', "", "{}"], None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": None, "record": None}, "it has no features, record"),
        ({"fingerprint": None}, "it has no fingerprint"),
        ({"paths": np.array(["a"])}, "paths has shape (1,), and there are 3 features"),
        ({"metadata": np.array([Evil()] * 3, dtype=object)}, "Object arrays cannot be loaded"),
        ({"fingerprint": np.array(Evil(), dtype=object)}, "Object arrays cannot be loaded"),
    ],
)
def test_wrong_arrays_are_one_line_and_run_nothing(tmp_path, arrays, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    kept = {name: value for name, value in (arrays | change).items() if value is not None}
    np.savez("a.npz", **kept)
    with pytest.raises(DataError) as caught:
        read_features("a.npz")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("make one with mgre extract")
    assert not os.path.exists("evil")


@pytest.mark.parametrize("kind", ["cut", "text", "npy", "pickle", "empty", "member"])
def test_wrong_files_are_one_line(tmp_path, arrays, kind):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, arrays["features"])
    elif kind == "pickle":
        arrays["features"].dump(path)
    else:
        damaged = content[:60] + b"\xff" * 40 + content[100:]
        path.write_bytes({"cut": content[:200], "text": b"a,b\n1,2\n", "empty": b"", "member": damaged}[kind])
    with pytest.raises(DataError, match=r"is no features file \(.*: make one with mgre extract"):
        read_features(str(path))
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        read_features(str(tmp_path / "none.npz"))
