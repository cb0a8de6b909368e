"""Adding, removing, searching: against loops over arrays."""

import os
import subprocess
import sys

import numpy as np
import pytest
from mgre.errors import DataError, SetupError
from mgre.gallery import Entry, Filter, Gallery
from mgre.gallery.gallery import Match

MODEL = "a model"


def numbers(matches: list[Match]) -> list[int]:
    return [int(match.entry.id) - 1 for match in matches]


@pytest.mark.parametrize(("dim", "fall"), [(64, 0.85), (40, 0.85), (128, 0.0)])  # bound, few numbers, random
def test_the_search_is_exact(make, draw, brute_order, dim, fall):
    vectors, queries = draw(3000, dim, fall=fall), draw(70, dim, seed=1, fall=fall)
    vectors[2900:] = vectors[100:200]  # equal distances
    gallery = make(dim)
    for start in (0, 2500):
        gallery.add(vectors[start : start + 2500], fingerprint=MODEL)
    assert bool(gallery.state.compact) == (dim == 64)
    order = brute_order(queries, vectors)
    found = gallery.search(queries, fingerprint=MODEL, count=25)
    assert [numbers(matches) for matches in found] == order[:, :25].tolist()
    assert gallery.search(queries[:1], fingerprint=MODEL, count=25) == found[:1]
    assert numbers(gallery.search(queries[:1], fingerprint=MODEL, count=10_000)[0]) == order[0].tolist()
    first = found[0][0]
    a, b = queries[0].astype(float), vectors[order[0][0]].astype(float)
    assert first.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-13)
    assert first.distance == 1 - first.cosine
    own = [matches[0] for matches in gallery.search(vectors[:50], fingerprint=MODEL, count=1)]
    assert all(0 <= match.distance < 1e-14 for match in own)


def test_near_ties_keep_their_order(make, draw, brute_order):
    """Cosines that differ by less than float32 can tell."""
    random, query = np.random.default_rng(0), draw(1, 64)
    vectors = draw(3000, 64, seed=1)
    vectors[::30] = query + random.standard_normal((100, 64)) * 1e-4
    gallery = make()
    gallery.add(vectors, fingerprint=MODEL)
    assert gallery.state.compact
    assert (
        numbers(gallery.search(query, fingerprint=MODEL, count=60)[0]) == brute_order(query, vectors)[0][:60].tolist()
    )


@pytest.mark.parametrize("narrow", [False, True])  # picked from all estimates; gathered
def test_filters_and_the_query_s_own_camera(make, draw, brute_order, narrow):
    count, random = 4000, np.random.default_rng(0)
    vectors, queries = draw(count, 64), draw(6, 64, seed=1)
    cameras = [str(camera) for camera in random.integers(3, size=count)]
    coats, sizes, olds = (
        random.choice(["red", "blue"], count),
        random.integers(3, size=count),
        random.random(count) < 0.5,
    )
    metadata = [
        {"coat": str(coat), "n": int(size), "old": bool(old)}
        for coat, size, old in zip(coats, sizes, olds, strict=True)
    ]
    gallery = make()
    gallery.add(vectors, fingerprint=MODEL, cameras=cameras, times=range(count), metadata=metadata)
    said = {"coat": "red", "n": "2", "old": "true"} if narrow else {"coat": "red"}
    limits = Filter(("1", "2"), since=300, until="3500", metadata=said)
    allowed = [
        300 <= i <= 3500
        and cameras[i] in "12"
        and coats[i] == "red"
        and (not narrow or bool(sizes[i] == 2 and olds[i]))
        for i in range(count)
    ]
    assert 8 < sum(allowed) < count / 8 if narrow else sum(allowed) > count / 8
    order = brute_order(queries, vectors)
    found = gallery.search(queries, fingerprint=MODEL, count=8, filter=limits)
    assert [numbers(matches) for matches in found] == [[i for i in row if allowed[i]][:8] for row in order]
    own = ["0", "1", None, "2", "", "1"]
    found = gallery.search(queries, fingerprint=MODEL, count=9, cameras=own)
    assert [numbers(matches) for matches in found] == [
        [i for i in row if not camera or cameras[i] != camera][:9] for camera, row in zip(own, order, strict=True)
    ]
    assert gallery.search(queries, fingerprint=MODEL, filter=Filter(("none",))) == [[]] * 6
    assert [entry.id for entry in gallery.entries(limits, limit=3)] == [str(i + 1) for i in range(count) if allowed[i]][
        :3
    ]


def test_what_is_known_comes_back(make, draw):
    gallery = make()
    ids = gallery.add(
        draw(2),
        fingerprint=MODEL,
        ids=["x", "y"],
        cameras=["gate", None],
        times=["2026-11-27T09:30", None],
        metadata=[{"a": [1, {"b": "ü"}]}, None],
        paths=["a b.jpg", None],
    )
    assert ids == ["x", "y"]
    assert list(gallery.entries()) == [
        Entry("x", "gate", "2026-11-27T09:30", {"a": [1, {"b": "ü"}]}, "a b.jpg"),
        Entry("y", None, None, {}, None),
    ]
    assert gallery.entry("x").camera == "gate" and len(gallery) == 2
    assert (gallery.vectors_of(["y", "x"]) == draw(2)[::-1]).all()
    assert (gallery.state.dimension, gallery.state.fingerprint, gallery.state.record) == (64, MODEL, '{"a": 1}')


def test_ids_are_never_given_twice(make, draw):
    gallery = make()
    assert gallery.add(draw(3), fingerprint=MODEL, ids=["2", "a", "b"]) == ["2", "a", "b"]
    assert gallery.add(draw(2), fingerprint=MODEL) == ["1", "3"]
    gallery.remove(["3", "a"])
    assert gallery.add(draw(1), fingerprint=MODEL) == ["4"]
    gallery.remove(["4"])
    for ids, message in ((["c", "a"], "'a' is not free"), (["c", "b"], "'b' is not free"), (["3", "c"], "'3' is not")):
        with pytest.raises(DataError, match=f"the id {message}.*choose another"):
            gallery.add(draw(2), fingerprint=MODEL, ids=ids)
    gallery.add(draw(1), fingerprint=MODEL, ids=["5"])
    assert gallery.add(draw(1), fingerprint=MODEL) == ["6"]
    assert [entry.id for entry in gallery.entries()] == ["2", "b", "1", "5", "6"]


def test_wrong_use_is_one_line_and_changes_nothing(make, draw, tmp_path):
    gallery = make()
    gallery.add(draw(5), fingerprint=MODEL)
    bad = draw(3)
    bad[1, 7] = np.nan
    wrong = {
        "of model a model, and these are of b: take that": lambda: gallery.add(draw(1), fingerprint="b"),
        "of model a model, and these are of an unknown": lambda: gallery.search(draw(1), fingerprint=""),
        r"are an array \(1, 32\)": lambda: gallery.add(draw(1, 32), fingerprint=MODEL),
        "an array .* of int64": lambda: gallery.search(np.zeros((1, 64), dtype=np.int64), fingerprint=MODEL),
        "vector 1 has a number that is NaN": lambda: gallery.add(bad, fingerprint=MODEL),
        r"no entry of index .* has the id '55' \(nearest: 5\)": lambda: gallery.remove(["1", "55"]),
        r"no entry of index .* has the id '77'": lambda: gallery.vectors_of(["77"]),
        "2 queries, but 1 cameras": lambda: gallery.search(draw(2), fingerprint=MODEL, cameras=["a"]),
        "is an index already: add to it": lambda: Gallery.create(gallery.folder, dimension=2, fingerprint="b"),
    }
    for message, call in wrong.items():
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert [entry.id for entry in gallery.entries()] == list("12345")
    assert (gallery.vectors_of(list("12345")) == draw(5)).all()


def test_a_folder_that_is_no_index(tmp_path, draw):
    with pytest.raises(DataError, match=r"is no index, it has no gallery\.sqlite: build one"):
        Gallery(str(tmp_path))
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"has other files \(a.jpg\): choose one that is empty"):
        Gallery.create(str(tmp_path), dimension=4, fingerprint=MODEL)
    with pytest.raises(SetupError, match="cannot be made"):
        Gallery.create(str(tmp_path / "a.jpg" / "b"), dimension=4, fingerprint=MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_an_empty_index_is_built_anew(tmp_path, draw):
    Gallery.create(str(tmp_path / "index"), dimension=4, fingerprint="first").close()
    with Gallery.create(str(tmp_path / "index"), dimension=8, fingerprint=MODEL) as gallery:
        assert gallery.search(draw(2, 8), fingerprint=MODEL) == [[], []]
        assert gallery.add(np.empty((0, 8), dtype=np.float32), fingerprint=MODEL) == []
        gallery.add(draw(2, 8), fingerprint=MODEL)
        assert len(gallery) == 2


def test_zero_vectors_are_at_distance_one_of_all(make, draw):
    vectors = draw(3000)
    vectors[5] = 0
    gallery = make()
    gallery.add(vectors, fingerprint=MODEL)
    found = {match.entry.id: match.distance for match in gallery.search(draw(1), fingerprint=MODEL, count=3000)[0]}
    assert found["6"] == 1 and len(found) == 3000
    zero = np.zeros((1, 64), dtype=np.float32)
    assert numbers(gallery.search(zero, fingerprint=MODEL, count=5)[0]) == [0, 1, 2, 3, 4]


def test_no_training_stack_is_imported():
    code = (
        "import sys, mgre.gallery, mgre.gallery.checking, mgre.gallery.features_file\n"
        "print(sorted({'torch', 'fastreid', 'faiss', 'scipy', 'cv2'} & set(sys.modules)))"
    )
    environment = {**os.environ, "MGRE_INFERENCE_ONLY": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
