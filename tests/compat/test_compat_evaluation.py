import itertools
import subprocess

import numpy as np
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.evaluation import ReidEvaluator, query_expansion, rank, reid_evaluation, roc
from fastreid.utils import compute_dist
from mgre.compat import evaluation
from mgre.errors import ConfigError, DataError
from mgre.evaluation import distances, reranking
from mgre.evaluation import query_expansion as expansion
from mgre.evaluation.distances import DistanceRows
from mgre.evaluation.placement import place


def random_features(num_query: int = 20, num_gallery: int = 60, num_pids: int = 8):
    generator = torch.Generator().manual_seed(0)
    num_images = num_query + num_gallery
    pids = torch.randint(num_pids, (num_images,), generator=generator)
    centres = torch.randn(num_pids, 16, generator=generator)
    feats = centres[pids] + 2 * torch.randn(num_images, 16, generator=generator)
    return feats, pids, torch.randint(4, (num_images,), generator=generator)


def evaluate(cfg, features, num_query: int) -> dict:
    feats, pids, camids = features
    evaluator = ReidEvaluator(cfg, num_query)
    for start in range(0, len(feats), 7):
        batch = slice(start, start + 7)
        evaluator.process({"targets": pids[batch], "camids": camids[batch]}, feats[batch])
    return evaluator.evaluate()


def naive_results(dist, features, num_query: int) -> dict:
    """The Market-1501 protocol, query by query and rank by rank."""
    _, pids, camids = (f.tolist() for f in features)
    precisions, penalties, first = [], [], []
    for q in range(num_query):
        kept = [g for g in range(num_query, len(pids)) if not (pids[g] == pids[q] and camids[g] == camids[q])]
        order = sorted(kept, key=lambda g: dist[q][g - num_query])
        places = [place for place, g in enumerate(order, 1) if pids[g] == pids[q]]
        if places:
            precisions.append(sum(n / place for n, place in enumerate(places, 1)) / len(places))
            penalties.append(len(places) / places[-1])
            first.append(places[0])
    results = {f"Rank-{r}": 100 * np.mean([f <= r for f in first]) for r in (1, 5, 10)}
    return results | {"mAP": 100 * np.mean(precisions), "mINP": 100 * np.mean(penalties)}


def naive_expansion(feats, k: int, alpha: float):
    """Each feature becomes the mean of its k nearest by cosine, weighted by the cosine to the power alpha."""
    unit = feats / feats.norm(dim=1, keepdim=True)
    expanded = []
    for cosines in unit @ unit.T:
        nearest = cosines.argsort(descending=True)[:k]
        expanded.append((feats[nearest] * cosines[nearest, None] ** alpha).mean(0))
    return torch.stack(expanded)


def naive_jaccard(feats: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """k-reciprocal encoding (Zhong et al., CVPR 2017, Sec. 3) by sets; an image is the first of its own k nearest."""
    num = len(feats)
    squared = [[float(((a - b) ** 2).sum()) for b in feats] for a in feats]
    ranked = [sorted(range(num), key=lambda j, i=i: squared[i][j]) for i in range(num)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in ranked[i][:k] if i in ranked[j][:k]}

    encoded = np.zeros((num, num))
    half = int(np.around(k1 / 2))
    for i in range(num):
        near = reciprocal(i, k1)
        expanded = set(near)
        for j in near:
            # The half-size set counts one neighbour more, as in the original code.
            candidate = reciprocal(j, half + 1)
            if len(candidate & near) > 2 / 3 * len(candidate):
                expanded |= candidate
        weights = {j: np.exp(-squared[i][j]) for j in expanded}
        for j, weight in weights.items():
            encoded[i, j] = weight / sum(weights.values())
    encoded = np.stack([encoded[ranked[i][:k2]].mean(0) for i in range(num)])
    distances = np.empty((num, num))
    for i, j in itertools.product(range(num), repeat=2):
        distances[i, j] = 1 - np.minimum(encoded[i], encoded[j]).sum() / np.maximum(encoded[i], encoded[j]).sum()
    return distances


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"started {args}")

    monkeypatch.setattr(subprocess, "run", refuse)


def naive_distances(feats, metric: str) -> np.ndarray:
    feats = feats.double()
    if metric == "cosine":
        unit = feats / feats.norm(dim=1, keepdim=True)
        return (1 - unit @ unit.T).numpy()
    return np.array([[float((a - b).square().sum()) for b in feats] for a in feats])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("rerank", [False, True])
def test_evaluator_with_every_switch(metric, expand, rerank):
    cfg = get_cfg()
    cfg.TEST.METRIC = metric
    cfg.TEST.AQE.ENABLED = expand
    cfg.TEST.RERANK.ENABLED = rerank
    cfg.TEST.ROC.ENABLED = True
    num_query, features = 20, random_features()
    results = evaluate(cfg, features, num_query)

    feats = features[0]
    for _ in range(cfg.TEST.AQE.QE_TIME if expand else 0):
        feats = naive_expansion(feats, cfg.TEST.AQE.QE_K, cfg.TEST.AQE.ALPHA)
    dist = naive_distances(feats, metric)
    if rerank:
        unit = feats / feats.norm(dim=1, keepdim=True) if metric == "cosine" else feats
        jaccard = naive_jaccard(unit.double().numpy(), cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2)
        dist = jaccard * (1 - cfg.TEST.RERANK.LAMBDA) + dist * cfg.TEST.RERANK.LAMBDA
    dist = dist[:num_query, num_query:]
    for name, value in naive_results(dist, features, num_query).items():
        assert results[name] == pytest.approx(value, abs=1e-4), name

    _, pids, camids = (f.numpy() for f in features)
    same = pids[:num_query, None] == pids[None, num_query:]
    kept = ~(same & (camids[:num_query, None] == camids[None, num_query:]))
    # The toolbox counts a pair as found where its distance is a threshold's or more, and a match among them as false.
    # Of some hundred matches, one false comes nearest to 1%: the threshold lies between the two farthest.
    second, first = np.sort(dist[kept & same])[-2:]
    others = dist[kept & ~same]
    assert np.mean(others >= first) - 1e-9 <= results["TPR@FPR=1e-02"] <= np.mean(others > second) + 1e-9


def test_gallery_of_five_images():
    cfg = get_cfg()
    cfg.TEST.RERANK.ENABLED = True
    feats, pids, camids = random_features(num_query=3, num_gallery=5, num_pids=2)
    results = evaluate(cfg, (feats, pids, camids), num_query=3)
    assert results["Rank-10"] == 100
    assert 0 < results["mAP"] <= 100


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_stop_the_ranking(value):
    feats, pids, camids = random_features()
    feats[17, 3] = value
    with pytest.raises(DataError, match=r"distances of query 17 are not numbers"):
        evaluate(get_cfg(), (feats, pids, camids), num_query=20)


def test_distances_and_neighbours_are_computed_where_they_are_placed(monkeypatch):
    seen = []
    monkeypatch.setattr(evaluation, "cosine_rows", lambda *feats: seen.append([f.device.type for f in feats]))
    monkeypatch.setattr(reranking, "jaccard_rows", lambda feats, *_, **__: seen.append([feats.device.type]))
    monkeypatch.setattr(expansion, "expand", lambda *feats: seen.append([f.device.type for f in feats]))
    features = torch.eye(4)[:2], torch.eye(4)[2:]

    def compute():
        reid_evaluation.build_dist(*features, metric="cosine")
        reid_evaluation.build_dist(*features, metric="jaccard")
        query_expansion.aqe(*features)

    compute()
    with place(torch.device("meta")):
        compute()
    assert seen == [["cpu", "cpu"], ["cpu"], ["cpu", "cpu"], ["meta", "meta"], ["meta"], ["meta", "meta"]]


def test_an_empty_gallery():
    feats, pids, camids = random_features(num_query=20, num_gallery=0)
    for rerank in (False, True):
        cfg = get_cfg()
        cfg.TEST.RERANK.ENABLED = rerank
        with pytest.raises(DataError, match="no query has a match"):
            evaluate(cfg, (feats, pids, camids), num_query=20)


def test_single_shot_protocol_of_cuhk03():
    # Each gallery identity has one image, so nothing is left to the protocol's sampling: the match comes 2nd of 3.
    dist = np.array([[0.2, 0.1, 0.3]])
    cmc, mean_precision = rank.evaluate_rank(
        dist, np.array([0]), np.array([0, 1, 2]), np.array([0]), np.array([1, 1, 1]), 3, use_metric_cuhk03=True
    )
    assert cmc.tolist() == [0, 1, 1]
    assert mean_precision == pytest.approx(0.5)


def test_single_shot_protocol_samples_as_the_toolbox_does():
    rng = np.random.default_rng(0)
    queries, gallery = torch.randn(6, 5), torch.randn(40, 5)
    labels = [rng.integers(0, 4, 6), rng.integers(0, 4, 40), np.zeros(6, int), rng.integers(0, 2, 40)]
    rows = reid_evaluation.build_dist(queries, gallery, metric="cosine")
    array = compute_dist.build_dist.__wrapped__(queries, gallery, metric="cosine")
    results = []
    for dist in (rows, array):
        np.random.seed(0)
        results.append(rank.evaluate_rank(dist, *labels, 5, use_metric_cuhk03=True))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-12)


def test_distances_take_what_the_toolboxs_take():
    features = torch.randn(9, 5).requires_grad_()
    for metric in ("cosine", "euclidean", "jaccard"):
        found = compute_dist.build_dist(features[:4], features[4:].double().float(), metric=metric, k1=4, k2=2)
        assert found.shape == (4, 5)
    assert compute_dist.compute_jaccard_distance(features.double(), k1=4, k2=2).shape == (9, 9)
    with pytest.raises(ConfigError, match="'manhattan'; allowed: cosine, euclidean, jaccard"):
        compute_dist.build_dist(features, features, metric="manhattan")


@pytest.mark.parametrize("has_bool", [False, True])
def test_bool_is_named_where_numpy_lacks_it(monkeypatch, has_bool):
    class Numpy:
        bool_ = np.bool_

    if has_bool:
        Numpy.bool = np.bool_
    monkeypatch.setattr(evaluation, "np", Numpy)
    monkeypatch.setattr(rank, "np", np)
    evaluation.name_bool()
    assert (rank.np is np) == has_bool
    assert rank.np.zeros(2, dtype=rank.np.bool).tolist() == [False, False]


@pytest.mark.parametrize("search_option", [0, 3])
def test_jaccard_distance_of_all_images(search_option):
    feats = torch.nn.functional.normalize(random_features(10, 30)[0], dim=1)
    ours = compute_dist.compute_jaccard_distance(feats, k1=12, k2=4, search_option=search_option)
    theirs = compute_dist.compute_jaccard_distance.__wrapped__(feats, 12, 4, 3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours, naive_jaccard(feats.double().numpy(), 12, 4), atol=2e-6)
    assert ours.dtype == theirs.dtype
    half = compute_dist.compute_jaccard_distance(feats, k1=12, k2=4, fp16=True)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, ours, atol=1e-3)


def test_jaccard_distance_with_fewer_images_than_neighbours():
    feats = torch.nn.functional.normalize(random_features(2, 5)[0], dim=1)
    ours = compute_dist.compute_jaccard_distance(feats, k1=20, k2=6)
    np.testing.assert_allclose(ours, naive_jaccard(feats.double().numpy(), 7, 6), atol=2e-6)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "jaccard"])
def test_others_than_the_evaluator_get_an_array(metric):
    feats = torch.nn.functional.normalize(random_features(10, 30)[0], dim=1)
    options = {"k1": 12, "k2": 4} if metric == "jaccard" else {}
    measured = compute_dist.build_dist(feats[:10], feats[10:], metric, **options)
    assert isinstance(measured, np.ndarray)
    # The toolbox's own, but for its search, which needs CUDA.
    theirs = (
        compute_dist.compute_jaccard_distance.__wrapped__(feats, 12, 4, 3)[:10, 10:]
        if metric == "jaccard"
        else naive_distances(feats, metric)[:10, 10:]
    )
    np.testing.assert_allclose(measured, theirs, atol=1e-5)


def test_the_evaluator_never_holds_all_distances(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the whole array was made")

    cfg = get_cfg()
    cfg.TEST.RERANK.ENABLED = True
    expected = evaluate(cfg, random_features(), num_query=20)
    monkeypatch.setattr(DistanceRows, "__array__", refuse)
    monkeypatch.setattr(distances, "BLOCK_SIZE", 100)
    monkeypatch.setattr(distances, "MIN_ROWS", 2)
    assert evaluate(cfg, random_features(), num_query=20) == expected


def test_applied_twice_changes_nothing():
    before = reid_evaluation.build_dist, compute_dist.build_dist, rank.eval_market1501, roc.evaluate_roc
    for adaptation in evaluation.ADAPTATIONS:
        adaptation()
    assert before == (reid_evaluation.build_dist, compute_dist.build_dist, rank.eval_market1501, roc.evaluate_roc)
