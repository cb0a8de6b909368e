"""What is looked at before the first step, and that it is before it."""

import numpy as np
import pytest
from fastreid.engine import default_argument_parser
from mgre.commands.main import main
from mgre.data.checks import check_datasets, check_matches, shared_identities
from mgre.data.datasets import build_dataset
from mgre.engine import run as run_module
from mgre.errors import DataError
from mgre.evaluation.ranking import eval_market1501

DOCUMENT = "docs/custom-data.md"


@pytest.fixture
def check(cfg, tmp_path):
    """Check the CustomReID set in ``tmp_path``."""

    def call(*, will_train: bool = True, **custom) -> None:
        cfg.DATASETS.NAMES = cfg.DATASETS.TESTS = ("CustomReID",)
        cfg.DATASETS.CUSTOM.ROOT = str(tmp_path)
        cfg.DATASETS.CUSTOM.CSV = custom.get("csv", "")
        check_datasets(cfg, will_train=will_train)

    return call


def test_one_camera(check, tmp_path, make_market_folder):
    make_market_folder(tmp_path, cameras=[4])
    for will_train in (True, False):
        with pytest.raises(DataError, match=r"CustomReID: no query has a match: .*; all test images are of one camera"):
            check(will_train=will_train)


def test_the_section_of_the_document_is_there(check, tmp_path, make_market_folder):
    make_market_folder(tmp_path, cameras=[4])
    with pytest.raises(DataError) as caught:
        check()
    assert DOCUMENT in str(caught.value)
    section = str(caught.value).split("as in '")[1].split("'")[0]
    with open(DOCUMENT, encoding="utf-8") as file:
        assert f"## {section}\n" in file.read()


@pytest.mark.parametrize(
    ("query", "gallery", "remedy"),
    [
        ([(1, 0), (2, 0)], [(1, 0), (2, 0)], "all test images are of one camera"),
        ([(1, 0), (2, 1)], [(1, 0), (2, 1), (3, 2)], "check the identities and cameras"),  # each in its own camera
        ([(1, 0)], [(2, 0), (2, 1)], "query and gallery have no identity in common"),
        ([(1, 0), (2, 0)], [(1, 0), (2, 1)], None),
        ([(1, 0)], [(1, 0), (1, 1)], None),
    ],
)
def test_a_match_is_what_the_evaluation_takes_for_one(query, gallery, remedy):
    items = [[("path", *labels) for labels in side] for side in (query, gallery)]
    (q_pids, q_cams), (g_pids, g_cams) = (np.array(side).T for side in (query, gallery))
    distances = np.zeros((len(query), len(gallery)))
    if remedy is None:
        check_matches(*items, "Mine")
        eval_market1501(distances, q_pids, g_pids, q_cams, g_cams)
        return
    with pytest.raises(DataError, match=f"Mine: no query has a match: .*; {remedy}"):
        check_matches(*items, "Mine")
    with pytest.raises(DataError, match="no query has a match"):
        eval_market1501(distances, q_pids, g_pids, q_cams, g_cams)


@pytest.mark.parametrize("split", ["bounding_box_train", "query", "bounding_box_test"])
def test_an_empty_split(check, tmp_path, make_market_folder, split):
    make_market_folder(tmp_path)
    for path in (tmp_path / split).iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(
        DataError,
        match=rf"'{tmp_path}/{split}' has 4 files that are no images \(.heic: 4; .*; convert the files",
    ):
        check()
    if split == "bounding_box_train":
        check(will_train=False)


def test_images_two_folders_deep(check, tmp_path, make_market_folder):
    make_market_folder(tmp_path)
    (tmp_path / "query" / "a" / "b").mkdir(parents=True)
    for path in list((tmp_path / "query").glob("*.jpg")):
        path.rename(path.parent / "a" / "b" / path.name)
    with pytest.raises(
        DataError, match=rf"no query images in '{tmp_path}': '{tmp_path}/query' has 1 folder \(first a\)"
    ):
        check()


def test_identities_of_training_and_test_are_counted(check, tmp_path, make_market_folder, data_log):
    make_market_folder(tmp_path, train_ids=[0, 2, 3, 7], test_ids=[0, 1, 3, 7])
    check(will_train=False)
    assert not data_log.records
    check()
    assert "that the training set and the test set share: 2 (custom_3, custom_7)" in data_log.text


def test_identities_of_a_csv_are_compared_by_their_text(check, tmp_path, make_market_folder, data_log):
    make_market_folder(tmp_path, train_ids=[2], test_ids=[3])
    rows = ["path,identity,camera,split"]
    for name, split in (("bounding_box_train", "train"), ("query", "query"), ("bounding_box_test", "gallery")):
        for path in sorted((tmp_path / name).iterdir()):
            # The number 1, of the only test identity, is no text of the CSV.
            rows.append(f"{name}/{path.name},{'1' if split == 'train' else 'ben'},{path.name[6]},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    check(csv="list.csv")
    assert not data_log.records
    (tmp_path / "list.csv").write_text("\n".join(rows).replace(",1,", ",ben,"))
    check(csv="list.csv")
    assert "that the training set and the test set share: 1 (custom_ben)" in data_log.text


@pytest.mark.parametrize(("name", "folder"), [("Market1501", "Market-1501-v15.09.15"), ("DukeMTMC", "DukeMTMC-reID")])
def test_identities_of_the_published_layouts(cfg, tmp_path, monkeypatch, make_market_folder, name, folder):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    make_market_folder(tmp_path / folder, train_ids=[2, 3, 7], test_ids=[1, 3])
    assert shared_identities(build_dataset(cfg, name)) == [f"{name.lower()}_3"]


def test_identities_of_a_part(cfg, tmp_path, make_market_folder):
    make_market_folder(tmp_path, train_ids=[2, 3, 7], test_ids=[3, 7])
    cfg.DATASETS.CUSTOM.ROOT = str(tmp_path)
    cfg.DATASETS.PART.NUM_TEST_IDS = 1
    dataset = build_dataset(cfg, "CustomReID")
    assert shared_identities(dataset) == [f"custom_{dataset.query[0][1]}"]


@pytest.mark.parametrize("flags", [(), ("--eval-only",)])
def test_a_set_that_cannot_be_evaluated_stops_before_the_first_step(
    small_run, tmp_path, monkeypatch, capsys, take_down_logs, flags
):
    for path in (tmp_path / "own").glob("*/*_c2*"):
        path.unlink()

    def no_model(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr(run_module, "Trainer", no_model)
    monkeypatch.setattr(run_module, "load_model", no_model)
    options = ["--config-file", "configs/MGRe/Base-MGRe.yml", *flags, *small_run, "MODEL.WEIGHTS", "some.pth"]
    args = default_argument_parser().parse_args(options)
    assert main(lambda: run_module.run(args)) == 1
    assert "error: Data set CustomReID: no query has a match" in capsys.readouterr().err
