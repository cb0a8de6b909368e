import numpy as np
import pytest
from mgre.data.custom import CustomReID, read_folders
from mgre.data.datasets import build_dataset, dataset_folder
from mgre.errors import ConfigError, DataError
from PIL import Image


def relative(items, folder):
    return [(path.removeprefix(f"{folder}/"), identity, camera) for path, identity, camera in items]


def test_market_layout(cfg, tmp_path, make_market_folder, write_image):
    make_market_folder(tmp_path, train_ids=[12345], test_ids=[8], cameras=[1, 12])
    write_image(tmp_path / "bounding_box_test" / "-1_c2s1_000001_00.jpg")
    write_image(tmp_path / "bounding_box_test" / "0000_c7s1_000001_00.JPG")
    write_image(tmp_path / "query" / "0008_c3_x.PNG")
    (tmp_path / "query" / "Thumbs.db").touch()
    cfg.DATASETS.CUSTOM.ROOT = str(tmp_path)
    dataset = build_dataset(cfg, "CustomReID")
    assert relative(dataset.train, tmp_path) == [
        ("bounding_box_train/12345_c12s1_000001_00.jpg", "custom_12345", "custom_11"),
        ("bounding_box_train/12345_c1s1_000001_00.jpg", "custom_12345", "custom_0"),
    ]
    assert relative(dataset.query, tmp_path) == [
        ("query/0008_c12s1_000001_00.jpg", 8, 11),
        ("query/0008_c1s1_000001_00.jpg", 8, 0),
        ("query/0008_c3_x.PNG", 8, 2),
    ]
    assert [item[1:] for item in dataset.gallery] == [(0, 6), (8, 11), (8, 0)]
    assert dataset_folder(dataset) == str(tmp_path)


def test_folders_relative_to_the_working_directory(cfg, tmp_path, make_market_folder, monkeypatch):
    make_market_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    cfg.DATASETS.CUSTOM.ROOT = "mine"
    assert len(build_dataset(cfg, "CustomReID").train) == 4


def test_combineall_leaves_background_out(tmp_path, make_market_folder):
    make_market_folder(tmp_path, train_ids=[5], test_ids=[0, 8], cameras=[1])
    combined = CustomReID(folder=str(tmp_path), combineall=True).train
    assert {item[1] for item in combined} == {"custom_5", "custom_test_8"}


def test_csv(cfg, csv_folder):
    cfg.DATASETS.CUSTOM.ROOT, cfg.DATASETS.CUSTOM.CSV = str(csv_folder), "list.csv"
    dataset = build_dataset(cfg, "CustomReID")
    assert relative(dataset.train, csv_folder) == [
        ("crops/a.jpg", "custom_anna", "custom_hall"),
        ("crops/b.jpg", "custom_ben", "custom_yard"),
    ]
    # kim 1 and zoe 2, hall 0 and yard 1; background is 0, junk is left out.
    assert relative(dataset.query, csv_folder) == [("crops/c.jpg", 2, 1), ("crops/d.jpg", 1, 0)]
    assert relative(dataset.gallery, csv_folder) == [("crops/e.jpg", 2, 0), ("crops/f.jpg", 0, 1)]


def test_root_must_be_given_and_exist(cfg, tmp_path):
    with pytest.raises(ConfigError, match=r"DATASETS\.CUSTOM\.ROOT is empty"):
        build_dataset(cfg, "CustomReID")
    cfg.DATASETS.CUSTOM.ROOT = str(tmp_path / "none")
    with pytest.raises(DataError, match=r"none', which is not a folder"):
        build_dataset(cfg, "CustomReID")


def test_missing_folders_are_named(tmp_path):
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DataError, match=r"has no query and no bounding_box_test; the Market-1501 layout is"):
        read_folders(str(tmp_path))


@pytest.mark.parametrize("name", ["anna_c1.jpg", "12.jpg", "0001_c0s1.jpg", "x0001_c1.jpg"])
def test_images_named_otherwise_are_named(tmp_path, make_market_folder, write_image, name):
    make_market_folder(tmp_path)
    write_image(tmp_path / "query" / name)
    with pytest.raises(DataError, match=rf"query/{name}' is not named <identity>_c<camera>"):
        read_folders(str(tmp_path))


# -- What else lies in the folders of users -------------------------------------------------------


def spoil_with_hidden_files(folder) -> None:
    """What Finder, Explorer, archives of a Mac and network disks put beside images."""
    for split in folder.iterdir():
        first = next(split.iterdir())
        for hidden in (f"._{first.name}", ".DS_Store", "Thumbs.db", "desktop.ini", ".0009_c1.png.swp"):
            (split / hidden).write_bytes(b"\0\5\26\7")
        for hidden in ("__MACOSX", "@eaDir", ".thumbnails"):
            (split / hidden).mkdir()
            (split / hidden / first.name).write_bytes(b"no image")


def put_into_identity_folders(folder) -> None:
    for path in list(folder.glob("*/*.png")):
        (path.parent / path.name[:4]).mkdir(exist_ok=True)
        path.rename(path.parent / path.name[:4] / path.name)


def rename_suffixes(suffix: str):
    def rename(folder) -> None:
        for path in folder.glob("*/*.png"):
            path.rename(path.with_suffix(suffix))

    return rename


def convert(suffix: str):
    def write(folder) -> None:
        for path in list(folder.glob("*/*.png")):
            with Image.open(path) as image:
                image.save(path.with_suffix(suffix), **({"lossless": True} if suffix == ".webp" else {}))
            path.unlink()

    return write


def deepen(folder) -> None:
    """16 bits a pixel, as thermal and depth cameras write; grey, as they are."""
    for path in folder.glob("*/*.png"):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(path)


def flatten(folder) -> None:
    for path in folder.glob("*/*.png"):
        Image.open(path).convert("L").save(path)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_with_hidden_files,
        put_into_identity_folders,
        lambda folder: (put_into_identity_folders(folder), spoil_with_hidden_files(folder)),
        *(rename_suffixes(suffix) for suffix in (".PNG", ".Png", ".jpg", ".jfif")),
        *(convert(suffix) for suffix in (".bmp", ".webp", ".tif", ".TIFF", ".ppm")),
    ],
)
def test_other_forms_of_a_folder_give_the_figures_of_the_clean_one(cfg, clean_folder, copy_folder, figures, spoil):
    cfg.DATASETS.CUSTOM.ROOT = str(clean_folder)
    clean = figures()
    assert clean[:2] == (9, 9) and 0 < clean[3] < 1
    labels = [item[1:] for item in build_dataset(cfg, "CustomReID").train]
    folder = copy_folder()
    spoil(folder)
    cfg.DATASETS.CUSTOM.ROOT = str(folder)
    assert figures() == clean
    assert [item[1:] for item in build_dataset(cfg, "CustomReID").train] == labels


def test_16_bits_give_the_figures_of_8(cfg, copy_folder, figures):
    folders = copy_folder("eight"), copy_folder("sixteen")
    flatten(folders[0])
    deepen(folders[1])
    results = []
    for folder in folders:
        cfg.DATASETS.CUSTOM.ROOT = str(folder)
        results.append(figures())
    assert results[0] == results[1] and 0 < results[0][3] < 1


def test_a_folder_of_an_identity_must_be_that_of_the_name(clean_folder):
    put_into_identity_folders(clean_folder)
    (clean_folder / "query" / "0001" / "0001_c1s1_000001_00.png").rename(
        clean_folder / "query" / "0001" / "0003_c1s1_000001_00.png"
    )
    with pytest.raises(DataError, match=r"0003_c1s1_000001_00.png' is in the folder of identity 1, .* says 3; move or"):
        read_folders(str(clean_folder))


@pytest.mark.parametrize("name", ["1.png", "c1_0001.png"])
def test_a_folder_of_an_identity_alone_does_not_say_the_camera(clean_folder, write_image, name):
    put_into_identity_folders(clean_folder)
    write_image(clean_folder / "query" / "0001" / name)
    with pytest.raises(
        DataError, match=rf"query/0001/{name}' is not named .*describe the images in a CSV: DATASETS.CUSTOM"
    ):
        read_folders(str(clean_folder))
