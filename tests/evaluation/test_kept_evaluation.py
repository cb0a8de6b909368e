"""What the evaluator keeps for rank lists and reports, against evaluations that keep nothing."""

import numpy as np
import pytest
import torch
from mgre.config import load_config
from mgre.data import build_test_loader
from mgre.engine.trainer import Trainer
from mgre.evaluation.evaluator import OnePassEvaluator, evaluate


@pytest.fixture
def evaluated(tiny_run):
    """Evaluate the tiny run's model, not trained: the results and the evaluator."""

    def run(*overrides, keeps):
        cfg = load_config("configs/MGRe/Base-MGRe.yml", [*tiny_run, *overrides])
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        loader, num_query = build_test_loader(cfg, "CustomReID")
        evaluator = OnePassEvaluator(cfg, num_query)
        evaluator.keeps = keeps
        return evaluate(cfg, model, loader, evaluator, "CustomReID"), evaluator

    return run


@pytest.mark.parametrize(
    ("rerank", "overrides"),
    [
        (False, ()),
        (True, ()),
        (True, ("TEST.METRIC", "euclidean")),
        (
            True,
            ("TEST.AQE.ENABLED", "True", "TEST.AQE.QE_K", "3", "TEST.FLIP.ENABLED", "True", "TEST.IMS_PER_BATCH", "5"),
        ),
    ],
)
def test_keeping_changes_no_figure_and_the_lists_have_them(evaluated, rerank, overrides):
    reranking = ("TEST.RERANK.K1", "4", "TEST.RERANK.K2", "2", "TEST.RERANK.ENABLED")
    results, evaluator = evaluated(*overrides, *reranking, str(rerank), keeps=True)
    expected, nothing = evaluated(*overrides, *reranking, str(rerank), keeps=False)
    assert results == expected and nothing.evaluation is None
    kept = evaluator.evaluation
    assert list(kept.orders) == list(kept.metrics) == ["plain", "re-ranked"][: 1 + rerank]
    assert kept.name == "CustomReID" and kept.overlaps == {k: v for k, v in results.items() if k.startswith("IoU/")}
    assert kept.final is list(kept.orders.values())[-1]
    plain, _ = evaluated(*overrides, keeps=False)
    for name, of_config in zip(kept.orders, (plain, expected), strict=False):
        ranked = kept.orders[name]
        # Counted from the lists, one after the other.
        firsts, precisions = [], []
        for query, images, _ in ranked.sorted_galleries(range(6)):
            pids = ranked.gallery_pids[images]
            ranks = np.flatnonzero(pids == ranked.query_pids[query]) + 1
            firsts.append(ranks[0])
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            identity = f"{ranked.query_pids[query]:04d}_c{ranked.query_camids[query] + 1}"
            assert f"/query/{identity}" in kept.query_paths[query]
        for rank in (1, 5):
            assert of_config[f"Rank-{rank}"] == pytest.approx(100 * np.mean(np.array(firsts) <= rank), rel=1e-6)
        assert of_config["mAP"] == pytest.approx(100 * np.mean(precisions), rel=1e-9)
        assert of_config["mAP"] == kept.metrics[name]["mAP"]
    for path, pid in zip(kept.gallery_paths, ranked.gallery_pids, strict=True):
        assert f"/bounding_box_test/{pid:04d}_" in path


def test_unreadable_images_are_left_out_of_the_paths(evaluated, tmp_path):
    for name in ("query/0022_c1s1_000001_00.jpg", "bounding_box_test/0021_c1s1_000002_00.jpg"):
        (tmp_path / "own" / name).write_bytes(b"")
    _, evaluator = evaluated("DATASETS.UNREADABLE_IMAGES", "skip", keeps=True)
    kept = evaluator.evaluation
    assert len(kept.query_paths) == len(kept.gallery_paths) == 5
    assert kept.final.distances.shape == (5, 5)
    assert all("/query/" in path for path in kept.query_paths)
