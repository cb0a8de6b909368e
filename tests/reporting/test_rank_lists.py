import os

import numpy as np
import pytest
from mgre.errors import DataError
from mgre.reporting.rank_lists import best, drawn, named, rank_lists, worst

# Query 0 (identity 1, camera 0): gallery 1 is its own camera's, and left out. Query 1: nobody of identity 9. Query 2
# (identity 2): gallery 3 and 0 are equally near, so they are in the gallery's order.
DISTANCES = [[0.1, 0.0, 0.2, 0.9, 0.3], [0.5, 0.4, 0.3, 0.2, 0.9], [0.2, 0.4, 0.3, 0.2, 0.5]]
LABELS = [1, 9, 2], [3, 1, 1, 2, 1], [0, 0, 0], [1, 0, 1, 1, 2]


def names_of(images):
    return [(os.path.basename(image.path), round(image.distance, 3), image.is_match) for image in images]


def test_a_list_is_the_hand_counted_one(make_evaluation):
    shown = rank_lists(make_evaluation(DISTANCES, *LABELS), [2, 0, 1], 2)
    assert [os.path.basename(one.path) for one in shown] == ["q2.png", "q0.png", "q1.png"]
    second, first, nobody = (one.orders["plain"] for one in shown)
    assert names_of(first.images) == [("g0.png", 0.1, False), ("g2.png", 0.2, True)]
    assert first.precision == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert first.first_rank == 2 and first.first_match is None
    assert names_of(second.images) == [("g0.png", 0.2, False), ("g3.png", 0.2, True)]
    assert nobody.first_rank == 0 and np.isnan(nobody.precision) and nobody.first_match is None
    assert [one.num_matches for one in shown] == [1, 2, 0]
    assert [one.camera for one in shown] == [1, 1, 1] and first.images[0].camera == 2


def test_a_first_match_after_the_list_is_given_too(make_evaluation):
    (shown,) = rank_lists(make_evaluation(DISTANCES, *LABELS), [0], 1)
    order = shown.orders["plain"]
    assert names_of(order.images) == [("g0.png", 0.1, False)]
    assert names_of([order.first_match]) == [("g2.png", 0.2, True)]
    assert {os.path.basename(path) for path in shown.paths} == {"q0.png", "g0.png", "g2.png"}


def test_a_list_of_all_images(make_evaluation):
    (shown,) = rank_lists(make_evaluation(DISTANCES, *LABELS), [0], 100)
    assert len(shown.orders["plain"].images) == 4


def test_both_orders_are_given(make_evaluation):
    (shown,) = rank_lists(make_evaluation(DISTANCES, *LABELS, reranked=1 - np.array(DISTANCES)), [0], 1)
    assert [names_of(order.images)[0][0] for order in shown.orders.values()] == ["g0.png", "g3.png"]


def test_worst_and_best_are_by_the_precision_of_the_final_order(make_evaluation):
    labels = [1, 1, 2, 9], [1, 2], [0, 0, 0, 0], [1, 1]
    plain = [[0.2, 0.1], [0.1, 0.2], [0.2, 0.1], [0.1, 0.2]]
    evaluation = make_evaluation(plain, *labels)
    assert worst(evaluation, 9) == [0, 1, 2] and best(evaluation, 2) == [1, 2]  # equal ones in their order
    reranked = make_evaluation(plain, *labels, reranked=[[0.1, 0.2], [0.2, 0.1], [0.2, 0.1], [0.1, 0.2]])
    assert worst(reranked, 1) == [1]


def test_drawn_queries_are_those_of_the_seed(make_evaluation):
    pids = list(range(50))
    evaluation = make_evaluation(np.eye(50, 49), pids, pids[:49], [0] * 50, [1] * 49)
    first = drawn(evaluation, 10, 1)
    assert first == drawn(evaluation, 10, 1) != drawn(evaluation, 10, 2)
    assert first == sorted(set(first)) and len(first) == 10
    assert drawn(evaluation, 99, 0) == list(range(49))  # the last one has no match


def test_queries_by_name(make_evaluation, monkeypatch, tmp_path):
    evaluation = make_evaluation(DISTANCES, *LABELS)
    monkeypatch.chdir(tmp_path)
    assert named(evaluation, ["q2.png", "query/q0.png", str(tmp_path / "query/q1.png"), "q2.png"]) == [2, 0, 1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("q9.png", r" \(nearest: q\d.png\)"), ("g1.png", r" \(it is an image of the gallery\)"), ("", "")],
)
def test_a_name_of_no_query_is_one_line(make_evaluation, name, reason):
    with pytest.raises(DataError, match=rf"^no query of Drawn is '{name}'{reason}; name a path .* 3 query images"):
        named(make_evaluation(DISTANCES, *LABELS), [name])
