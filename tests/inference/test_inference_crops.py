"""Crops from files, CSVs and videos, against crops cut by hand."""

import sys

import cv2
import numpy as np
import pytest
from mgre.errors import DataError, SetupError
from mgre.inference.crops import list_csv, list_files, list_video, read_crops
from PIL import Image

RESIZE = Image.Resampling.BICUBIC


def read(crops, model, num_ahead=4):
    return {reading.number: reading for reading in read_crops(crops, model.record, num_ahead=num_ahead)}


def by_hand(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((4, 8), RESIZE)).transpose(2, 0, 1)


def test_folders_are_listed_with_those_below_and_a_file_once(tmp_path, write_image):
    paths = [write_image(tmp_path / name) for name in ("a/2.png", "a/b/1.png", "c.png")]
    (tmp_path / "a" / "notes.txt").touch()
    crops = list_files([str(paths[0]), str(tmp_path / "a"), str(paths[2])])
    assert [crop.path for crop in crops] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("name", "message"), [("none", "'.*none' is not there: name image"), ("empty", "empty' has no images")]
)
def test_nothing_to_list(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        list_files([str(tmp_path / name)])


def test_boxes_of_a_csv(tmp_path, write_image, plain_model):
    """Decoded once for each picture, whatever the order of the lines."""
    for name in ("a", "b"):
        write_image(tmp_path / "frames" / f"{name}.png", (40, 30))
    (tmp_path / "boxes.csv").write_text(
        "camera;path;x_min;y_min;x_max;y_max;coat\n"
        "hall;frames/a.png;1;2;11;22;red\n"
        "yard;frames\\b.png;0;0;30;40;\n"
        "hall;frames/a.png;-5;10,5;99;20;blue\n"
        "hall;frames/none.png;1;2;11;22;\n"
        "hall;frames/a.png;30;2;40;9;green\n"
    )
    crops = list_csv(str(tmp_path / "boxes.csv"))
    assert crops[0].facts == {"camera": "hall", "coat": "red"}
    readings = read(crops, plain_model())
    a, b = (Image.open(tmp_path / "frames" / f"{name}.png") for name in ("a", "b"))
    for number, image in ((0, a.crop((1, 2, 11, 22))), (1, b), (2, a.crop((0, 10, 30, 20)))):
        np.testing.assert_array_equal(readings[number].pixels, by_hand(image))
    assert "none.png' does not exist" in readings[3].fault
    assert "boxes.csv' line 6: the box, [30.0, 2.0, 40.0, 9.0], is empty or lies outside the frame" in readings[4].fault
    assert list(readings) == [0, 2, 4, 1, 3]


def test_a_csv_without_boxes_is_of_whole_images(tmp_path, write_image):
    path = write_image(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,time\na.png,2026-11-27\n")
    (crop,) = list_csv(str(tmp_path / "list.csv"))
    assert (crop.path, crop.box, crop.facts) == (str(path), None, {"time": "2026-11-27"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\n", "line 1: no column path"),
        ("path,x_min\na.png,1\n", "line 1: no column y_min, x_max, y_max"),
        ("path,x_min,y_min,x_max,y_max\na.png,1,2,left,4\n", "line 2: x_max is 'left'; give a number"),
        ("path,x_min,y_min,x_max,y_max\na.png,1,2,nan,4\n", "line 2: x_max is 'nan'; give a number"),
        ("path,x_min,y_min,x_max,y_max\n,1,2,3,4\n", "line 2: path is empty"),
    ],
)
def test_a_wrong_line_stops_before_any_work(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        list_csv(str(tmp_path / "boxes.csv"))


@pytest.fixture
def video(tmp_path):
    """Ten frames; frame i is of the grey value 20 i on the left and black on the right."""
    path = str(tmp_path / "video.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 32))
    for number in range(10):
        frame = np.zeros((32, 64, 3), np.uint8)
        frame[:, :32, 2] = 20 * number  # OpenCV's order is blue, green, red
        writer.write(frame)
    writer.release()
    return path


def test_boxes_of_a_video(tmp_path, video, plain_model):
    (tmp_path / "v.csv").write_text(
        "frame,x_min,y_min,x_max,y_max,track\n7,2,2,30,30,1\n2,34,2,62,30,2\n2,2,2,30,30,3\n99,0,0,9,9,4\n10,0,0,9,9,5\n"
    )
    crops = list_video(video, str(tmp_path / "v.csv"))
    readings = read(crops, plain_model(), num_ahead=1)
    means = {number: readings[number].pixels.mean(axis=(1, 2)) for number in range(3)}
    np.testing.assert_allclose([means[0], means[1], means[2]], [[140, 0, 0], [0, 0, 0], [40, 0, 0]], atol=4)
    assert readings[3].fault == readings[4].fault
    assert "video.avi' ends, or is damaged, after 10 frames" in readings[3].fault
    assert crops[0].facts == {"track": "1"} and crops[0].name == f"{video} frame 7"


@pytest.mark.parametrize(
    ("frame", "message"), [("-1", "frame is '-1'; frames are whole"), ("1.5", "frame is '1.5'"), ("", "frame is ''")]
)
def test_a_frame_is_a_whole_number(tmp_path, video, frame, message):
    (tmp_path / "v.csv").write_text(f"frame,x_min,y_min,x_max,y_max\n{frame},2,2,30,30\n")
    with pytest.raises(DataError, match=message):
        list_video(video, str(tmp_path / "v.csv"))


def test_what_is_no_video(tmp_path, plain_model):
    (tmp_path / "v.csv").write_text("frame,x_min,y_min,x_max,y_max\n1,2,2,30,30\n")
    (tmp_path / "v.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"v\.mp4' cannot be read by OpenCV"):
        read(list_video(str(tmp_path / "v.mp4"), str(tmp_path / "v.csv")), plain_model())
    with pytest.raises(DataError, match=r"none\.mp4' is not there"):
        list_video(str(tmp_path / "none.mp4"), str(tmp_path / "v.csv"))


def test_without_opencv_a_video_is_one_line(tmp_path, video, plain_model, monkeypatch):
    (tmp_path / "v.csv").write_text("frame,x_min,y_min,x_max,y_max\n1,2,2,30,30\n")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SetupError, match="pip install opencv-python-headless"):
        read(list_video(video, str(tmp_path / "v.csv")), plain_model())
