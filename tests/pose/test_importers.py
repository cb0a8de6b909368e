import json
import logging

import numpy as np
import pytest
from mgre.data.coco_file import load_keypoints, write_keypoints
from mgre.errors import DataError
from mgre.pose.images import find_images
from mgre.pose.importers import IMPORTERS, import_keypoints
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
    assert not any("far outside" in finding.message for finding in run("coco", far_out, folder, 0.5).findings)
    findings = run("coco", far_out, folder, min_score=0.4).findings
    assert any("far outside in 1 of 1 images" in finding.message for finding in findings)


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


# -- The names, endings and forms that other tools write ------------------------------------------


@pytest.fixture
def numbered(tmp_path, write_image):
    for name in ("000012.jpg", "0001_c1s1.jpg", "a.b.png"):
        write_image(tmp_path / "crops" / name, SIZE)
    return tmp_path / "crops"


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"image_id": "0001_c1s1", "file_name": "0001_c1s1.jpg"}, "0001_c1s1.jpg"),  # Ultralytics 8.3 and later
        ({"image_id": "0001_c1s1"}, "0001_c1s1.jpg"),  # before
        ({"image_id": 12}, "000012.jpg"),  # a stem that is a number
        ({"image_id": 12, "file_name": "000012.jpg"}, "000012.jpg"),
        ({"image_id": "a.b"}, "a.b.png"),  # a stem with a dot
        ({"image_id": "a.b.png"}, "a.b.png"),
    ],
)
def test_results_name_images_in_each_form(numbered, tmp_path, entry, name):
    found = run("coco", write(tmp_path / "predictions.json", [entry | {"keypoints": FLAT}]), numbered).keypoints
    assert list(found) == [name]
    assert_points(found[name])


@pytest.mark.parametrize("label", ["query/c", "c"])
@pytest.mark.parametrize("form", ["coco", "boxmot"])
def test_names_without_suffix(folder, tmp_path, form, label):
    content = coco(FLAT, label) if form == "coco" else boxmot(normalised(POINTS), label)
    assert list(run(form, write(tmp_path / "k.json", content), folder).keypoints) == ["query/c.png"]


def test_a_stem_of_two_images_is_an_error(folder, tmp_path, write_image):
    write_image(folder / "query" / "c.jpg", SIZE)
    for label in ("c", "query/c"):
        with pytest.raises(DataError, match=rf"image '{label}' may be 'query/c\.(jpg|png)' or 'query/c\.(jpg|png)'"):
            run("coco", write(tmp_path / "k.json", [{"image_id": label, "keypoints": FLAT}]), folder)


def test_no_image_in_common_names_one_of_each(numbered, tmp_path):
    source = write(tmp_path / "k.json", [{"image_id": "other_7", "keypoints": FLAT}])
    with pytest.raises(DataError, match=r"its first name is 'other_7', the folder's is '000012\.jpg'"):
        run("coco", source, numbered)


@pytest.mark.parametrize("ending", [".jpg.predictions.json", ".predictions.json"])
@pytest.mark.parametrize("place", ["query/b", "c"])
def test_openpifpafs_files(folder, tmp_path, ending, place):
    others = [{"keypoints": changed(0, 5, 5, 0.9), "score": 0.2, "bbox": [0, 0, 9, 9], "category_id": 1}]
    if place == "c":
        ending = ending.replace("jpg", "png")
    best = {"keypoints": FLAT, "score": 0.8, "bbox": [0, 0, 9, 9], "category_id": 1}
    write(tmp_path / "pifpaf" / f"{place}{ending}", [*others, best, *others])
    write(tmp_path / "pifpaf" / "bounding_box_train" / "a.jpg.predictions.json", [])  # nobody
    found = run("openpifpaf", str(tmp_path / "pifpaf"), folder).keypoints
    (name,) = found
    assert name == ("query/c.png" if place == "c" else "query/b.jpg")
    assert_points(found[name])


def yolo_row(points, *rest, box=(0.5, 0.5, 0.9, 0.9)):
    return " ".join(map(str, [0, *box, *(value for row in points for value in row), *rest]))


@pytest.mark.parametrize("name", ["query/c.txt", "c.txt"])
@pytest.mark.parametrize("rest", [(0.8,), (0.8, 3), ()])
def test_yolos_text_files(folder, tmp_path, name, rest):
    other = [[0.5, 0.5, 0.9]] * 17
    low = (0.1, *rest[1:]) if rest else ()
    rows = [yolo_row(other, *low, box=(0.5, 0.5, 0.3, 0.3)), yolo_row(normalised(POINTS), *rest), ""]
    (tmp_path / "labels" / name).parent.mkdir(parents=True)
    (tmp_path / "labels" / name).write_text("\n".join(rows))
    found = run("yolo", str(tmp_path / "labels"), folder).keypoints
    assert list(found) == ["query/c.png"]
    np.testing.assert_allclose(found["query/c.png"].points, POINTS, rtol=1e-5)


def test_yolos_labels_with_visibility_flags(folder, tmp_path):
    points = [[x, y, flag] for (x, y, _), flag in zip(normalised(POINTS), [0, 1, 2] * 5 + [2, 2], strict=True)]
    points[0][:2] = 0, 0
    (tmp_path / "c.txt").write_text(yolo_row(points))
    found = run("yolo", str(tmp_path), folder).keypoints["query/c.png"]
    assert found.points[:, 2].tolist() == [0, 1, 1] * 5 + [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (yolo_row([point[:2] for point in POINTS]), r"c\.txt': person 1 has 39 numbers, not 56"),
        ("0 0.5 0.5 0.2 0.2", "person 1 has 5 numbers"),
        ("0 x", "is no text file of numbers"),
        (yolo_row([[float("nan"), 0.5, 1]] * 17), "NaN or infinite"),
    ],
)
def test_malformed_text_files(folder, tmp_path, text, message):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        run("yolo", str(tmp_path), folder)


def test_a_file_without_a_folder_for_two_images_of_its_name(folder, tmp_path):
    (tmp_path / "b.txt").write_text(yolo_row(normalised(POINTS)))
    with pytest.raises(DataError, match=r"b\.txt': it may be of 'bounding_box_train/b\.jpg' or 'query/b\.jpg'"):
        run("yolo", str(tmp_path), folder)


# -- Points that cannot be those of their images ------------------------------------------------


@pytest.fixture
def people(tmp_path, write_image, draw_standing):
    """The points of 30 standing people by the names of their images, which are in the folder "crops"."""
    rng = np.random.default_rng(0)
    names = [f"{number:03d}.jpg" for number in range(30)]
    for name in names:
        write_image(tmp_path / "crops" / name, SIZE)
    return {name: draw_standing(rng, SIZE).round(3) for name in names}


FORMS = ("coco", "boxmot", "kpr", "openpifpaf", "yolo")


def write_form(folder, form, people):
    """The source of this form, with pixels or shares of the image as the form wants them."""
    shares = {name: [[x / SIZE[1], y / SIZE[0], score] for x, y, score in points] for name, points in people.items()}
    if form == "coco":
        return write(folder / "k.json", [{"image_id": n, "keypoints": p.ravel().tolist()} for n, p in people.items()])
    if form == "boxmot":
        return write(folder / "k.json", {"images": {name: {"keypoints": points} for name, points in shares.items()}})
    for name, points in people.items():
        if form == "yolo":
            (folder / "k").mkdir(exist_ok=True)
            (folder / "k" / name.replace("jpg", "txt")).write_text(yolo_row(shares[name]))
        else:
            ending = ".predictions.json" if form == "openpifpaf" else "_keypoints.json"
            write(folder / "k" / f"{name}{ending}", [{"keypoints": points.tolist()}])
    return str(folder / "k")


def imported(tmp_path, form, people, **options):
    folder = tmp_path / "crops"
    paths = list(find_images(str(folder)))
    source = write_form(tmp_path, form, people)
    return import_keypoints(form, source, paths, str(folder), min_score=0.3, **options).keypoints


@pytest.mark.parametrize("form", FORMS)
def test_single_points_far_outside_are_not_trusted_in_any_form(tmp_path, people, form, caplog):
    clean = imported(tmp_path, form, people)
    for number, (joint, place) in {4: (15, (10, 62)), 7: (10, (-15, 20)), 8: (16, (10, 48))}.items():
        people[f"{number:03d}.jpg"][joint, :2] = place
    with caplog.at_level("WARNING", "mgre"):
        found = imported(tmp_path, form, people)
    assert "not trusted: 3 in 3 of 30 images, first left_ankle of 004.jpg at x 10, y 62" in caplog.text
    for name, keypoints in found.items():
        wrong = keypoints.points[:, 2] == 0
        assert wrong.sum() == (name in ("004.jpg", "007.jpg", "008.jpg"))
        assert np.array_equal(keypoints.points[~wrong], clean[name].points[~wrong])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda points: points / [20, 40, 1], "coordinates are normalised in 30 of 30 images"),
        (lambda points: points * [20, 40, 1], "far outside in 30 of 30 images"),
        (lambda points: np.add(points, [0, 25, 0]), "far outside in 30 of 30 images"),
        (lambda points: points / [3, 3, 1], "coordinates are of smaller images"),
        (lambda points: [0, 40, 0] + points * [1, -1, 1], "upside down"),
    ],
)
def test_points_of_no_such_images_are_refused_in_any_form(tmp_path, people, form, damage, message):
    wrong = {name: np.asarray(damage(points)) for name, points in people.items()}
    with pytest.raises(
        DataError, match=rf"{message}.*; or, if the points are right, set DATASETS.DOUBTFUL_KEYPOINTS warn"
    ):
        imported(tmp_path, form, wrong)
    assert len(imported(tmp_path, form, wrong, doubtful="warn")) == 30


def test_points_in_their_neighbours_entries_are_refused(tmp_path, people):
    for number, points in enumerate(people.values()):
        points[:, 2] = np.linspace(0.4, 0.9, 17) + number / 300
    names = list(people)
    entries = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    for shift, refused in ((0, False), (1, True)):
        annotations = [
            {"image_id": (i + shift) % 30, "keypoints": people[name].ravel().tolist()} for i, name in enumerate(names)
        ]
        source = write(tmp_path / "k.json", {"images": entries, "annotations": annotations})
        paths = list(find_images(str(tmp_path / "crops")))
        if refused:
            with pytest.raises(DataError, match="each entry of 'annotations' names the image 1 after it"):
                import_keypoints("coco", source, paths, str(tmp_path / "crops"), min_score=0.3)
        else:
            assert len(import_keypoints("coco", source, paths, str(tmp_path / "crops"), min_score=0.3).keypoints) == 30
