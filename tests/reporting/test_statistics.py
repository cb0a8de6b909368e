import math

import numpy as np
import pytest
from mgre.evaluation.ranking import QueryFigures, eval_market1501
from mgre.reporting.statistics import FIGURES, count, figure_intervals, survey


def figures(first_ranks, precisions, penalties) -> QueryFigures:
    return QueryFigures(np.array(first_ranks), np.array(precisions, dtype=float), np.array(penalties, dtype=float))


def test_an_interval_of_a_share_is_the_binomial_one():
    """Of 400 queries 300 have their match first: the standard deviation of the share is sqrt(0.75 0.25 / 400)."""
    found = figure_intervals(figures([1] * 300 + [7] * 100, [1.0] * 300 + [0.2] * 100, [0.5] * 400))
    rank1, deviation = found["Rank-1"], 100 * math.sqrt(0.75 * 0.25 / 400)
    assert rank1.value == 75
    assert rank1.low == pytest.approx(75 - 1.96 * deviation, abs=0.4)
    assert rank1.high == pytest.approx(75 + 1.96 * deviation, abs=0.4)
    assert found["mAP"].value == pytest.approx(80)
    # mAP is 20 + 80 of the share here.
    assert found["mAP"].low == pytest.approx(20 + 0.8 * rank1.low)
    assert found["Rank-10"] == found["Rank-10"].__class__(100, 100, 100)
    assert (found["mINP"].low, found["mINP"].high) == (pytest.approx(50), pytest.approx(50))


def test_queries_without_a_match_are_not_drawn():
    found = figure_intervals(figures([1, 0, 0], [1.0, np.nan, np.nan], [1.0, np.nan, np.nan]))
    assert all((i.value, i.low, i.high) == (100, 100, 100) for i in found.values()) and tuple(found) == FIGURES


def test_figures_are_those_of_the_evaluation(small_evaluation):
    evaluation = small_evaluation(rerank=True)
    for name, ranked in evaluation.orders.items():
        found = figure_intervals(ranked.figures, num_samples=10)
        assert {key: i.value for key, i in found.items()} == pytest.approx(evaluation.metrics[name], rel=1e-6)


@pytest.fixture
def problem(make_evaluation, monkeypatch):
    monkeypatch.setattr("mgre.evaluation.distances.MIN_ROWS", 7)  # several blocks
    monkeypatch.setattr("mgre.evaluation.distances.BLOCK_SIZE", 1)
    rng = np.random.default_rng(0)
    distances = rng.normal(0.6, 0.2, (20, 60))
    q_pids, g_pids, q_camids, g_camids = (rng.integers(0, n, m) for n, m in ((5, 20), (6, 60), (3, 20), (4, 60)))
    return make_evaluation(distances, q_pids, g_pids, q_camids, g_camids).final


def test_map_of_a_pair_of_cameras_is_that_of_their_images_alone(problem):
    pairs, _ = survey(problem, cosine=True)
    assert pairs.query_cameras == [1, 2, 3] and pairs.gallery_cameras == [1, 2, 3, 4]
    distances = np.asarray(problem.distances)
    for row in range(3):
        for column in range(4):
            queries, gallery = problem.query_camids == row, problem.gallery_camids == column
            if row == column:
                assert np.isnan(pairs.precisions[row, column]) and pairs.counts[row, column] == 0
                continue
            _, precisions, _ = eval_market1501(
                distances[queries][:, gallery],
                problem.query_pids[queries],
                problem.gallery_pids[gallery],
                problem.query_camids[queries],
                problem.gallery_camids[gallery],
            )
            assert pairs.precisions[row, column] == pytest.approx(100 * np.mean(precisions))
            assert pairs.counts[row, column] == len(precisions)


@pytest.mark.parametrize("cosine", [True, False])
def test_scores_are_counted_over_different_cameras(problem, cosine):
    _, scores = survey(problem, cosine=cosine)
    distances = np.asarray(problem.distances)
    matches, others = [], []
    for query in range(20):
        for image in range(60):
            if problem.query_camids[query] != problem.gallery_camids[image]:
                same = problem.query_pids[query] == problem.gallery_pids[image]
                score = 1 - distances[query, image] if cosine else distances[query, image]
                (matches if same else others).append(score.clip(scores.edges[0] + 1e-6, scores.edges[-1] - 1e-6))
    for counted, values in ((scores.matches, matches), (scores.others, others)):
        assert counted.sum() == len(values)
        expected = np.histogram(values, scores.edges)[0]
        assert np.abs(counted - expected).sum() <= 2  # a score on an edge may round to either side


def test_counts(make_evaluation):
    ranked = make_evaluation(np.zeros((3, 4)), [1, 1, 9], [1, 2, 2, 3], [0, 1, 0], [2, 2, 1, 1]).final
    found = count(ranked)
    assert found.rows == {"query": (3, 2, 2), "gallery": (4, 3, 2)}
    assert found.distractors == 3 and found.without_match == 1
