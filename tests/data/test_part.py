"""A part of a data set, against identities chosen by hand."""

import numpy as np
import pytest
from fastreid.data.datasets.bases import ImageDataset
from mgre.config import load_config
from mgre.data import build_dataset, build_test_loader, build_train_loader
from mgre.data.part import DatasetPart
from mgre.errors import ConfigError, DataError


def make_items(identities, prefix=""):
    """Three images of each identity; training items have text for a label, as the toolbox's."""
    return [
        (f"/set/{identity:04d}_c{camera}.jpg", f"{prefix}{identity}" if prefix else identity, camera)
        for identity in identities
        for camera in range(3)
    ]


def whole():
    """20 training identities; 10 of the query, 100 to 109; in the gallery those, distractors (0) and identity 500."""
    query = make_items(range(100, 110))
    return ImageDataset(make_items(range(20), "set_"), query, [*query, *make_items([0, 500])])


def part(dataset=None, **options):
    return DatasetPart(dataset or whole(), name="Set", folder="/set", **options)


def identities(items):
    """Of the images, by the file names, each of which has to have all of its images."""
    paths = [path for path, *_ in items]
    found = {int(path[5:9]) for path in paths}
    assert sorted(paths) == sorted(path for path, *_ in make_items(found))
    return found


def test_the_choice_is_the_same_for_ever():
    """By hand: the first of RandomState(0).permutation, which NumPy has frozen, of the sorted identities."""
    assert np.random.RandomState(0).permutation(20)[:5].tolist() == [18, 1, 19, 8, 10]
    assert np.random.RandomState(0).permutation(10)[:3].tolist() == [2, 8, 4]
    dataset = part(num_train_ids=5, num_test_ids=3)
    # The labels of training items are text, which sorts as text: set_0, set_1, set_10, ..., set_19, set_2, set_3, ...
    assert identities(dataset.train) == {8, 1, 9, 16, 18}
    assert identities(dataset.query) == {102, 108, 104}
    assert set(dataset.train) <= set(whole().train)


def test_the_gallery_keeps_the_chosen_identities_alone():
    dataset = part(num_test_ids=3)
    assert identities(dataset.gallery) == identities(dataset.query)
    assert identities(dataset.train) == set(range(20))


def test_zero_keeps_all():
    dataset = part(num_train_ids=2)
    assert sorted(dataset.query) == sorted(whole().query)
    assert {0, 500} < identities(dataset.gallery)
    everything = part(num_train_ids=20, num_test_ids=10)
    assert len(everything.train) == 60 and identities(everything.gallery) == set(range(100, 110))


def test_the_order_of_the_images_plays_no_part_and_the_seed_does():
    ordered = whole()
    turned = ImageDataset(ordered.train[::-1], ordered.query[::-1], ordered.gallery[::-1])
    first, second = (part(dataset, num_train_ids=5, num_test_ids=3) for dataset in (ordered, turned))
    assert (first.train, first.query, first.gallery) == (second.train, second.query, second.gallery)
    other = part(num_train_ids=5, num_test_ids=3, seed=1)
    assert identities(other.train) != identities(first.train) and identities(other.query) != identities(first.query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train_ids": 21}, r"Set has 20 training identities; DATASETS\.PART\.NUM_TRAIN_IDS is 21: lower it"),
        ({"num_test_ids": 11}, r"Set has 10 query identities; DATASETS\.PART\.NUM_TEST_IDS is 11: .* to 0 for all$"),
    ],
)
def test_more_identities_than_there_are(options, message):
    with pytest.raises(DataError, match=message):
        part(**options)


@pytest.fixture
def load(small_run):
    """The small run's config, whose set has 8 training and 3 test identities, two images of each in a split."""

    def load_with(**part_of):
        options = [word for key, value in part_of.items() for word in (f"DATASETS.PART.{key}", str(value))]
        return load_config("configs/MGRe/Base-MGRe.yml", [*small_run, *options])

    return load_with


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NUM_TRAIN_IDS", -1, r"DATASETS\.PART\.NUM_TRAIN_IDS is -1; allowed: 0 \(all\) or more"),
        ("NUM_TEST_IDS", -1, r"DATASETS\.PART\.NUM_TEST_IDS is -1; allowed: 0 \(all\) or more"),
        ("SEED", -1, r"DATASETS\.PART\.SEED is -1; allowed: 0 to 2\^32 - 1"),
        ("SEED", 2**32, r"DATASETS\.PART\.SEED is 4294967296; allowed: 0 to 2\^32 - 1"),
    ],
)
def test_wrong_values(load, key, value, message):
    with pytest.raises(ConfigError, match=message):
        load(**{key: value})


def test_loaders_have_the_part_with_its_key_points(load):
    cfg = load(NUM_TRAIN_IDS=5, NUM_TEST_IDS=2)
    train = build_train_loader(cfg).dataset
    assert (len(train), train.num_classes) == (5 * 2, 5)
    assert all(sample["keypoints"][:, 2].any() for sample in train)
    loader, num_query = build_test_loader(cfg, "CustomReID")
    assert (len(loader.dataset), num_query) == (2 * 2 * 2, 2 * 2)
    assert all("keypoints" in batch for batch in loader)


def test_validation_identities_are_split_off_the_part(load, tmp_path, write_image):
    for path in list((tmp_path / "own" / "bounding_box_train").glob("*.jpg")):
        write_image(path.with_name(path.name.replace("000001", "000002")))
    cfg = load(NUM_TRAIN_IDS=5)
    cfg.defrost()
    cfg.DATASETS.VALIDATION.NUM_IDS = 2
    kept = {item[1] for item in build_dataset(cfg, "CustomReID").train}
    validation = build_dataset(cfg, "CustomReIDVal")
    remaining = {item[1] for item in validation.train}
    assert len(kept) == 5 and len(remaining) == 3 and remaining < kept
    assert len({item[1] for item in validation.query}) == 2


def test_a_set_that_is_not_the_published_one_is_told_of_the_whole(
    cfg, tmp_path, monkeypatch, make_market_folder, data_log
):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    make_market_folder(tmp_path / "Market-1501-v15.09.15", train_ids=(2, 7, 8), test_ids=(1, 3))
    cfg.DATASETS.PART.NUM_TRAIN_IDS = 1
    assert len(build_dataset(cfg, "Market1501").train) == 2
    assert "is not the published set: train has 6 images (published: 12936)" in data_log.text
