import pytest
from mgre.data.custom import CustomReID, read_csv, read_folders
from mgre.data.datasets import build_dataset, dataset_folder
from mgre.errors import ConfigError, DataError

CSV = """path,identity,camera,split
crops/a.jpg,anna,hall,train
crops/b.jpg,ben,yard,train
crops/c.jpg,zoe,yard,query
crops/d.jpg,kim,hall,query
crops/e.jpg,zoe,hall,gallery
crops/f.jpg,0,yard,gallery
crops/g.jpg,-1,yard,gallery
"""


@pytest.fixture
def csv_folder(tmp_path, write_image):
    for name in "abcdefg":
        write_image(tmp_path / "crops" / f"{name}.jpg")
    (tmp_path / "list.csv").write_text(CSV)
    return tmp_path


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


def test_csv_of_a_spreadsheet_with_other_columns(csv_folder):
    (csv_folder / "list.csv").write_bytes(
        "\ufeffsplit,note,camera,identity,path\r\ntrain,x, 1 ,7,./crops/a.jpg\r\n".encode()
    )
    splits = read_csv(str(csv_folder), "list.csv")
    assert splits == {"train": [(f"{csv_folder}/crops/a.jpg", "7", "1")], "query": [], "gallery": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"list\.csv' line 1: no column path, identity, camera, split"),
        ("path,identity,camera\n", r"line 1: no column split; the header must name path, identity, camera, split"),
        (CSV.replace("ben,yard", "ben,"), "line 3: camera is empty"),
        (CSV.replace("crops/b.jpg,ben,yard,train", "crops/b.jpg,ben"), "line 3: camera, split is empty"),
        (CSV.replace("yard,query", "yard,test"), "line 4: split is 'test'; it must be one of train, query, gallery"),
        (CSV.replace("d.jpg", "missing.jpg"), r"line 5: image 'crops/missing\.jpg' does not exist"),
        (CSV.replace("crops/d.jpg", "crops/../crops/a.jpg"), r"line 5: 'crops/a\.jpg' is in line 2 already"),
        (CSV.replace("crops/d.jpg", "crops/../../d.jpg"), r"line 5: 'crops/\.\./\.\./d\.jpg' is outside"),
        (CSV.replace("crops/d.jpg", "/etc/d.jpg"), r"line 5: '/etc/d\.jpg' is outside"),
        (b"path,identity,camera,split\n\xff\xfe,1,1,train\n", "cannot be read as CSV in UTF-8"),
    ],
)
def test_csv_faults_name_the_line(csv_folder, content, message):
    (csv_folder / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_csv(str(csv_folder), "list.csv")
    assert str(csv_folder / "list.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_csv(csv_folder):
    with pytest.raises(DataError, match=r"other\.csv' does not exist; its path is relative to DATASETS.CUSTOM.ROOT"):
        read_csv(str(csv_folder), "other.csv")


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
