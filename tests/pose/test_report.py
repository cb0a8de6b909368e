import numpy as np
import pytest
from mgre.data.keypoints import ImageKeypoints
from mgre.pose import report
from mgre.pose.report import save_sheets, sheet_paths, summarise
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
    # Crops of 40 x 20 are shown 7 times as large, 4 pixels apart; in the lower right corner nothing is drawn.
    reds = {kind: np.asarray(Image.open(path))[4 + 279, 4 + 139 :: 144, 0].tolist() for kind, path in paths.items()}
    assert [red // 40 for red in reds["worst"]][:num_tiles] == [3, 1, 5, 2, 4, 0][:num_tiles]
    assert [red // 40 for red in reds["sample"]][:num_tiles] == ([0, 2, 5] if num_tiles == 3 else list(range(6)))
