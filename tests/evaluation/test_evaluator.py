"""The evaluation in one pass, against the toolbox's evaluator and a second pass for the regions."""

import gc
import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from fastreid.evaluation import ReidEvaluator, inference_on_dataset
from fastreid.utils import comm
from mgre.config import load_config
from mgre.data import build_test_loader
from mgre.engine import trainer as trainer_module
from mgre.engine.trainer import Trainer
from mgre.errors import DataError
from mgre.evaluation import reranking
from mgre.evaluation.evaluator import OnePassEvaluator, RegionIoU, evaluate, has_regions
from mgre.evaluation.neighbours import nearest_neighbours
from mgre.evaluation.placement import Placement, placement
from mgre.geometry import boxes_from_keypoints
from mgre.regions import TABLE1
from PIL import Image
from torch import nn

# Whatever makes the host wait for a GPU.
HOST_READS = ("cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__")


@pytest.fixture
def load(toy_run):
    """The toy run's config, with overrides: 6 query and 6 gallery images."""

    def load_small(*overrides):
        return load_config("configs/MGRe/Base-MGRe.yml", [*toy_run, *overrides])

    return load_small


@pytest.fixture
def build():
    """The config's model, in which each image has boxes of its own."""

    def build_model(cfg):
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        for location in getattr(model, "location", {}).values():
            nn.init.normal_(location.predictor.weight, std=0.1)
        return model

    return build_model


def run(cfg, model):
    """One evaluation: the features in the images' order, and the results."""
    loader, num_query = build_test_loader(cfg, "CustomReID")
    evaluator, kept = OnePassEvaluator(cfg, num_query), []
    rank = ReidEvaluator.evaluate

    def keep(self):
        kept.append(self._predictions[0]["feats"])
        return rank(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReidEvaluator, "evaluate", keep)
        results = evaluate(cfg, model, loader, evaluator, "CustomReID")
    assert evaluator._predictions == []  # nothing is held until the next evaluation
    return kept[0], results


# -- Against the toolbox --------------------------------------------------------------------------


def naive_iou(box, other) -> float:
    width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1))
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return width * height / (sum(areas) - width * height)


def second_pass(model, loader) -> dict[str, float]:
    """Mean IoU of each region over the images that have it, image by image."""
    found: dict[str, list[float]] = {}
    for batch in loader:
        boxes = model.eval().predict_boxes(batch)
        targets, valid = boxes_from_keypoints(batch["keypoints"], TABLE1)
        for image in range(len(targets)):
            for number, region in enumerate(TABLE1):
                if valid[image, number]:
                    iou = naive_iou(boxes[region.name][image].tolist(), targets[image, number].tolist())
                    found.setdefault(f"IoU/{region.name}", []).append(iou)
    means = {name: np.mean(values) for name, values in found.items()}
    return means | {"IoU/mean": np.mean(list(means.values()))}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("TEST.FLIP.ENABLED", "True"),
        ("MODEL.MGRE.REGION_FEATURES", "False"),
        ("TEST.IMS_PER_BATCH", "5", "TEST.AQE.ENABLED", "True", "TEST.METRIC", "euclidean"),
    ],
)
def test_features_metrics_and_iou_are_those_of_two_passes(load, build, overrides):
    cfg = load(*overrides)
    model = build(cfg).train()
    features, results = run(cfg, model)
    assert model.training

    loader, num_query = build_test_loader(cfg, "CustomReID")
    toolbox = ReidEvaluator(cfg, num_query)
    metrics = inference_on_dataset(model, loader, toolbox, flip_test=cfg.TEST.FLIP.ENABLED)
    torch.testing.assert_close(features, torch.cat([prediction["feats"] for prediction in toolbox._predictions]))
    expected = metrics | second_pass(model, loader)
    assert results.keys() == expected.keys()
    assert results == pytest.approx(expected, rel=1e-5)


def test_a_baseline_is_evaluated_too(load, build):
    cfg = load(
        *("MODEL.META_ARCHITECTURE", "Baseline", "MODEL.BACKBONE.NAME", "build_resnet_backbone"),
        *("MODEL.HEADS.NAME", "EmbeddingHead", "MODEL.BACKBONE.FEAT_DIM", "512", "MODEL.BACKBONE.DEPTH", "18x"),
    )
    model = build(cfg)
    _, results = run(cfg, model)
    loader, num_query = build_test_loader(cfg, "CustomReID")
    assert results == inference_on_dataset(model, loader, ReidEvaluator(cfg, num_query))


def test_several_test_sets_and_their_loaders_are_kept(load, build, tmp_path, make_market_folder, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    make_market_folder(tmp_path / "Market-1501-v15.09.15")  # has no key points
    cfg = load("DATASETS.TESTS", "('CustomReID', 'Market1501')")
    model, test_sets = build(cfg), {}
    first = Trainer.test(cfg, model, test_sets)
    kept = dict(test_sets)
    assert list(first) == list(kept) == ["CustomReID", "Market1501"]
    assert ["IoU/mean" in results for results in first.values()] == [True, False]
    assert first["Market1501"] == Trainer.test(load("DATASETS.TESTS", "('Market1501',)"), model)
    assert Trainer.test(cfg, model, test_sets) == first
    assert all(test_sets[name] is kept[name] for name in kept)


def test_a_training_makes_its_test_loader_once_and_logs_each_evaluation(toy_run, tmp_path, monkeypatch):
    made = []
    build = trainer_module.build_test_loader
    monkeypatch.setattr(trainer_module, "build_test_loader", lambda *args: made.append(args) or build(*args))
    trainer = Trainer(load_config("configs/MGRe/Base-MGRe.yml", [*toy_run, "SOLVER.MAX_EPOCH", "3"]))
    results = trainer.train()
    assert len(made) == 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    logged = [line["mAP"] for line in lines if "mAP" in line]
    assert len(logged) == 3 and logged[-1] == results["mAP"]
    assert lines[-1]["IoU/mean"] == results["IoU/mean"]


# -- Region IoU -----------------------------------------------------------------------------------


def keypoints_for(box_of: dict[str, tuple[float, float, float, float]]) -> torch.Tensor:
    """(17, 3): two trusted points a margin inside the corners of each named region's box, on points of its own."""
    keypoints = torch.zeros(17, 3)
    own = {"head": (0, 1), "left_torso": (7, 9), "legs": (15, 16)}
    for name, (x_min, y_min, x_max, y_max) in box_of.items():
        first, second = own[name]
        keypoints[first] = torch.tensor([x_min + 0.05, y_min + 0.05, 1.0])
        keypoints[second] = torch.tensor([x_max - 0.05, y_max - 0.05, 1.0])
    return keypoints


def test_mean_over_the_images_that_have_the_region(build_small):
    model = build_small().eval()
    head = (3 / 8, 1 / 12 - 1 / 16, 5 / 8, 1 / 12 + 1 / 16)  # the prior, which the fresh model predicts: IoU 1
    left_half = (3 / 8, 1 / 12 - 1 / 16, 1 / 2, 1 / 12 + 1 / 16)  # IoU 1/2
    left_torso = (1 / 4, 1 / 12, 3 / 4, 7 / 12)
    overlap = RegionIoU(model)
    _, boxes = model.embed_and_locate({"images": torch.rand(1, 3, 64, 32) * 255})
    for keypoints in (
        keypoints_for({"head": head, "left_torso": left_torso}),
        keypoints_for({"head": left_half}),
        torch.zeros(17, 3),
    ):
        overlap.add(boxes, keypoints[None])
    figures = overlap.means()
    assert abs(figures["IoU/head"] - 0.75) < 1e-5
    assert abs(figures["IoU/left_torso"] - 1.0) < 1e-5
    assert "IoU/right_torso" not in figures and "IoU/legs" not in figures
    named = [figures[f"IoU/{r.name}"] for r in TABLE1 if f"IoU/{r.name}" in figures]
    assert abs(figures["IoU/mean"] - sum(named) / len(named)) < 1e-9
    assert RegionIoU(model).means() == {}


def test_only_an_mgre_with_stages_has_regions(build_small):
    assert has_regions(build_small())
    assert not has_regions(build_small(**{"MODEL.MGRE.STAGES": "()"}))
    assert not has_regions(nn.Identity())


@pytest.mark.parametrize("overrides", [("TEST.REGION_IOU.ENABLED", "False"), ("MODEL.MGRE.BOXES", "keypoints")])
def test_no_iou_where_it_is_not_wanted_or_nothing_is_predicted(load, build, overrides):
    cfg = load(*overrides)
    assert not any(name.startswith("IoU") for name in run(cfg, build(cfg))[1])


# -- What the host waits for ----------------------------------------------------------------------


def count_host_reads(cfg, model) -> Counter:
    """The host's reads of tensors while the batches, which are loaded before, are evaluated."""
    loader, num_query = build_test_loader(cfg, "CustomReID")
    batches = Batches(loader)
    evaluator, reads = OnePassEvaluator(cfg, num_query), Counter()
    with pytest.MonkeyPatch.context() as patch:
        # The ranking, which is on the host, is not of interest.
        patch.setattr(ReidEvaluator, "evaluate", lambda self: {})
        for name in HOST_READS:
            original = getattr(torch.Tensor, name)

            def counted(*args, name=name, original=original, **kwargs):
                reads[name] += 1
                return original(*args, **kwargs)

            patch.setattr(torch.Tensor, name, counted)
        evaluate(cfg, model, batches, evaluator, "CustomReID")
    return reads


class Batches(list):
    def __init__(self, loader):
        super().__init__(loader)
        self.dataset = loader.dataset


@pytest.mark.parametrize("flip", ["False", "True"])
def test_the_host_reads_the_results_once_however_many_batches(load, build, flip):
    few = load("TEST.IMS_PER_BATCH", "6", "TEST.FLIP.ENABLED", flip)
    many = load("TEST.IMS_PER_BATCH", "1", "TEST.FLIP.ENABLED", flip)
    model = build(few)
    reads = count_host_reads(many, model)
    assert reads == count_host_reads(few, model)
    # Whether the features are finite, identities and cameras; and the IoU of all regions. The features stay.
    assert reads["cpu"] == 4 and reads.total() < 15


@pytest.mark.parametrize("num_processes", [1, 2])
def test_distances_are_computed_where_the_model_is(load, monkeypatch, num_processes):
    cfg = load("TEST.RERANK.SEARCH", "faiss")
    evaluator, seen = OnePassEvaluator(cfg, 1), []
    monkeypatch.setattr(ReidEvaluator, "evaluate", lambda self: seen.append((placement(), self._predictions)) or {})
    batch = {"targets": torch.arange(3), "camids": torch.arange(3), "img_paths": ["a", "b", "c"]}
    evaluator.process(batch, torch.ones(3, 4, dtype=torch.bfloat16))
    monkeypatch.setattr(comm, "get_world_size", lambda: num_processes)
    evaluator.evaluate()
    evaluator.evaluate()  # of a process that has got no images
    (there, predictions), (nowhere, none) = seen
    assert there == Placement(torch.device("cpu"), "faiss") and nowhere == Placement(None, "faiss") and none == []
    assert predictions[0]["feats"].dtype == torch.float32 and set(predictions[0]) == {"feats", "pids", "camids"}
    assert placement() == Placement()


@pytest.mark.parametrize(("metric", "copies"), [("cosine", 4), ("euclidean", 3)])
def test_copies_of_the_features_while_neighbours_are_found(load, monkeypatch, metric, copies):
    """As many as docs/evaluation.md says."""
    num_images, dim = 60, 512
    evaluator = OnePassEvaluator(load("TEST.RERANK.ENABLED", "True", "TEST.METRIC", metric), 20)
    seen = []

    def storages():
        gc.collect()
        tensors = [each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor]
        return {storage.data_ptr(): storage.nbytes() for storage in tensors}

    def count(features, *args, **options):
        new = {pointer: size for pointer, size in storages().items() if pointer not in before}
        seen.append(sum(new.values()) / (4 * num_images * dim))
        return nearest_neighbours(features, *args, **options)

    monkeypatch.setattr(reranking, "nearest_neighbours", count)
    features = torch.randn(num_images, dim, generator=torch.Generator().manual_seed(0))
    for start in range(0, num_images, 10):
        batch = {"targets": torch.arange(10), "camids": torch.full((10,), int(start >= 20)), "img_paths": ["a"] * 10}
        evaluator.process(batch, features[start : start + 10].clone())
    kept = {batch["feats"].data_ptr() for batch in evaluator._batches}
    before = storages().keys() - kept
    evaluator.evaluate()
    assert len(seen) == 1 and copies <= seen[0] < copies + 0.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("expand", ["False", "True"])
def test_a_gpu_computes_the_same_results(load, build, expand):
    options = ("TEST.RERANK.ENABLED", "True", "TEST.AQE.ENABLED", expand, "TEST.RERANK.K1", "4", "TEST.AQE.QE_K", "3")
    cfg = load(*options, "MODEL.DEVICE", "cuda")
    features, results = run(cfg, build(cfg))
    assert features.device.type == "cuda"
    loader, num_query = build_test_loader(cfg, "CustomReID")
    on_cpu = ReidEvaluator(cfg, num_query)
    labels = {key: torch.cat([batch[key].cpu() for batch in loader]) for key in ("targets", "camids")}
    on_cpu.process(labels, features)
    for key, value in on_cpu.evaluate().items():
        assert results[key] == pytest.approx(value, abs=1e-3), key


class WatchedBatches(Batches):
    """Batches on the GPU; while they are iterated over, what waits for the GPU is an error."""

    def __init__(self, loader):
        super().__init__(loader)
        self[:] = [{k: v.cuda() if torch.is_tensor(v) else v for k, v in batch.items()} for batch in self]

    def __iter__(self):
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield from super().__iter__()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("half", ["False", "True"])
def test_nothing_waits_for_the_gpu_during_the_pass(load, build, half):
    cfg = load("MODEL.DEVICE", "cuda", "TEST.AMP.ENABLED", half, "TEST.FLIP.ENABLED", "True", "TEST.IMS_PER_BATCH", "3")
    model = build(cfg)
    run(cfg, model)  # cuDNN's first choice of its algorithms
    loader, num_query = build_test_loader(cfg, "CustomReID")
    evaluate(cfg, model, WatchedBatches(loader), OnePassEvaluator(cfg, num_query), "CustomReID")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_image_whose_features_are_no_numbers_is_named(load, build, monkeypatch, value):
    cfg = load("TEST.IMS_PER_BATCH", "5")
    model = build(cfg)
    loader, num_query = build_test_loader(cfg, "CustomReID")
    broken = [loader.dataset.img_items[index][0] for index in (7, 9)]
    forward = model.embed_and_locate

    def spoiled(batch):
        features, boxes = forward(batch)
        features[[path in broken for path in batch["img_paths"]], 3] = value
        return features, boxes

    monkeypatch.setattr(model, "embed_and_locate", spoiled)
    with pytest.raises(DataError, match=f"the model's features of image '{broken[0]}' are NaN or infinite: look in"):
        evaluate(cfg, model, loader, OnePassEvaluator(cfg, num_query), "CustomReID")


# -- Images that cannot be read -------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch) -> Counter:
    """How often each image file has been opened."""
    counts, image_open = Counter(), Image.open

    def count(file, *args, **kwargs):
        counts[str(getattr(file, "name", file))] += 1
        return image_open(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", count)
    return counts


def damage(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])  # its header is whole


@pytest.mark.parametrize("option", ["stop", "skip"])
@pytest.mark.parametrize("rerank", ["False", "True"])
def test_an_evaluation_opens_each_image_once(load, build, opened, tmp_path, option, rerank):
    cfg = load("DATASETS.UNREADABLE_IMAGES", option, "TEST.RERANK.ENABLED", rerank)
    images = [str(path) for split in ("query", "bounding_box_test") for path in (tmp_path / "own" / split).iterdir()]
    if option == "skip":
        damage(tmp_path / "own" / "query" / "0022_c1s1_000001_00.jpg")
    assert "IoU/mean" in Trainer.test(cfg, build(cfg))
    assert opened == dict.fromkeys(images, 1)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("batch_size", ["1", "5"])
def test_unreadable_images_are_left_out(load, build, tmp_path, caplog, workers, batch_size):
    """The results are those of a data set that does not have them."""
    cfg = load(
        *("DATASETS.UNREADABLE_IMAGES", "skip", "DATALOADER.NUM_WORKERS", workers),
        *("TEST.IMS_PER_BATCH", batch_size),
    )
    model = build(cfg)
    whole = Trainer.test(cfg, model)
    broken = [
        tmp_path / "own" / name
        for name in ("query/0022_c1s1_000001_00.jpg", "bounding_box_test/0021_c1s1_000002_00.jpg",
                     "bounding_box_test/0023_c2s1_000002_00.jpg")
    ]  # fmt: skip
    contents = [path.read_bytes() for path in broken]
    for path in broken:
        damage(path)
    test_sets = {}
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="mgre.data.unreadable"):
        results = Trainer.test(cfg, model, test_sets)
    messages = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert messages == [
        f"1 of 6 test images cannot be read and are left out: '{broken[0]}'",
        f"2 of 6 test images cannot be read and are left out: '{broken[1]}', '{broken[2]}'",
    ]
    # Mended, they are in the next evaluation by the same loader.
    for path, content in zip(broken, contents, strict=True):
        path.write_bytes(content)
    assert Trainer.test(cfg, model, test_sets) == pytest.approx(whole, rel=1e-6)
    for path in broken:
        path.unlink()
    assert results == pytest.approx(Trainer.test(cfg, model), rel=1e-6)


@pytest.mark.parametrize("split", ["query", "bounding_box_test"])
def test_a_split_without_a_readable_image_stops(load, build, tmp_path, split):
    for path in (tmp_path / "own" / split).iterdir():
        path.write_bytes(b"")
    cfg = load("DATASETS.UNREADABLE_IMAGES", "skip")
    with pytest.raises(DataError, match=rf"none of 6 test images can be read: '.*/{split}/.*; copy them again"):
        Trainer.test(cfg, build(cfg))


def test_an_unreadable_image_stops_the_evaluation(load, build, tmp_path):
    damage(tmp_path / "own" / "query" / "0022_c1s1_000001_00.jpg")
    cfg = load()
    with pytest.raises(DataError, match=r"^Image '\S+/query/0022_c1s1_000001_00\.jpg' cannot be read"):
        Trainer.test(cfg, build(cfg))


# -- Half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_half_precision_on_the_cpu_is_bfloat16(load, build, monkeypatch, dtype):
    model = build(load())
    types = []
    model.backbone.register_forward_hook(lambda module, inputs, maps: types.append(maps["stage4"].dtype))
    located = []
    monkeypatch.setattr(RegionIoU, "add", lambda self, boxes, keypoints: located.append(boxes))
    whole, _ = run(load(), model)
    half, results = run(load("TEST.AMP.ENABLED", "True", "TEST.AMP.DTYPE", dtype), model)
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert half.dtype == torch.float32 and not torch.equal(half, whole)
    assert torch.nn.functional.cosine_similarity(half, whole).min() > 0.999
    for boxes, expected in zip(located[2:], located[:2], strict=True):
        for name, box in boxes.items():
            assert box.dtype == torch.float32 and box.isfinite().all()
            torch.testing.assert_close(box, expected[name], atol=0.05, rtol=0)
    assert np.isfinite(list(results.values())).all()
