import random
from collections import Counter

import numpy as np
import pytest
from mgre.config import load_config
from mgre.data import build_dataset, build_test_loader, build_train_loader, dataset_folder, list_images
from mgre.data.validation_split import ValidationSplit, base_of_validation
from mgre.errors import ConfigError, DataError


def make_items(counts):
    """Items with ``counts[identity][camera]`` images, in the toolbox's form of training items."""
    return [
        (f"/set/{identity:04d}_c{camera}_{frame}.jpg", f"set_{identity}", f"set_{camera}")
        for identity, cameras in counts.items()
        for camera, number in cameras.items()
        for frame in range(number)
    ]


ITEMS = make_items({identity: {1: 3, 4: 2, 6: 1 + identity % 2} for identity in range(20)})


def split(items=ITEMS, num_ids=5, seed=0):
    return ValidationSplit(items, name="SetVal", folder="/set", num_ids=num_ids, seed=seed)


def content(dataset):
    return [sorted(getattr(dataset, part)) for part in ("train", "query", "gallery")]


def identities_of(items):
    """Of the images, by the file names."""
    return {path.rsplit("/", 1)[1][:4] for path, _, _ in items}


def test_no_identity_is_in_both_parts_and_no_image_is_lost():
    dataset = split()
    validation = dataset.query + dataset.gallery
    assert len(identities_of(validation)) == 5
    assert len(identities_of(dataset.train)) == 15
    assert not identities_of(dataset.train) & identities_of(validation)
    assert sorted(path for path, *_ in dataset.train + validation) == sorted(path for path, *_ in ITEMS)
    assert set(dataset.train) <= set(ITEMS)


def test_one_query_for_each_identity_and_camera_that_saw_it_twice():
    dataset = split()
    whole = Counter((path[:-6], identity) for path, identity, _ in dataset.query + dataset.gallery)
    queries = Counter((path[:-6], identity) for path, identity, _ in dataset.query)
    assert queries == {key: 1 for key, number in whole.items() if number > 1}
    # Every query has a match by another camera.
    for _, identity, camera in dataset.query:
        assert any(other[1] == identity and other[2] != camera for other in dataset.gallery)


def test_labels_are_numbers_by_order():
    for path, identity, camera in split().query + split().gallery:
        name = path.rsplit("/", 1)[1]
        order = sorted(f"set_{number}" for number in range(20))  # of the text: set_1, set_10, set_11, ...
        assert identity == order.index(f"set_{int(name[:4])}") + 1
        assert camera == {"1": 0, "4": 1, "6": 2}[name[6]]


def test_the_order_of_the_images_plays_no_part_and_the_seed_does():
    shuffled = random.Random(1).sample(ITEMS, len(ITEMS))
    assert content(split(shuffled)) == content(split())
    assert content(split(seed=1)) != content(split())
    # Over many seeds, every identity and every image is taken some time.
    taken, queries = set(), set()
    for seed in range(60):
        dataset = split(seed=seed)
        taken |= identities_of(dataset.query)
        queries |= {path for path, *_ in dataset.query}
    assert taken == identities_of(ITEMS)
    assert queries == {path for path, *_ in ITEMS if not (path[11] == "6" and int(path[5:9]) % 2 == 0)}


def test_the_choice_is_the_same_for_ever():
    """By hand: the first five of RandomState(0).permutation(20), which NumPy has frozen, of the sorted identities."""
    assert np.random.RandomState(0).permutation(20)[:5].tolist() == [18, 1, 19, 8, 10]
    order = sorted(f"set_{number}" for number in range(20))
    expected = {f"{int(order[index].removeprefix('set_')):04d}" for index in (18, 1, 19, 8, 10)}
    assert identities_of(split().query) == expected


def test_identities_that_make_no_matched_query_stay_in_training():
    items = make_items({1: {1: 5}, 2: {1: 1, 2: 1}, 3: {1: 2, 2: 1}, 4: {1: 2, 2: 2}})
    dataset = split(items, num_ids=2)
    assert identities_of(dataset.train) == {"0001", "0002"}
    with pytest.raises(
        DataError, match=r"SetVal cannot split off 3 identities .*NUM_IDS\): 2 of the 4 in the training"
    ):
        split(items, num_ids=3)
    with pytest.raises(DataError, match="some must remain to train on"):
        split(make_items({1: {1: 2, 2: 2}, 2: {1: 2, 2: 2}}), num_ids=2)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("Market1501Val", "Market1501"),
        ("SyntheticPedestriansVal", "SyntheticPedestrians"),
        ("CustomReIDVal", "CustomReID"),
        ("Market1501", None),
        ("MarketVal", None),
        ("Market1501ValVal", None),
        ("Val", None),
    ],
)
def test_names(name, base):
    assert base_of_validation(name) == base


@pytest.fixture
def run_cfg(small_run, tmp_path, write_image):
    """The small run's set with a second image of each training identity in each camera, on its validation set."""
    for path in list((tmp_path / "own" / "bounding_box_train").glob("*.jpg")):
        write_image(path.with_name(path.name.replace("000001", "000002")))

    def load(*overrides):
        names = ["DATASETS.NAMES", "('CustomReIDVal',)", "DATASETS.TESTS", "('CustomReIDVal',)"]
        options = [*small_run, *names, "DATASETS.VALIDATION.NUM_IDS", "3", *overrides]
        return load_config("configs/MGRe/Base-MGRe.yml", options)

    return load


def test_loaders_and_key_points_are_those_of_the_base_set(run_cfg, tmp_path):
    cfg = run_cfg()
    assert dataset_folder(build_dataset(cfg, "CustomReIDVal")) == str(tmp_path / "own")
    train = build_train_loader(cfg).dataset
    assert (len(train), train.num_classes) == (5 * 4, 5)
    assert sum(bool(sample["keypoints"][:, 2].any()) for sample in train) == 10  # the file has the first frames alone
    loader, num_query = build_test_loader(cfg, "CustomReIDVal")
    assert (len(loader.dataset), num_query) == (12, 6)
    batches = list(loader)
    assert all("keypoints" in batch for batch in batches)
    images = {path for batch in batches for path in batch["img_paths"]}
    assert not images & {path for path, *_ in train.img_items}
    assert {len(paths) for paths in list_images(cfg).values()} == {32}  # 8 x 2 x 2


def test_a_leak_is_refused(run_cfg):
    with pytest.raises(ConfigError, match=r"DATASETS.NAMES has CustomReID, which has all identities of CustomReIDVal"):
        build_train_loader(run_cfg("DATASETS.NAMES", "('CustomReID',)"))
    with pytest.raises(ConfigError, match=r"DATASETS.COMBINEALL is True.*or train on CustomReID$"):
        build_train_loader(run_cfg("DATASETS.COMBINEALL", "True"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["DATASETS.TESTS", "('MarketVal',)"], "DATASETS.TESTS has 'MarketVal', which is not known"),
        (["DATASETS.VALIDATION.NUM_IDS", "0"], "DATASETS.VALIDATION.NUM_IDS is 0; allowed: more than 0"),
        (["DATASETS.VALIDATION.SEED", "-1"], r"DATASETS.VALIDATION.SEED is -1; allowed: 0 to 2\^32 - 1"),
    ],
)
def test_wrong_values(run_cfg, overrides, message):
    with pytest.raises(ConfigError, match=message):
        run_cfg(*overrides)
