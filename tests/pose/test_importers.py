import json
import logging

import numpy as np
import pytest
from mgre.data.coco_file import load_keypoints, write_keypoints
from mgre.errors import DataError
from mgre.pose.images import find_images
from mgre.pose.importers import IMPORTERS
from PIL import Image

SIZE = (40, 20)
# x, y, score of 17 points, all inside an image of SIZE.
POINTS = [[float(i + 1), float(2 * i + 1), 0.5 + i / 50] for i in range(17)]
FLAT = [value for row in POINTS for value in row]


def changed(index, *values):
    """FLAT with another x, y and score of one point."""
    return [*FLAT[: 3 * index], *values, *FLAT[3 * index + 3 :]]


@pytest.fixture
def folder(tmp_path, write_image):
    for name in ("bounding_box_train/a.jpg", "bounding_box_train/b.jpg", "query/b.jpg", "query/c.png"):
        write_image(tmp_path / "set" / name, SIZE)
    return tmp_path / "set"


def run(form, source, folder, min_score=0.3):
    """Import the key points of all images in the folder; what was found."""
    return IMPORTERS[form](source, list(find_images(str(folder))), str(folder), min_score=min_score)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def coco(keypoints, file_name="query/c.png", **image):
    entry = {"id": 7, "file_name": file_name, "height": SIZE[0], "width": SIZE[1], **image}
    return {"images": [entry], "annotations": [{"image_id": 7, "keypoints": keypoints}]}


def boxmot(keypoints, name="query/c.png", image_size=SIZE):
    return {"version": 2, "images": {name: {"image_size": list(image_size), "keypoints": keypoints}}}


def normalised(points):
    return [[x / SIZE[1], y / SIZE[0], score] for x, y, score in points]


def assert_points(keypoints, expected=POINTS):
    assert keypoints.size == SIZE
    np.testing.assert_allclose(keypoints.points, np.float32(expected), rtol=1e-6)


def test_coco_by_path_and_by_bare_name(folder, tmp_path):
    other = changed(3, 9, 8, 0.7)
    content = {
        "images": [
            {"id": 1, "file_name": "bounding_box_train\\a.jpg", "height": 40, "width": 20},
            {"id": "x", "file_name": "c.png"},
        ],
        "annotations": [{"image_id": "x", "keypoints": other}, {"image_id": 1, "keypoints": FLAT}],
    }
    found = run("coco", write(tmp_path / "k.json", content), folder).keypoints
    assert set(found) == {"bounding_box_train/a.jpg", "query/c.png"}
    assert_points(found["bounding_box_train/a.jpg"])
    assert_points(found["query/c.png"], np.reshape(other, (17, 3)))


def test_coco_results_list_takes_the_best_person(folder, tmp_path):
    content = [
        {"image_id": "a.jpg", "category_id": 1, "keypoints": changed(0, 5, 5, 0.9), "score": 1.2},
        {"image_id": "a.jpg", "category_id": 1, "keypoints": FLAT, "score": 2.5},
        {"image_id": "query/b.jpg", "category_id": 1, "keypoints": FLAT, "score": 0.1},
    ]
    found = run("coco", write(tmp_path / "results.json", content), folder).keypoints
    assert set(found) == {"bounding_box_train/a.jpg", "query/b.jpg"}
    assert_points(found["bounding_box_train/a.jpg"])


def test_coco_visibility_becomes_trust(folder, tmp_path):
    flags = [0, 1, 2] * 5 + [2, 2]
    content = coco([value for (x, y, _), flag in zip(POINTS, flags, strict=True) for value in (x, y, flag)])
    found = run("coco", write(tmp_path / "k.json", content), folder).keypoints["query/c.png"]
    assert found.points[:, 2].tolist() == [0, 1, 1] * 5 + [1, 1]


@pytest.mark.parametrize("form", ["coco", "boxmot", "kpr"])
def test_a_point_at_the_origin_is_none(folder, tmp_path, form):
    points = [[0.0, 0.0, 0.45], *POINTS[1:]]
    flat = [value for row in points for value in row]
    if form == "kpr":
        write(tmp_path / "k" / "query" / "c.json", [{"keypoints": flat}])
        source = str(tmp_path / "k")
    else:
        source = write(tmp_path / "k.json", coco(flat) if form == "coco" else boxmot(normalised(points)))
    found = run(form, source, folder).keypoints["query/c.png"]
    assert_points(found, [[0, 0, 0], *POINTS[1:]])


def test_points_of_coco_outside_the_image_are_not_trusted(folder, tmp_path):
    points = [[-1, 5, 0.9], [5, 41, 0.8], [20, 40, 0.7], *POINTS[3:]]
    content = coco([value for row in points for value in row])
    found = run("coco", write(tmp_path / "k.json", content), folder).keypoints["query/c.png"]
    assert_points(found, [[-1, 5, 0], [5, 41, 0], *points[2:]])


@pytest.mark.parametrize("as_folder", [False, True])
def test_boxmot(folder, tmp_path, as_folder):
    outside = [[-0.01, 0.5, 0.9], [0.5, 1.01, 0.8], *normalised(POINTS)[2:]]
    content = boxmot(normalised(POINTS), "bounding_box_train/b.jpg")
    content["images"]["query/c.png"] = {"keypoints": outside}
    content["images"]["query/b.jpg"] = {"person_mask": "person/query/b.png"}
    path = write(tmp_path / "boxmot" / "metadata.json", content)
    found = run("boxmot", str(tmp_path / "boxmot") if as_folder else path, folder).keypoints
    assert set(found) == {"bounding_box_train/b.jpg", "query/c.png"}
    assert_points(found["bounding_box_train/b.jpg"])
    assert_points(found["query/c.png"], [[-0.2, 20, 0], [10, 40.4, 0], *POINTS[2:]])


def test_kpr_takes_the_target(folder, tmp_path):
    labels = tmp_path / "labels"
    others = [{"keypoints": [[1, 1, 1]] * 17, "is_target": False}]
    write(labels / "bounding_box_train" / "a.jpg_keypoints.json", [*others, {"keypoints": FLAT, "is_target": True}])
    write(labels / "bounding_box_train" / "b.json", [{"keypoints": POINTS}, {"keypoints": [[1, 1, 1]] * 17}])
    write(labels / "query" / "b.jpg_keypoints.json", others)  # no target
    write(labels / "query" / "c.jpg_keypoints.json", {"keypoints": POINTS, "is_target": False})  # one: its own target
    found = run("kpr", str(labels), folder).keypoints
    assert set(found) == {"bounding_box_train/a.jpg", "bounding_box_train/b.jpg", "query/c.png"}
    for keypoints in found.values():
        assert_points(keypoints)


def test_kpr_beside_the_images_with_empty_files(folder):
    write(folder / "query" / "b_keypoints.json", [{"keypoints": POINTS}])
    write(folder / "query" / "c.json", [])
    assert set(run("kpr", str(folder), folder).keypoints) == {"query/b.jpg"}


def test_images_that_are_not_there_are_told(folder, tmp_path, caplog):
    content = boxmot(normalised(POINTS))
    content["images"]["query/gone.jpg"] = {"keypoints": normalised(POINTS)}
    logger = logging.getLogger("mgre.pose")
    logger.addHandler(caplog.handler)
    try:
        found = run("boxmot", write(tmp_path / "m.json", content), folder).keypoints
    finally:
        logger.removeHandler(caplog.handler)
    assert set(found) == {"query/c.png"}
    assert "key points of 1 images that are not among those of" in caplog.text
    assert "first query/gone.jpg" in caplog.text


@pytest.mark.parametrize("form", ["coco", "boxmot"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../b.jpg", "image '../b.jpg' is not in the images' folder; write file names relative"),
        ("query/../../b.jpg", "is not in the images' folder"),
        ("/set/query/c.png", "image '/set/query/c.png' is not in the images' folder"),
        ("C:\\set\\c.png", "is not in the images' folder"),
        ("b.jpg", "image 'b.jpg' may be 'bounding_box_train/b.jpg' or 'query/b.jpg'"),
        ("other/d.jpg", "key points of no image in .* same data set"),
    ],
)
def test_names(folder, tmp_path, form, name, message):
    content = coco(FLAT, name) if form == "coco" else boxmot(normalised(POINTS), name)
    with pytest.raises(DataError, match=message) as caught:
        run(form, write(tmp_path / "k.json", content), folder)
    assert "k.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("coco", {"images": []}, "has the lists 'images' and 'annotations', or is a list of results"),
        ("coco", 3, "has the lists"),
        ("coco", {"images": [{"id": 1}], "annotations": []}, r"images\[0\] needs an id and a file_name"),
        ("coco", [{"image_id": "a.jpg"}], r"annotations\[0\] needs an image_id and a list 'keypoints'"),
        ("coco", [{"image_id": 139, "keypoints": FLAT}], "needs file names for image_id, but has 139"),
        (
            "coco",
            {"images": [], "annotations": [{"image_id": 1, "keypoints": FLAT}]},
            r"image_id 1 of annotations\[0\] is not in 'images'",
        ),
        ("coco", coco(FLAT, height=80), r"'query/c.png' had the \[height, width\] \[80, 20\], but .* has \[40, 20\]"),
        (
            "coco",
            {"images": [coco(FLAT)["images"][0], coco(FLAT, "b.jpg")["images"][0]], "annotations": []},
            "gives id 7 to two images, 'query/c.png' and 'b.jpg'",
        ),
        ("coco", coco(FLAT[:48]), "'query/c.png' are 48 values, not 51"),
        ("coco", coco(changed(2, 90, 3, 0.9)), "right_eye of 'query/c.png' is at x 90, y 3 .*outside the image"),
        ("boxmot", [], "metadata.json needs an object 'images'"),
        ("boxmot", boxmot(POINTS[:16]), "'query/c.png' are 48 values, not 51"),
        ("boxmot", boxmot("many"), "the key points of 'query/c.png' are not a list"),
        ("boxmot", boxmot(POINTS, image_size=(20, 40)), r"had the \[height, width\] \[20, 40\]"),
    ],
)
def test_malformed_files(folder, tmp_path, form, content, message):
    path = write(tmp_path / "k.json", content)
    with pytest.raises(DataError, match=message) as caught:
        run(form, path, folder)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"score": 1}], "lists of people with 'keypoints'"),
        ([{"keypoints": FLAT, "is_target": True}] * 2, "'is_target' is true of 2 people"),
        ([{"keypoints": FLAT[:50]}], "'query/c.png' are 50 values, not 51"),
        ([{"keypoints": [["x", 1, 1]] * 17}], "'query/c.png' are not all numbers"),
    ],
)
def test_malformed_kpr_files(folder, tmp_path, content, message):
    path = write(tmp_path / "k" / "query" / "c.json", content)
    with pytest.raises(DataError, match=message) as caught:
        run("kpr", str(tmp_path / "k"), folder)
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("form", "message"),
    [("coco", "does not exist; give the path"), ("boxmot", "give BoxMOT's metadata.json"), ("kpr", "of no image in")],
)
def test_missing_source(folder, tmp_path, form, message):
    with pytest.raises(DataError, match=message):
        run(form, str(tmp_path / "none"), folder)


@pytest.mark.parametrize("form", ["coco", "boxmot", "kpr"])
def test_images_that_cannot_be_used_are_listed_and_skipped(folder, tmp_path, write_image, form):
    (folder / "query" / "c.png").write_bytes(b"no image")
    (folder / "query" / "b.jpg").write_bytes(b"")
    cut = write_image(folder / "query" / "d.jpg", SIZE)
    cut.write_bytes(cut.read_bytes()[:-50])  # its size is still there
    Image.new("RGB", (1, 1)).save(folder / "bounding_box_train" / "b.jpg")
    names = ["bounding_box_train/a.jpg", "bounding_box_train/b.jpg", "query/b.jpg", "query/c.png", "query/d.jpg"]
    good, *bad = names
    if form == "kpr":
        for name in names:
            write(tmp_path / "k" / f"{name}_keypoints.json", {"keypoints": FLAT})
        source = str(tmp_path / "k")
    elif form == "boxmot":
        source = write(tmp_path / "k.json", {"images": {name: {"keypoints": normalised(POINTS)} for name in names}})
    else:
        source = write(tmp_path / "k.json", [{"image_id": name, "keypoints": FLAT} for name in names])
    found = run(form, source, folder)
    assert list(found.keypoints) == [good]
    assert_points(found.keypoints[good])
    assert set(found.faulty) == set(bad)
    assert "c.png' cannot be read" in found.faulty["query/c.png"]
    assert "d.jpg' cannot be read" in found.faulty["query/d.jpg"]
    assert "b.jpg' has 1 x 1 pixels" in found.faulty["bounding_box_train/b.jpg"]

    (folder / good).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"no image in .* that can be read; first fault: Image '.*a.jpg' cannot be read"
    ):
        run(form, source, folder)


def test_the_score_from_which_points_are_trusted_is_the_callers(folder, tmp_path):
    far_out = write(tmp_path / "k.json", coco(changed(2, 90, 3, 0.4)))
    assert list(run("coco", far_out, folder, min_score=0.5).keypoints) == ["query/c.png"]
    with pytest.raises(DataError, match=r"right_eye of 'query/c\.png' is at x 90"):
        run("coco", far_out, folder, min_score=0.4)


def test_only_the_images_asked_for_count(folder, tmp_path):
    source = write(tmp_path / "k.json", coco(FLAT, "b.jpg"))
    found = IMPORTERS["coco"](source, [str(folder / "query" / "b.jpg")], str(folder), min_score=0.3)
    assert list(found.keypoints) == ["query/b.jpg"]  # of the two files of that name, the one that is asked for


def test_what_is_imported_can_be_written_and_trained_on(folder, tmp_path):
    found = run("boxmot", write(tmp_path / "m.json", boxmot(normalised(POINTS))), folder).keypoints
    write_keypoints(str(tmp_path / "keypoints.json"), found)
    np.testing.assert_allclose(
        load_keypoints(str(tmp_path / "keypoints.json"))["query/c.png"].points, POINTS, atol=6e-4
    )
