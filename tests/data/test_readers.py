"""The readers of public data sets, each on a tiny folder in that set's true layout."""

import builtins
import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from mgre.data.datasets import build_dataset, dataset_folder
from mgre.data.published import PUBLISHED_SETS, count_differences
from mgre.errors import DataError, SetupError
from PIL import Image


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    return tmp_path


def names(items, root):
    return sorted((item[0].removeprefix(f"{root}/"), *item[1:]) for item in items)


def test_market1501(cfg, root, make_market_folder, write_image, data_log):
    folder = make_market_folder(root / "Market-1501-v15.09.15", train_ids=[2], test_ids=[1], cameras=[1, 6])
    write_image(folder / "bounding_box_test" / "0000_c2s1_000001_00.jpg")
    write_image(folder / "bounding_box_test" / "-1_c2s1_000001_00.jpg")
    dataset = build_dataset(cfg, "Market1501")
    prefix = "Market-1501-v15.09.15"
    assert names(dataset.train, root) == [
        (f"{prefix}/bounding_box_train/0002_c1s1_000001_00.jpg", "market1501_2", "market1501_0"),
        (f"{prefix}/bounding_box_train/0002_c6s1_000001_00.jpg", "market1501_2", "market1501_5"),
    ]
    assert [item[1:] for item in names(dataset.gallery, root)] == [(0, 1), (1, 0), (1, 5)]
    assert dataset_folder(dataset) == str(folder)
    for text in ("train has 2 images (published: 12936)", "query has 1 identities (published: 750)"):
        assert text in data_log.text
    assert "gallery has 3 images (published: 15913)" in data_log.text


def test_market1501_takes_its_double_endings_and_nothing_that_is_no_image(cfg, root, write_image):
    """The published folder: 24 names end in .jpg.jpg, and one identity has no others; other files lie among them."""
    folder = root / "Market-1501-v15.09.15"
    write_image(folder / "bounding_box_train" / "0002_c1s1_000451_03.jpg")
    write_image(folder / "bounding_box_train" / "0007_c3s3_077419_03.jpg.jpg")
    write_image(folder / "query" / "1488_c1s6_013446_00.jpg.jpg")
    write_image(folder / "query" / "0001_c1s1_001051_00.jpg")
    write_image(folder / "bounding_box_test" / "1488_c2s6_013721_01.jpg.jpg")
    write_image(folder / "bounding_box_test" / "1488_c5s3_064937_02.jpg.jpg")
    write_image(folder / "bounding_box_test" / "0001_c2s1_000301_00.jpg")
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / split / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        (folder / split / "readme.txt").write_text("for research only")
    (folder / "readme.txt").write_text("for research only")
    dataset = build_dataset(cfg, "Market1501")
    assert [item[1:] for item in names(dataset.train, root)] == [
        ("market1501_2", "market1501_0"),
        ("market1501_7", "market1501_2"),
    ]
    assert [item[1:] for item in names(dataset.query, root)] == [(1, 0), (1488, 0)]
    assert [item[1:] for item in names(dataset.gallery, root)] == [(1, 1), (1488, 1), (1488, 4)]


def test_dukemtmc(cfg, root, make_market_folder, data_log):
    folder = make_market_folder(root / "DukeMTMC-reID", train_ids=[1, 5], test_ids=[2], cameras=[2, 8])
    dataset = build_dataset(cfg, "DukeMTMC")
    assert len(dataset.train) == 4
    assert [item[1:] for item in names(dataset.query, root)] == [(2, 1), (2, 7)]
    assert dataset_folder(dataset) == str(folder)
    assert "train has 4 images (published: 16522), train has 2 identities (published: 702)" in data_log.text


def test_msmt17(cfg, root, write_image, data_log):
    folder = root / "MSMT17_V1"
    lists = {
        "train": ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0040_0.jpg 1"],
        "val": ["0000/0000_001_03_0303morning_0020_0.jpg 0"],
        "query": ["0000/0000_000_05_0303morning_0008_1.jpg 0"],
        "gallery": ["0000/0000_001_14_0303morning_0032_1.jpg 0", "0001/0001_002_02_0303morning_0050_1.jpg 1"],
    }
    for split, lines in lists.items():
        for line in lines:
            write_image(folder / ("train" if split in ("train", "val") else "test") / line.split()[0])
        (folder / f"list_{split}.txt").write_text("\n".join(lines) + "\n")
    dataset = build_dataset(cfg, "MSMT17")
    assert names(dataset.train, root) == [
        (f"MSMT17_V1/train/{lists['train'][0].split()[0]}", "msmt17_0", "msmt17_0"),
        (f"MSMT17_V1/train/{lists['train'][1].split()[0]}", "msmt17_1", "msmt17_14"),
    ]
    # Test identities are numbered after the two training identities.
    assert [item[1:] for item in names(dataset.gallery, root)] == [(2, 13), (3, 1)]
    assert dataset_folder(dataset) == str(folder)
    assert "train has 2 images (published: 30248)" in data_log.text


class FullSet(ImageDataset):
    """As many images and identities as asked for."""

    def __init__(self, counts):
        splits = [
            [(f"{split}/{i}.jpg", i % (num_identities or 2), 0) for i in range(num_images)]
            for split, (num_images, num_identities) in counts.items()
        ]
        super().__init__(*splits)


@pytest.mark.parametrize("name", sorted(PUBLISHED_SETS))
def test_published_counts_give_no_warning_and_one_image_less_does(name):
    assert DATASET_REGISTRY.get(name)
    counts = dict(PUBLISHED_SETS[name].counts)
    assert count_differences(FullSet(counts), name, combineall=False) == []
    counts["train"] = (counts["train"][0] - 1, counts["train"][1])
    published = PUBLISHED_SETS[name].counts["train"][0]
    assert count_differences(FullSet(counts), name, combineall=False) == [
        f"train has {published - 1} images (published: {published})"
    ]
    assert count_differences(FullSet(counts), name, combineall=True) == []


def test_published_numbers():
    """The sums that the data sets' papers state."""
    totals = {name: sum(images for images, _ in known.counts.values()) for name, known in PUBLISHED_SETS.items()}
    assert totals == {
        "Market1501": 32668 - 3819 + 3368,  # boxes, less junk, and the drawn queries
        "DukeMTMC": 36411,
        "MSMT17": 126441 - 2373,  # less the validation list
        "CUHK03": 14096,
        "CUHK03Labeled": 14096,
        "CUHK03Detected": 14097,
    }


def write_cuhk03(folder):
    """One camera pair with three identities of one image in each of its two views, boxes 12 x 6 pixels.

    In MATLAB's file an image is 3 x width x height, all lists are cells of references, and 10 cells belong to an
    identity: five of the first view, five of the second; an empty one holds its shape.
    """
    release = folder / "cuhk03_release"
    release.mkdir(parents=True)
    with h5py.File(release / "cuhk-03.mat", "w") as mat:

        def refer(name, value):
            return mat.create_dataset(name, data=value).ref

        def cell(name, refs, shape):
            data = mat.create_dataset(name, shape, dtype=h5py.ref_dtype)
            for index, ref in zip(np.ndindex(*shape), refs, strict=True):
                data[index] = ref
            return data.ref

        for kind, level in (("detected", 50), ("labeled", 90)):
            cells = []
            for position in range(10):
                for identity in range(3):
                    shown = position in (0, 5)
                    value = np.full((3, 6, 12), level + identity, np.uint8) if shown else np.zeros(2, np.uint64)
                    cells.append(refer(f"{kind}_{identity}_{position}", value))
            cell(kind, [cell(f"{kind}_pair", cells, (10, 3))], (1, 1))
        cell("testsets", [refer("testset", np.array([[1.0], [2.0]]))], (1, 1))
    for kind in ("detected", "labeled"):
        files = [
            f"1_{identity:03d}_{view}_{image:02d}.png" for identity in (1, 2, 3) for view, image in ((1, 1), (2, 6))
        ]
        scipy.io.savemat(
            folder / f"cuhk03_new_protocol_config_{kind}.mat",
            {
                "train_idx": np.array([[1], [2]], np.uint16),
                "query_idx": np.array([[3]], np.uint16),
                "gallery_idx": np.array([[4], [5], [6]], np.uint16),
                "labels": np.array([[1], [1], [2], [2], [3], [3]], np.uint16),
                "filelist": np.array(files, dtype=object)[:, None],
            },
        )


@pytest.mark.parametrize(("name", "level"), [("CUHK03Detected", 50), ("CUHK03Labeled", 90)])
def test_cuhk03(cfg, root, data_log, name, level):
    write_cuhk03(root / "cuhk03")
    dataset = build_dataset(cfg, name)
    folder = f"cuhk03/images_{name.removeprefix('CUHK03').lower()}"
    assert names(dataset.train, root) == [
        (f"{folder}/1_001_1_01.png", "cuhk03_0", "cuhk03_0"),
        (f"{folder}/1_001_2_06.png", "cuhk03_0", "cuhk03_1"),
    ]
    assert names(dataset.query, root) == [(f"{folder}/1_002_1_01.png", 2, 0)]
    assert [item[1:] for item in names(dataset.gallery, root)] == [(2, 1), (3, 0), (3, 1)]
    image = np.asarray(Image.open(dataset.query[0][0]))
    assert image.shape == (12, 6, 3)
    assert (image == level + 1).all()
    assert dataset_folder(dataset) == str(root / "cuhk03")
    assert f"train has 2 images (published: {7365 if level == 50 else 7368})" in data_log.text


def test_cuhk03_may_be_moved_after_its_first_use(cfg, root, monkeypatch):
    write_cuhk03(root / "cuhk03")
    build_dataset(cfg, "CUHK03Detected")
    shutil.move(root / "cuhk03", root / "elsewhere" / "cuhk03")
    monkeypatch.setenv("FASTREID_DATASETS", str(root / "elsewhere"))
    dataset = build_dataset(cfg, "CUHK03Detected")
    assert dataset.query[0][0] == str(root / "elsewhere/cuhk03/images_detected/1_002_1_01.png")


def test_cuhk03_without_its_packages(cfg, root, monkeypatch):
    write_cuhk03(root / "cuhk03")
    real_import = builtins.__import__

    def without_h5py(name, *args, **kwargs):
        if name == "h5py":
            raise ModuleNotFoundError("No module named 'h5py'", name="h5py")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(SetupError, match=r"need the package h5py: pip install h5py imageio$"):
        build_dataset(cfg, "CUHK03Labeled")
    with pytest.raises(SetupError, match="CUHK03 needs the package h5py: pip install h5py"):
        build_dataset(cfg, "CUHK03")


@pytest.mark.parametrize("name", sorted(PUBLISHED_SETS))
def test_a_missing_folder_says_where_and_what_to_do(cfg, root, name):
    with pytest.raises(DataError) as caught:
        build_dataset(cfg, name)
    message = str(caught.value)
    for text in (name, str(root), PUBLISHED_SETS[name].layout, "FASTREID_DATASETS"):
        assert text in message
    assert "\n" not in message


def test_a_wrong_layout_says_what_is_expected(cfg, root, make_market_folder):
    folder = make_market_folder(root / "Market-1501-v15.09.15")
    shutil.rmtree(folder / "query")
    with pytest.raises(DataError, match=r"looked for Market-1501-v15.09.15/.*query\" is not found\)$"):
        build_dataset(cfg, "Market1501")


def test_a_broken_list_is_a_data_error(cfg, root):
    write_cuhk03(root / "cuhk03")
    build_dataset(cfg, "CUHK03Detected")
    (root / "cuhk03" / "splits_new_detected.json").write_text(json.dumps([])[:-1])
    with pytest.raises(DataError, match=r"splits_new_detected.json' is damaged \(.*\); remove it, and the next start"):
        build_dataset(cfg, "CUHK03Detected")
    (root / "cuhk03" / "splits_new_detected.json").unlink()
    assert len(build_dataset(cfg, "CUHK03Detected").gallery) == 3


@pytest.mark.parametrize("name", ["CUHK03", "CUHK03Detected"])
@pytest.mark.parametrize(
    ("file", "damage", "kind"),
    [
        ("cuhk03_release/cuhk-03.mat", lambda content: b"<!doctype html><title>Quota exceeded</title>", "a web page"),
        ("cuhk03_release/cuhk-03.mat", lambda content: content[: len(content) // 2], "cut short or damaged"),
        ("cuhk03_new_protocol_config_labeled.mat", lambda content: b"<html>Sign in</html>", "a web page"),
        ("cuhk03_new_protocol_config_detected.mat", lambda content: content[:300], "cut short or damaged"),
    ],
)
def test_a_faulty_matlab_file_is_found_before_anything_is_extracted(cfg, root, name, file, damage, kind):
    write_cuhk03(root / "cuhk03")
    path = root / "cuhk03" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{file}' is {kind}.*; download it again \(no image has been extracted\)"):
        build_dataset(cfg, name)
    assert not list(root.rglob("*.png"))


@pytest.mark.parametrize(
    ("name", "file", "damage", "message"),
    [
        ("Market1501", "Market-1501-v15.09.15.zip", lambda content: content, "; unpack '{}' there"),
        ("DukeMTMC", "DukeMTMC-reID.zip", lambda content: content[:-30], "; '{}' is cut short (118 bytes, and the "),
        ("MSMT17", "MSMT17_V1.tar.gz", lambda content: b"<html>Drive</html>", "; '{}' is a web page, not an archive: "),
        ("CUHK03Labeled", "cuhk03_release.zip", lambda content: b"", "; '{}' is empty (0 bytes), not an archive: "),
    ],
)
def test_a_download_that_lies_there_packed_or_is_none(cfg, root, name, file, damage, message):
    archive = root / file
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a.jpg", b"1234567890" * 4)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(DataError) as caught:
        build_dataset(cfg, name)
    assert f"{name} cannot be read from '{root}'" in str(caught.value)
    assert message.format(archive) in str(caught.value)
