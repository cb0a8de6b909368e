"""The toolbox's readers of data sets, on folders as users have them, each against the clean form of the same."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastreid.data.data_utils import read_image
from fastreid.data.datasets import DATASET_REGISTRY
from mgre.data.datasets import build_dataset
from mgre.errors import DataError
from PIL import Image


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    return tmp_path


# By registered name: an image of the set in its folder, in its published form. Two numbers are filled in.
FLAT = {
    "Market1501": "Market-1501-v15.09.15/bounding_box_train/{:04d}_c{}s1_000001_00.jpg",
    "DukeMTMC": "DukeMTMC-reID/bounding_box_train/{:04d}_c{}_f0046182.jpg",
    "VeRi": "veri/image_train/{:04d}_c{:03d}_00016450_0.jpg",
    "cuhkSYSU": "cuhk_sysu/cropped_images/p{}_s{}.jpg",
}
OTHERS = {
    "CAVIARa": "CAVIARa/{:04d}{:03d}.jpg",
    "GRID": "underground_reid/images/{:04d}_{}_1.jpeg",
    "iLIDS": "iLIDS/{}/cam{}_1.png",
    "LPW": "pep_256x128/data_slim/scen1/view{1}/{0}/1.jpg",
    "PeS3D": "3DPeS/{}/{}.bmp",
    "PKU": "PKUv1a_128x48/{:03d}_{:02d}_1.png",
    "PRAI": "PRAI-1581/images/{:08d}_{:04d}_1.jpg",
    "PRID": "prid_2011/slim_train/person_{:04d}/cam{}_1.png",
    "SAIVT": "SAIVT-SoftBio/cropped_images/{:03d}/a-b-{:03d}-1.jpeg",
    "SenseReID": "SenseReID/test_gallery/{:05d}_{}.jpg",
    "Shinpuhkan": "shinpuhkan/{0:02d}/{0:02d}_1_{1:02d}_1.jpg",
    "SYSU_mm": "SYSU-MM01/cam{1}/{0:04d}/0001.jpg",
    "Thermalworld": "thermalworld_rgb/{}/{}.jpg",
    "VIPeR": "VIPeR/cam_a/{:03d}_{}.bmp",
    "WildTrackCrop": "Wildtrack_crop_dataset/crop/{}/{}_1.png",
}
NEEDED = {
    "Market1501": ("query", "bounding_box_test"),
    "DukeMTMC": ("query", "bounding_box_test"),
    "VeRi": ("image_query", "image_test"),
    "LPW": ("../scen2", "../scen3"),
    "SenseReID": ("test_prob",),
    "SYSU_mm": ("cam1", "cam2", "cam4", "cam5"),
    "VIPeR": ("cam_b",),
}


def make_set(root: Path, name: str, write_image: Callable[..., Path], spoil: Callable[[Path], None] | None = None):
    """Four images of the set; the items its reader gives, with paths below ``root`` and without suffixes."""
    form = (FLAT | OTHERS)[name]
    for first, second in ((1, 1), (2, 2), (2, 1), (3, 4)):
        path = write_image(root / form.format(first, second))
        if spoil:
            spoil(path)
    top = root.joinpath(*Path(form).parts[: 2 if name == "LPW" else 1])
    for folder in NEEDED.get(name, ()):
        (top / ("scen1" if name == "LPW" else "") / folder).resolve().mkdir(parents=True, exist_ok=True)
    items = DATASET_REGISTRY.get(name)(root=str(root)).train
    return sorted((path.removeprefix(f"{root}/").rsplit(".", 1)[0], *labels) for path, *labels in items)


def in_capitals(path: Path) -> None:
    path.rename(path.with_suffix(path.suffix.upper()))


def as_webp(path: Path) -> None:
    with Image.open(path) as image:
        image.save(path.with_suffix(".webp"))
    path.unlink()


def with_hidden_files(path: Path) -> None:
    for name in (f"._{path.name}", ".DS_Store", "Thumbs.db"):
        (path.parent / name).write_bytes(b"\0\5\26\7")


@pytest.mark.parametrize("spoil", [in_capitals, as_webp, with_hidden_files])
@pytest.mark.parametrize("name", FLAT | OTHERS)
def test_other_suffixes_and_hidden_files_give_the_items_of_the_clean_form(tmp_path, write_image, name, spoil):
    clean = make_set(tmp_path / "clean", name, write_image)
    assert len(clean) == 4
    assert make_set(tmp_path / "other", name, write_image, spoil) == clean


def test_these_are_all_readers_that_look_for_files(tmp_path):
    by_lists = {"MSMT17", "CUHK03", "AirportALERT", "VehicleID", "VeRiWild"}
    by_lists |= {f"{size}{name}" for size in ("Small", "Medium", "Large") for name in ("VehicleID", "VeRiWild")}
    ours = {"CUHK03Detected", "CUHK03Labeled", "CustomReID", "SyntheticPedestrians"}
    toolbox = {name for name, reader in DATASET_REGISTRY._obj_map.items() if reader.__module__.startswith("fastreid.")}
    assert toolbox - by_lists == set(FLAT | OTHERS) and not toolbox & ours


def test_files_of_another_kind_are_counted_and_named(root, write_image, data_log):
    make_set(root, "Market1501", write_image, lambda path: (path.parent / f"{path.stem}.txt").touch())
    assert "bounding_box_train': passed over 4 files that are no images (.txt: 4; first 0001_c1s1_000001_00.txt)" in (
        data_log.text
    )


@pytest.mark.parametrize("name", FLAT)
def test_a_folder_for_each_identity_is_said(root, write_image, name):
    def into_folder(path: Path) -> None:
        (path.parent / path.stem[:4]).mkdir(exist_ok=True)
        path.rename(path.parent / path.stem[:4] / path.name)

    folder = root / Path(FLAT[name]).parent
    with pytest.raises(
        DataError, match=rf"'{folder}' has no images, but \d folders .*; put the images of this data set"
    ):
        make_set(root, name, write_image, into_folder)


# -- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image", "fault"),
    [
        ("Market1501", "0001_c12s1_000001_00.jpg", "its camera is 12"),
        ("Market1501", "0001_c7s1_000001_00.jpg", "its camera is 7"),
        ("Market1501", "0001_c0s1_000001_00.jpg", "its camera is 0"),
        ("Market1501", "1502_c1s1_000001_00.jpg", "its identity is 1502"),
        ("Market1501", "12345_c1s1_000001_00.jpg", "its identity is 12345"),
        ("Market1501", "-2_c1s1_000001_00.jpg", "its identity is -2"),
        ("Market1501", "holiday.jpg", "its name does not begin with identity and camera"),
        ("Market1501", "x0001_c1s1.jpg", "its name does not begin with identity and camera"),
        ("DukeMTMC", "0001_c10_f0046182.jpg", "its camera is 10"),
        ("DukeMTMC", "0001_c9_f0046182.jpg", "its camera is 9"),
        ("DukeMTMC", "person.jpg", "its name does not begin with identity and camera"),
        ("VeRi", "0001_c0012_00016450_0.jpg", None),
        ("VeRi", "0001_c0120_00016450_0.jpg", "its camera is 120"),
        ("VeRi", "0777_c001_00016450_0.jpg", "its identity is 777"),
        ("cuhkSYSU", "1_s1.jpg", "its name does not begin with identity and camera"),
    ],
)
def test_numbers_are_read_whole_or_the_image_is_named(root, write_image, name, image, fault):
    path = root / Path(FLAT[name]).parent / image
    write_image(path)
    if fault is None:
        items = make_set(root, name, write_image)
        assert ("veri_1", "veri_11") in [item[1:] for item in items]
        return
    with pytest.raises(DataError, match=rf"Image '{path}' is no image of {name}.*: {fault}; remove it, or") as caught:
        make_set(root, name, write_image)
    assert "DATASETS.NAMES \"('CustomReID',)\"" in str(caught.value) and "\n" not in str(caught.value)
    if name == "Market1501":
        assert "which has identities 0 to 1501 and cameras 1 to 6" in str(caught.value)


@pytest.mark.parametrize(("camera", "identity"), [(12, 2), (1, 1502)])
@pytest.mark.parametrize("folder", ["data", "my data's"])
def test_the_way_out_that_the_message_names(cfg, tmp_path, monkeypatch, make_market_folder, camera, identity, folder):
    """The folder that is refused as Market-1501 is read whole by the words of the message, pasted into a shell."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / folder))
    make_market_folder(
        tmp_path / folder / "Market-1501-v15.09.15", train_ids=[identity], test_ids=[5], cameras=[2, camera]
    )
    with pytest.raises(DataError) as caught:
        build_dataset(cfg, "Market1501")
    cfg.merge_from_list(shlex.split(str(caught.value).split("a set of your own: ")[1]))
    assert tuple(cfg.DATASETS.NAMES) == tuple(cfg.DATASETS.TESTS) == ("CustomReID",)
    dataset = build_dataset(cfg, "CustomReID")
    assert {item[1:] for item in dataset.train} == {
        (f"custom_{identity}", "custom_1"),
        (f"custom_{identity}", f"custom_{camera - 1}"),
    }
    assert {item[1:] for item in dataset.query} == {(5, 1), (5, camera - 1)}


@pytest.mark.parametrize("above", ["0009_c4_copy", "[2024] set", "p7_s1"])
def test_the_names_of_the_folders_above_mean_nothing(tmp_path, write_image, above):
    """The toolbox's pattern takes its first match in the whole path; a bracket is a pattern for its search."""
    for name in FLAT:
        clean = make_set(tmp_path / "clean", name, write_image)
        assert make_set(tmp_path / above, name, write_image) == clean


# -- Lists ----------------------------------------------------------------------------------------

MSMT = {
    "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0040_0.jpg 1"],
    "val": ["0000/0000_001_03_0303morning_0020_0.jpg 0"],
    "query": ["0000/0000_000_05_0303morning_0008_1.jpg 0"],
    "gallery": ["0000/0000_001_14_0303morning_0032_1.jpg 0", "0001/0001_002_112_0303morning_0050_1.jpg 1"],
}


def write_msmt(root: Path, change: Callable[[str], str | bytes] = str) -> Path:
    folder = root / "MSMT17_V1"
    for name in ("train", "test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, lines in MSMT.items():
        content = change("\n".join(lines) + "\n")
        (folder / f"list_{split}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n \n",
        lambda text: "\n\n" + text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.rstrip(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "   ").replace("\n", "  \n"),
    ],
)
def test_lists_in_other_forms_give_the_items_of_the_clean_one(cfg, root, change):
    def splits():
        dataset = build_dataset(cfg, "MSMT17")
        return dataset.train, dataset.query, dataset.gallery

    write_msmt(root)
    clean = splits()
    assert [len(split) for split in clean] == [2, 1, 2] and clean[2][1][1:] == (3, 111)
    write_msmt(root, change)
    assert splits() == clean


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("0001/0001_000_15_0303noon_0040_0.jpg", "0001/0001_000_15_0303noon_0040_0.jpg"),
        ("0001/0001_000_15_0303noon_0040_0.jpg one", "0001/0001_000_15_0303noon_0040_0.jpg one"),
        ("my pictures/0001_000_15_0303noon_0040_0.jpg 1", "my pictures/"),
        ("my_set/0001_000_15_0303noon_0040_0.jpg 1", "my_set/"),
        ("0001/0001_000_c15_0303noon_0040_0.jpg 1", "0001/0001_000_c15"),
        ("0001.jpg 1", "0001.jpg 1"),
    ],
)
def test_a_faulty_line_is_named_by_file_and_number(cfg, root, line, shown):
    path = write_msmt(root) / "list_train.txt"
    path.write_text(f"{MSMT['train'][0]}\n\n{line}\n")
    with pytest.raises(DataError, match=rf"^'{path}' line 3 is '{shown}.*', not of the form '0000/0000_000_01"):
        build_dataset(cfg, "MSMT17")


def test_a_list_that_is_a_web_page(cfg, root):
    path = write_msmt(root) / "list_query.txt"
    path.write_text("<!DOCTYPE html>\n<html>404</html>")
    with pytest.raises(DataError, match=f"'{path}' is a web page, not a list; download it again"):
        build_dataset(cfg, "MSMT17")


def write_lists(root: Path, name: str, change: Callable[[str], str]) -> None:
    """The lists of the other three sets that have some."""
    lists = {
        "AirportALERT": {"AirportALERT/filepath.txt": "cam1\\11001\\1.jpg\ncam2\\11002\\2.jpg\n"},
        "VehicleID": {
            "vehicleid/train_test_split/train_list.txt": "0000001 11\n0000002 12\n",
            "vehicleid/train_test_split/test_list_13164.txt": "0000003 13\n0000004 13\n",
        },
        "VeRiWild": {
            "VERI-Wild/train_test_split/train_list.txt": "00001/000001.jpg\n00002/000002.jpg\n",
            "VERI-Wild/train_test_split/test_10000_query.txt": "00001/000001.jpg\n",
            "VERI-Wild/train_test_split/test_10000.txt": "00002/000002.jpg\n",
            "VERI-Wild/train_test_split/vehicle_info.txt": "id/image;Camera ID;Time\n"
            "00001/000001;21;2018 1 2\n00002/000002;121;2018 1 2\n",
        },
    }[name]
    for path, text in lists.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(change(text).encode())
    for folder in ("vehicleid/image", "VERI-Wild/images"):
        (root / folder).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("name", ["AirportALERT", "VehicleID", "VeRiWild"])
def test_the_lists_of_the_other_sets(root, name):
    def train(change: Callable[[str], str]):
        shutil.rmtree(root)
        write_lists(root, name, change)
        return [tuple(item) for item in DATASET_REGISTRY.get(name)(root=str(root)).train]

    clean = train(str)
    assert len(clean) == 2
    assert train(lambda text: "\ufeff\r\n" + text.replace("\n", "\r\n\r\n")) == clean
    with pytest.raises(DataError, match=r"' line [34] is 'what is this', not of the form"):
        train(lambda text: text + "what is this\n")


# -- Images ---------------------------------------------------------------------------------------


def test_the_toolboxs_decoder_in_other_orders_of_channels(tmp_path, write_image):
    path = str(write_image(tmp_path / "a.png"))
    pixels = np.asarray(Image.open(path))
    assert np.array_equal(np.asarray(read_image(path)), pixels)
    assert np.array_equal(np.asarray(read_image(path, format="RGB")), pixels)
    assert np.array_equal(np.asarray(read_image(path, format="BGR")), pixels[..., ::-1])
    assert np.array_equal(np.asarray(read_image(path, format="L")), np.asarray(Image.open(path).convert("L")))


def test_the_toolboxs_decoder_of_grey_images(tmp_path, write_image):
    """It repeats the channel, as the toolbox's own does."""
    path = str(write_image(tmp_path / "a.png", mode="L"))
    assert np.array_equal(np.asarray(read_image(path)), np.repeat(np.asarray(Image.open(path))[..., None], 3, axis=2))
