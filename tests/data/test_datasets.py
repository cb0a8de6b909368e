"""Data sets of one's own: what their readers have to tell."""

import os

import pytest
from fastreid.data.datasets import DATASET_REGISTRY, Market1501
from fastreid.data.datasets.bases import ImageDataset
from mgre.data.checks import shared_identities
from mgre.data.datasets import build_dataset, dataset_folder
from mgre.errors import DataError


class Own(ImageDataset):
    """Without any of the attributes that a reader may have."""

    def __init__(self, root: str = "datasets", **kwargs: object) -> None:
        items = {split: [(os.path.join(root, "own", split, f"{i}.jpg"), i, i % 2) for i in (1, 2)] for split in "tqg"}
        super().__init__(*items.values(), **kwargs)


class Located(Own):
    training_labels = {1: 1, 2: 7}

    def __init__(self, root: str = "datasets", **kwargs: object) -> None:
        self.folder = root
        super().__init__(root, **kwargs)


@pytest.fixture
def build(cfg, tmp_path, monkeypatch):
    """Register a reader under a name, and read the data set."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))

    def build(reader, name="Mine"):
        monkeypatch.setitem(DATASET_REGISTRY._obj_map, name, reader)
        return build_dataset(cfg, name)

    return build


def test_the_folder_is_the_one_that_the_reader_tells(build, tmp_path):
    assert dataset_folder(build(Located)) == str(tmp_path)


def test_without_one_it_is_the_deepest_that_has_all_images(build, tmp_path):
    assert dataset_folder(build(Own)) == str(tmp_path / "own")


def test_a_subclass_of_a_toolboxs_reader_may_tell_another(build, tmp_path, make_market_folder):
    make_market_folder(tmp_path / "Market-1501-v15.09.15")

    class Moved(Market1501):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.folder = os.path.join(self.data_dir, "..")

    assert dataset_folder(build(Market1501)) == str(tmp_path / "Market-1501-v15.09.15")
    assert dataset_folder(build(Moved, "Moved")) == str(tmp_path / "Market-1501-v15.09.15" / "..")


def test_people_in_training_and_test_are_known_by_the_labels_that_the_reader_tells(build):
    assert shared_identities(build(Own)) == []
    assert shared_identities(build(Located)) == [1]


def test_a_reader_that_fails_is_named(build):
    class Failing(Own):
        def __init__(self, **kwargs):
            raise ValueError("no list")

    with pytest.raises(DataError, match=r"Data set Mine cannot be read from .*the layout of .*test_datasets: no list"):
        build(Failing)
