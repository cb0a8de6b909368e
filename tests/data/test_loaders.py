import itertools
import logging

import numpy as np
import pytest
import torch
from fastreid.data.build import fast_batch_collator
from fastreid.data.transforms import build_transforms
from fastreid.utils import comm
from mgre.data import datasets
from mgre.data.datasets import build_dataset, list_images, reading_once
from mgre.data.epoch_sampler import epoch_sampler
from mgre.data.keypoint_lookup import uses_keypoints
from mgre.data.loaders import build_test_loader, build_train_loader, end_workers
from mgre.data.torch_dataset import KeypointDataset
from mgre.errors import ConfigError, DataError
from PIL import Image


@pytest.fixture
def mgre_cfg(cfg, tmp_path, monkeypatch, make_market_folder):
    """An MGRe config whose data set Market1501 is tiny: 2 training and 2 test identities in 2 cameras."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    make_market_folder(tmp_path / "Market-1501-v15.09.15")
    cfg.MODEL.META_ARCHITECTURE = "MGRe"
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.TEST.IMS_PER_BATCH = 3
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 32]
    return cfg


@pytest.fixture
def market(tmp_path):
    return tmp_path / "Market-1501-v15.09.15"


def points_for(folder, *splits, score=0.9):
    """All points of the n-th image at (n, n), so that each image's points tell it from the others."""
    paths = itertools.chain.from_iterable(sorted((folder / split).iterdir()) for split in splits)
    return {
        path.relative_to(folder).as_posix(): np.full((17, 3), [n, n, score]) for n, path in enumerate(paths, start=1)
    }


def test_uses_keypoints(cfg):
    assert not uses_keypoints(cfg)
    cfg.MODEL.META_ARCHITECTURE = "MGRe"
    assert uses_keypoints(cfg)
    cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 0.0
    assert not uses_keypoints(cfg)
    cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 1.0
    cfg.MODEL.MGRE.STAGES = ()
    assert not uses_keypoints(cfg)


def test_train_batches_carry_the_key_points_of_their_images(mgre_cfg, market, write_keypoints, data_log):
    points = points_for(market, "bounding_box_train")
    write_keypoints(market / "keypoints.json", points)
    batch = next(iter(build_train_loader(mgre_cfg)))
    assert batch["images"].shape == (4, 3, 64, 32)
    assert batch["images"].dtype == batch["keypoints"].dtype == torch.float32
    assert set(batch) == {"images", "keypoints", "targets", "camids", "img_paths"}
    for path, keypoints in zip(batch["img_paths"], batch["keypoints"], strict=True):
        n = points[path.removeprefix(f"{market}/")][0, 0]
        torch.testing.assert_close(keypoints, torch.tensor([n / 16, n / 32, 1.0]).expand(17, 3).float())
    assert "0 of 4 training images have no trusted key points" in data_log.text


def test_without_location_loss_batches_are_the_toolbox_s(mgre_cfg):
    mgre_cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 0.0
    mgre_cfg.INPUT.RPT.ENABLED = True
    loader = build_train_loader(mgre_cfg)
    assert set(next(iter(loader))) == {"images", "targets", "camids", "img_paths"}
    steps = [type(step) for step in loader.dataset.transform.transforms]
    assert steps == [type(step) for step in build_transforms(mgre_cfg, is_train=True).transforms]


def test_several_data_sets(mgre_cfg, market, tmp_path, make_market_folder, write_keypoints, data_log):
    duke = make_market_folder(tmp_path / "DukeMTMC-reID", train_ids=[1, 2, 3])
    mine = make_market_folder(tmp_path / "mine", train_ids=[2])
    mgre_cfg.DATASETS.NAMES = ("Market1501", "DukeMTMC", "CustomReID")
    mgre_cfg.DATASETS.CUSTOM.ROOT = str(mine)
    for folder in (market, duke):
        write_keypoints(folder / "keypoints.json", points_for(folder, "bounding_box_train"))
    with pytest.raises(DataError, match=r"No key point file: '.*mine/keypoints\.json' \(CustomReID\) does not exist"):
        build_train_loader(mgre_cfg)
    mgre_cfg.DATASETS.ALLOW_MISSING_KEYPOINTS = True
    dataset = build_train_loader(mgre_cfg).dataset
    assert (len(dataset), dataset.num_classes) == (4 + 6 + 2, 2 + 3 + 1)
    assert "2 of 12 training images have no trusted key points" in data_log.text
    trusted = {
        item[0]: sample["keypoints"][:, 2].sum() for item, sample in zip(dataset.img_items, dataset, strict=False)
    }
    assert {path for path, number in trusted.items() if number == 0} == {
        i[0] for i in dataset.img_items if "mine" in i[0]
    }


def test_no_key_point_file(mgre_cfg, market):
    with pytest.raises(DataError, match=r"DATASETS.KEYPOINTS .*MODEL.MGRE.LOCATION.LOSS_WEIGHT 0") as caught:
        build_train_loader(mgre_cfg)
    message = str(caught.value)
    assert f"'{market}/keypoints.json' (Market1501)" in message and "\n" not in message
    assert "make it with tools/extract_keypoints.py and the same --config-file and overrides" in message
    mgre_cfg.DATASETS.ALLOW_MISSING_KEYPOINTS = True  # some may be missing, not all
    with pytest.raises(DataError, match="No key point file"):
        build_train_loader(mgre_cfg)


def test_key_points_of_another_data_set(mgre_cfg, market, write_keypoints):
    write_keypoints(market / "keypoints.json", {"images/77.jpg": np.ones((17, 3))})
    with pytest.raises(DataError, match="is of another data set: it has no training image of Market1501") as caught:
        build_train_loader(mgre_cfg)
    for example in ("'images/77.jpg'", "'bounding_box_train/0002_c1s1_000001_00.jpg'"):
        assert example in str(caught.value)


@pytest.mark.parametrize("untrusted", ["absent", "low score"])
def test_more_than_half_missing(mgre_cfg, market, write_keypoints, untrusted):
    points = points_for(market, "bounding_box_train")
    names = list(points)

    def lose(name):
        if untrusted == "absent":
            del points[name]
        else:
            points[name][:, 2] = 0.29

    lose(names[0])
    lose(names[1])
    write_keypoints(market / "keypoints.json", points)
    build_train_loader(mgre_cfg)  # half of them
    lose(names[2])
    write_keypoints(market / "keypoints.json", points)
    with pytest.raises(DataError, match=r"3 of 4 training images have no key point.*ALLOW_MISSING_KEYPOINTS True"):
        build_train_loader(mgre_cfg)
    mgre_cfg.DATASETS.ALLOW_MISSING_KEYPOINTS = True
    build_train_loader(mgre_cfg)


def test_augmentation_is_refused_before_data_are_read(mgre_cfg):
    mgre_cfg.INPUT.AUGMIX.ENABLED = True
    mgre_cfg.DATASETS.NAMES = ("MSMT17",)
    with pytest.raises(ConfigError, match=r"INPUT\.AUGMIX\.ENABLED"):
        build_train_loader(mgre_cfg)


def test_test_loader_has_queries_first_then_gallery_by_path(mgre_cfg, market):
    loader, num_query = build_test_loader(mgre_cfg, "Market1501")
    batches = list(loader)
    paths = [path.removeprefix(f"{market}/") for batch in batches for path in batch["img_paths"]]
    expected = [
        f"{p.parent.name}/{p.name}"
        for split in ("query", "bounding_box_test")
        for p in sorted((market / split).iterdir())
    ]
    assert (num_query, paths) == (4, expected)
    assert torch.cat([batch["targets"] for batch in batches]).tolist() == [1, 1, 3, 3] * 2
    assert torch.cat([batch["camids"] for batch in batches]).tolist() == [0, 1] * 4
    assert "keypoints" not in batches[0]
    toolbox = build_transforms(mgre_cfg, is_train=False)
    assert torch.equal(batches[0]["images"][0], toolbox(Image.open(market / expected[0])))


def test_test_batches_carry_key_points_where_regions_are_measured(mgre_cfg, market, write_keypoints):
    plain = next(iter(build_test_loader(mgre_cfg, "Market1501")[0]))
    points = points_for(market, "query")
    write_keypoints(market / "keypoints.json", points)
    batches = list(build_test_loader(mgre_cfg, "Market1501")[0])
    assert torch.equal(batches[0]["images"], plain["images"])
    keypoints = torch.cat([batch["keypoints"] for batch in batches])
    assert keypoints[:, 0, 0].tolist() == pytest.approx([1 / 16, 2 / 16, 3 / 16, 4 / 16, 0, 0, 0, 0])
    assert keypoints[:, :, 2].sum(dim=1).tolist() == [17] * 4 + [0] * 4


@pytest.mark.parametrize(
    ("key", "value"),
    [("TEST.REGION_IOU.ENABLED", False), ("MODEL.MGRE.STAGES", ()), ("MODEL.META_ARCHITECTURE", "Baseline")],
)
def test_test_batches_are_plain_otherwise(mgre_cfg, market, write_keypoints, key, value):
    write_keypoints(market / "keypoints.json", points_for(market, "query"))
    mgre_cfg.merge_from_list([key, value])
    assert "keypoints" not in next(iter(build_test_loader(mgre_cfg, "Market1501")[0]))


def test_test_batches_are_plain_if_the_file_is_for_other_images(mgre_cfg, market, write_keypoints):
    write_keypoints(market / "keypoints.json", points_for(market, "bounding_box_train"))
    assert "keypoints" not in next(iter(build_test_loader(mgre_cfg, "Market1501")[0]))


def test_number_of_workers_reaches_the_test_loader(mgre_cfg):
    mgre_cfg.DATALOADER.NUM_WORKERS = 1
    assert build_test_loader(mgre_cfg, "Market1501")[0].num_workers == 1


def test_workers_load_key_points(mgre_cfg, market, write_keypoints):
    write_keypoints(market / "keypoints.json", points_for(market, "query"))
    alone = list(build_test_loader(mgre_cfg, "Market1501")[0])
    mgre_cfg.DATALOADER.NUM_WORKERS = 2
    loader = build_test_loader(mgre_cfg, "Market1501")[0]
    assert isinstance(loader.dataset, KeypointDataset)
    for batch, expected in zip(loader, alone, strict=True):
        assert torch.equal(batch["keypoints"], expected["keypoints"])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_toolbox_s_collate_function(mgre_cfg, market, write_keypoints, num_workers):
    """Images that travel as bytes are, when they arrive, the floats that they were."""
    write_keypoints(market / "keypoints.json", points_for(market, "bounding_box_train"))
    mgre_cfg.DATALOADER.NUM_WORKERS = num_workers
    mgre_cfg.INPUT.REA.ENABLED = True
    np.random.seed(0)  # the sampler takes its seed from here; with one seed in 140 none of the 8 images is erased
    loader = build_train_loader(mgre_cfg)
    draws = [draw for _, draw in zip(range(8), epoch_sampler(loader), strict=False)]
    batches = list(itertools.islice(loader, 2))
    for batch, start in zip(batches, (0, 4), strict=True):
        expected = fast_batch_collator([loader.dataset[draw] for draw in draws[start : start + 4]])
        assert set(batch) == set(expected) and batch["img_paths"] == expected.pop("img_paths")
        for name, values in expected.items():
            assert batch[name].dtype == values.dtype and torch.equal(batch[name], values)
    assert any(not torch.equal(batch["images"], batch["images"].round()) for batch in batches)


def test_a_pass_over_test_images_draws_no_random_number(mgre_cfg):
    loader, _ = build_test_loader(mgre_cfg, "Market1501")
    before = torch.get_rng_state()
    for _ in range(2):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("split", ["bounding_box_train", "query", "bounding_box_test"])
def test_empty_splits(mgre_cfg, market, split):
    mgre_cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 0.0
    for path in (market / split).iterdir():
        path.unlink()
    what = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}[split]
    with pytest.raises(DataError, match=f"Data set Market1501 has no {what} images in '{market}'"):
        build_train_loader(mgre_cfg) if what == "train" else build_test_loader(mgre_cfg, "Market1501")


def test_unknown_name_gives_the_nearest_and_all(cfg):
    with pytest.raises(ConfigError, match=r"'Market1510' is not registered \(nearest: Market1501\); .*DukeMTMC, "):
        build_dataset(cfg, "Market1510")


def test_data_folder_defaults_to_datasets_here(cfg, tmp_path, monkeypatch, make_market_folder):
    monkeypatch.delenv("FASTREID_DATASETS", raising=False)
    monkeypatch.chdir(tmp_path)
    make_market_folder(tmp_path / "datasets" / "DukeMTMC-reID")
    assert len(build_dataset(cfg, "DukeMTMC").train) == 4


def test_combineall_trains_on_test_images(mgre_cfg):
    mgre_cfg.MODEL.MGRE.LOCATION.LOSS_WEIGHT = 0.0
    mgre_cfg.DATASETS.COMBINEALL = True
    assert build_train_loader(mgre_cfg).dataset.num_classes == 4


def test_differing_counts_are_reported_once(mgre_cfg, data_log):
    for _ in range(2):
        build_dataset(mgre_cfg, "Market1501")
    warnings = {r for r in data_log.records if r.levelno == logging.WARNING and "not the published set" in r.message}
    assert len(warnings) == 1


def test_a_data_set_is_read_once_within_the_block(mgre_cfg, monkeypatch):
    names = []
    read = datasets._read_dataset
    monkeypatch.setattr(
        datasets, "_read_dataset", lambda cfg, name, *args: names.append(name) or read(cfg, name, *args)
    )
    with reading_once():
        first = build_dataset(mgre_cfg, "Market1501")
        list_images(mgre_cfg)
        assert build_dataset(mgre_cfg, "Market1501") is first
        assert names == ["Market1501"]
        # What makes another data set of it is not the same reading.
        assert len(build_dataset(mgre_cfg, "Market1501", combineall=True).train) > len(first.train)
        assert build_dataset(mgre_cfg.clone(), "Market1501") is not first
    assert names == ["Market1501"] * 3
    assert build_dataset(mgre_cfg, "Market1501") is not first
    assert len(names) == 4


@pytest.mark.parametrize(("local_rank", "expected"), [(0, ["read", "wait"]), (1, ["wait", "read"])])
def test_first_process_of_a_machine_reads_first(mgre_cfg, monkeypatch, local_rank, expected):
    events = []
    read = datasets._read_dataset
    monkeypatch.setattr(comm, "get_local_rank", lambda: local_rank)
    monkeypatch.setattr(comm, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(datasets, "_read_dataset", lambda *args: events.append("read") or read(*args))
    build_dataset(mgre_cfg, "Market1501")
    assert events == expected
    events.clear()
    with pytest.raises(DataError):
        build_dataset(mgre_cfg, "DukeMTMC")
    assert sorted(events) == ["read", "wait"]  # a failure leaves no process waiting


def test_workers_end_in_the_middle_of_an_iteration_and_the_next_one_starts_others(mgre_cfg, new_processes):
    mgre_cfg.MODEL.META_ARCHITECTURE = "Baseline"
    mgre_cfg.DATALOADER.NUM_WORKERS = 2
    loaders = [build_train_loader(mgre_cfg), build_test_loader(mgre_cfg, "Market1501")[0]]
    iterators = [iter(loader) for loader in loaders]
    for iterator in iterators:
        next(iterator)
    assert len(new_processes()) == 4
    end_workers(loaders)
    assert not new_processes()
    assert sum(len(batch["targets"]) for batch in loaders[1]) == 8
    end_workers(loaders)
    assert not new_processes()
