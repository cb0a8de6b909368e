import numpy as np
import pytest
from mgre.data.keypoints import ImageKeypoints
from mgre.errors import DataError, SetupError
from mgre.pose import report
from mgre.pose.report import is_sheet, require_free_sheets, save_sheets, sheet_paths, summarise
from mgre.regions import TABLE1
from PIL import Image


def keypoints(scores, size=(40, 20)) -> ImageKeypoints:
    points = np.column_stack([np.full(17, 3.0), np.full(17, 4.0), np.broadcast_to(scores, 17)])
    return ImageKeypoints(points.astype(np.float32), size)


def test_summary_counts_images_and_averages_each_joint():
    scores = np.linspace(0, 0.8, 17)
    lines = summarise({"a": keypoints(scores), "b": keypoints(0.2)}, min_score=0.3).splitlines()
    cells = [line.split() for line in lines]
    assert ["images", "2"] in cells
    assert ["images", "with", "no", "trusted", "point", "1"] in cells  # b: all of 0.2
    assert ["nose", "0.10", "0.0"] in cells  # (0 + 0.2) / 2
    assert ["right_ankle", "0.50", "50.0"] in cells  # (0.8 + 0.2) / 2, trusted in a alone


def test_summary_of_nothing():
    assert summarise({}, min_score=0.3).split() == ["images", "0", "images", "with", "no", "trusted", "point", "0"]


@pytest.mark.parametrize(("num_shown", "num_tiles"), [(3, 3), (24, 6)])
def test_the_worst_sheet_begins_with_the_lowest_scores(tmp_path, monkeypatch, num_shown, num_tiles):
    monkeypatch.setattr(report, "NUM_SHOWN", num_shown)
    found = {}
    for index, score in enumerate((0.9, 0.2, 0.7, 0.1, 0.8, 0.5)):
        Image.new("RGB", (20, 40), (40 * index, 10, 10)).save(tmp_path / f"{index}.png")
        found[f"{index}.png"] = keypoints(score)
    paths = sheet_paths(str(tmp_path / "keypoints.json"))
    save_sheets(found, str(tmp_path), paths, regions=TABLE1, min_score=2.0)
    # Crops of 40 x 20 are shown 7.2 times as large, 4 pixels apart; in the lower right corner nothing is drawn.
    reds = {kind: np.asarray(Image.open(path))[4 + 287, 4 + 143 :: 148, 0].tolist() for kind, path in paths.items()}
    assert [red // 40 for red in reds["worst"]][:num_tiles] == [3, 1, 5, 2, 4, 0][:num_tiles]
    assert [red // 40 for red in reds["sample"]][:num_tiles] == ([0, 2, 5] if num_tiles == 3 else list(range(6)))


@pytest.fixture
def save(tmp_path):
    """Save the sheets of crops of some sizes; their paths."""

    def run(*sizes, name="keypoints.json"):
        found = {}
        for index, (height, width) in enumerate(sizes):
            pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{index}.png")
            points = np.random.default_rng(index).uniform(0, 1, (17, 3)) * (width, height, 1)
            found[f"{index}.png"] = ImageKeypoints(points.astype(np.float32), (height, width))
        paths = sheet_paths(str(tmp_path / name))
        assert save_sheets(found, str(tmp_path), paths, regions=TABLE1, min_score=0.3) == {}
        return paths

    return run


@pytest.mark.parametrize("sizes", [[(4, 200)] * 24, [(200, 4)] * 24, [(2, 2), (2000, 3), (3, 2000), (128, 64)] * 6])
def test_sheets_of_odd_crops_are_of_a_size_to_look_at(save, sizes):
    for path in save(*sizes).values():
        with Image.open(path) as sheet:  # eight crops of at most 288 x 192 in a row, and the legend
            assert sheet.width <= 8 * (192 + 4) + 4 and sheet.height <= 3 * (288 + 4) + 4 + 100


def test_crops_keep_their_shape_on_a_sheet(save):
    for path in save(*[(30, 90)] * 8).values():
        with Image.open(path) as sheet:
            assert sheet.width == 8 * (192 + 4) + 4 and 64 + 8 < sheet.height < 64 + 8 + 100


def test_sheets_are_known_by_themselves(tmp_path, save):
    assert [is_sheet(path) for path in save((40, 20), name="other.json").values()] == [True, True]
    for name in ("a_worst.png", "b_sample.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
        assert not is_sheet(str(tmp_path / name))
    (tmp_path / "c_worst.png").write_bytes(b"no image")
    assert not is_sheet(str(tmp_path / "c_worst.png"))
    assert not is_sheet(str(tmp_path / "none_worst.png"))


def test_sheets_replace_sheets_and_nothing_else(tmp_path, save):
    output = str(tmp_path / "keypoints.json")
    require_free_sheets(output, [], overwrite=False)
    worst = save((40, 20))["worst"]
    require_free_sheets(output, [], overwrite=False)
    Image.new("RGB", (9, 9)).save(worst)
    with pytest.raises(DataError, match=r"would replace '.*keypoints_worst.png', which is none: add --overwrite"):
        require_free_sheets(output, [], overwrite=False)
    require_free_sheets(output, [], overwrite=True)
    with pytest.raises(DataError, match=r"would replace the image '.*keypoints_worst.png': choose another --output"):
        require_free_sheets(output, [worst], overwrite=True)


def test_images_that_cannot_be_shown_are_told_and_the_others_are_shown(tmp_path, save):
    save(*[(40, 20)] * 6)
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    paths = sheet_paths(str(tmp_path / "new.json"))
    found = {f"{index}.png": keypoints(0.5) for index in range(6)}
    faulty = save_sheets(found, str(tmp_path), paths, regions=TABLE1, min_score=0.3)
    assert list(faulty) == ["0.png"] and "0.png' cannot be read" in faulty["0.png"]
    assert Image.open(paths["worst"]).width == 5 * (144 + 4) + 4


def test_a_sheet_that_cannot_be_written(tmp_path, save, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match=r"keypoints_sample.png' cannot be written \(No space left .* with --sheets"):
        save((40, 20))
    assert not list(tmp_path.glob("*keypoints_*"))
