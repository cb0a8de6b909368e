"""Order and distances of the evaluator, plain and re-ranked."""

import sys

import numpy as np
import pytest
import torch
from fastreid.evaluation import reid_evaluation
from mgre.errors import SetupError
from mgre.evaluation.distances import cosine_rows
from mgre.gallery import Rerank
from torch.nn import functional as F

MODEL = "a model"
NUM_QUERY, NUM_GALLERY = 40, 400
ALL = Rerank(first=NUM_GALLERY, k1=8, k2=3, weight=0.3)


@pytest.fixture
def people(draw) -> np.ndarray:
    """(N, 64): queries and gallery, some 11 crops of each of 40 people, and a duplicate."""
    random = np.random.default_rng(0)
    people = draw(40, seed=1)[random.integers(40, size=NUM_QUERY + NUM_GALLERY)]
    people += 0.3 * np.linalg.norm(people, axis=1)[:, None] * draw(len(people), seed=2) / 9
    people[NUM_QUERY + 200] = people[NUM_QUERY + 20]
    return people


def evaluator_rows(people: np.ndarray, rerank: Rerank | None) -> np.ndarray:
    """The distances that the toolbox's ReidEvaluator ranks, line by line as in its ``evaluate``."""
    query, gallery = torch.from_numpy(people).split([NUM_QUERY, NUM_GALLERY])
    rows = reid_evaluation.build_dist(query, gallery, "cosine")
    if rerank:
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
        again = reid_evaluation.build_dist(query, gallery, metric="jaccard", k1=rerank.k1, k2=rerank.k2)
        rows = again * (1 - rerank.weight) + rows * rerank.weight
    return np.asarray(rows)


def test_the_plain_order_is_the_evaluator_s(make, people):
    """Exactly where its distances are computed in float64; with those of float32, but for ties by its rounding."""
    gallery = make()
    gallery.add(people[NUM_QUERY:], fingerprint=MODEL)
    found = gallery.search(people[:NUM_QUERY], fingerprint=MODEL, count=NUM_GALLERY)
    orders = np.array([[int(match.entry.id) - 1 for match in matches] for matches in found])
    apart = [i for i in range(NUM_GALLERY) if i != 200]  # the duplicate
    query, rest = torch.from_numpy(people.astype(np.float64)).split([NUM_QUERY, NUM_GALLERY])
    precise = cosine_rows(query, rest[apart]).rows(0, NUM_QUERY)
    expected = np.array(apart)[np.argsort(precise, axis=1, kind="stable")]
    assert [[i for i in order if i != 200] for order in orders.tolist()] == expected.tolist()
    assert all(order.index(20) + 1 == order.index(200) for order in orders.tolist())  # in the gallery's order

    rows = np.take_along_axis(evaluator_rows(people, None), orders, axis=1)
    assert np.abs(rows - [[match.distance for match in matches] for matches in found]).max() < 1e-6
    assert np.diff(rows, axis=1).min() > -1e-6


def test_re_ranking_all_is_exactly_the_evaluator_s(make, people):
    gallery = make()
    gallery.add(people[NUM_QUERY:], fingerprint=MODEL)
    rows = evaluator_rows(people, ALL)
    found = gallery.search(people[:NUM_QUERY], fingerprint=MODEL, count=NUM_GALLERY, rerank=ALL)
    for row, matches in zip(rows, found, strict=True):
        order = np.argsort(row, kind="stable")
        assert [int(match.entry.id) - 1 for match in matches] == order.tolist()
        assert [match.distance for match in matches] == row[order].tolist()
    plain = gallery.search(people[:NUM_QUERY], fingerprint=MODEL, count=NUM_GALLERY)
    assert found != plain
    cosines = {match.entry.id: match.cosine for match in plain[0]}
    assert all(match.cosine == cosines[match.entry.id] for match in found[0])


def test_re_ranking_the_first_changes_only_their_order(make, people):
    gallery = make()
    cameras = [str(i % 3) for i in range(NUM_GALLERY)]
    gallery.add(people[NUM_QUERY:], fingerprint=MODEL, cameras=cameras)
    options = {"fingerprint": MODEL, "cameras": ["0", "1"] * (NUM_QUERY // 2)}
    first = gallery.search(people[:NUM_QUERY], count=30, **options)
    found = gallery.search(people[:NUM_QUERY], count=30, rerank=Rerank(first=30, k1=8, k2=3), **options)
    assert [{m.entry.id for m in matches} for matches in found] == [{m.entry.id for m in matches} for matches in first]
    assert [[m.entry.id for m in matches] for matches in found] != [[m.entry.id for m in matches] for matches in first]
    fewer = gallery.search(people[:NUM_QUERY], count=4, rerank=Rerank(first=30, k1=8, k2=3), **options)
    assert fewer == [matches[:4] for matches in found]
    assert gallery.search(people[:0], fingerprint=MODEL, rerank=ALL) == []


def test_without_the_training_stack_it_is_one_line(make, people, monkeypatch):
    gallery = make()
    gallery.add(people, fingerprint=MODEL)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SetupError, match="re-ranking needs the training stack, and torch is not installed: search"):
        gallery.search(people[:1], fingerprint=MODEL, rerank=ALL)
