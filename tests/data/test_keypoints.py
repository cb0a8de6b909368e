import gc
import json
import os
import re

import numpy as np
import pytest
import torch
from mgre.data.coco_file import load_keypoints, write_keypoints
from mgre.data.keypoints import (
    COCO_KEYPOINTS,
    COCO_SKELETON,
    FLIP_PAIRS,
    ImageKeypoints,
    file_name_of,
    find_keypoint_file,
    match_keypoints,
)
from mgre.data.transforms import KeypointTransforms
from mgre.errors import DataError, SetupError
from PIL import Image

IMAGE = {"id": 5, "file_name": "query/0001_c1.jpg", "height": 40, "width": 20}


def annotation(**changes):
    points = [value for i in range(17) for value in (i + 1, 2 * i, 0.9)]
    return {"id": 0, "image_id": 5, "category_id": 1, "keypoints": points, **changes}


def with_value(index, value):
    points = annotation()["keypoints"]
    points[index] = value
    return annotation(keypoints=points)


def write(tmp_path, content):
    path = tmp_path / "keypoints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def coco(annotations, images=(IMAGE,)):
    return {"images": list(images), "annotations": annotations}


def test_flip_pairs_are_the_left_and_right_names():
    expected = {name: name.replace("left_", "right_") for name in COCO_KEYPOINTS if name.startswith("left_")}
    assert {COCO_KEYPOINTS[left]: COCO_KEYPOINTS[right] for left, right in FLIP_PAIRS} == expected
    assert len(COCO_KEYPOINTS) == 17


def test_points_and_size_are_read(tmp_path):
    loaded = load_keypoints(write(tmp_path, coco([annotation()])))
    assert list(loaded) == ["query/0001_c1.jpg"]
    keypoints = loaded["query/0001_c1.jpg"]
    assert keypoints.size == (40, 20)
    np.testing.assert_array_equal(keypoints.points[3], np.float32([4, 6, 0.9]))


@pytest.mark.parametrize("odd", [None, True, 10**30])
def test_many_people_are_read_as_each_alone(tmp_path, odd):
    """Against each person's points, looked at one by one; ``odd`` is a value that numpy does not take like a number."""
    rng = np.random.default_rng(0)
    images = [{**IMAGE, "id": i, "file_name": f"{i}.jpg", "height": 30 + i, "width": 60 - i} for i in range(12)]
    people, expected = [], {}
    for number in range(40):
        image = images[number % 11]  # the last image has no people
        side = np.array([image["width"], image["height"]])
        points = np.column_stack([rng.uniform(-0.08, 1.08, (17, 2)) * side, rng.uniform(0, 1, 17)]).round(3)
        points[rng.integers(17), :2] = rng.choice([0.0, 900.0])  # far outside, and doubted
        points[points[:, 0] == 900, 2] = 0.1
        values = points.ravel().tolist()
        if number == 20 and odd is not None:
            values[2] = odd  # a score
        score = {} if number % 3 else {"score": float(rng.uniform(0, 1))}
        people.append(annotation(image_id=image["id"], keypoints=values, **score))
        kept = np.array([float(value) for value in values], dtype=np.float32).reshape(17, 3)
        rank = score.get("score", kept[:, 2].mean())
        for point in kept:
            if not (0 <= point[0] <= side[0] and 0 <= point[1] <= side[1]):
                point[2] = 0
        if image["file_name"] not in expected or rank > expected[image["file_name"]][0]:
            expected[image["file_name"]] = (rank, kept, (image["height"], image["width"]))
    loaded = load_keypoints(write(tmp_path, coco(people, images)))
    assert list(loaded) == list(expected)
    for name, (_, points, size) in expected.items():
        assert loaded[name].size == size and loaded[name].points.dtype == np.float32
        np.testing.assert_array_equal(loaded[name].points, points)


def test_the_first_of_many_points_far_outside_is_named(tmp_path, data_log):
    images = [{**IMAGE, "id": i, "file_name": f"{i}.jpg"} for i in range(9)]
    people = [annotation(image_id=i) for i in range(9)]
    people[6] = {**with_value(6, 90.0), "image_id": 6}
    people[4] = {**with_value(6, 80.0), "image_id": 4}
    load_keypoints(write(tmp_path, coco(people, images)))
    assert "not trusted: 2 in 2 of 9 images, first right_eye of 4.jpg at x 80, y 4" in data_log.text
    people[5] = {**with_value(3, "1.0"), "image_id": 5}
    with pytest.raises(DataError, match=r"'5\.jpg' are not all numbers"):
        load_keypoints(write(tmp_path, coco(people, images)))


def test_garbage_is_collected_after_a_file_was_read_and_after_one_was_refused(tmp_path):
    load_keypoints(write(tmp_path, coco([annotation()])))
    assert gc.isenabled()
    with pytest.raises(DataError):
        load_keypoints(write(tmp_path, coco([with_value(0, "1.0")])))
    assert gc.isenabled()


@pytest.mark.parametrize("folder", ["/data/set", "/data/set/", "/data/../data/set", "set", ".", "", "/"])
@pytest.mark.parametrize("inner", ["q/a.jpg", "a.jpg", "/a.jpg", "./q/../a.jpg", "../b.jpg", "..a/b.jpg", "tle/a.jpg"])
@pytest.mark.parametrize("outer", ["/data/set/", "/data/set", "/data/other/", "set/", "set", ""])
def test_file_names_are_relative_paths(folder, outer, inner):
    path = outer + inner
    assert file_name_of(path, folder) == os.path.relpath(path, folder)


@pytest.mark.parametrize("file_name", ["./query/0001_c1.jpg", "query\\0001_c1.jpg"])
def test_file_names_are_normalised(tmp_path, file_name):
    content = coco([annotation()], [{**IMAGE, "file_name": file_name}])
    assert list(load_keypoints(write(tmp_path, content))) == ["query/0001_c1.jpg"]


@pytest.mark.parametrize(
    ("people", "best"),
    [
        ([annotation(score=0.2), {**with_value(0, 7), "score": 0.8}, annotation(score=0.5)], 7),
        ([with_value(2, 0.1), with_value(0, 8), with_value(2, 0.5)], 8),  # mean score: the second keeps all at 0.9
    ],
    ids=["score", "mean of the points"],
)
def test_best_person_of_an_image_is_kept(tmp_path, people, best):
    loaded = load_keypoints(write(tmp_path, coco(people)))
    assert loaded["query/0001_c1.jpg"].points[0, 0] == best


def test_trust_needs_the_least_score_and_more_than_zero(tmp_path):
    content = coco([with_value(2, 0.0)])
    keypoints = load_keypoints(write(tmp_path, content))["query/0001_c1.jpg"]
    assert keypoints.trusted(0.0).tolist() == [False] + [True] * 16
    assert keypoints.trusted(0.95).tolist() == [False] * 17


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON .*write or copy it again"),
        ("[]", "is not COCO key point JSON: it has no list 'images'"),
        (
            "[]",
            r"; convert it with tools/extract_keypoints.py --import, .* --import coco FILE, or write an object with",
        ),
        ({"images": []}, "no list 'annotations'"),
        (
            coco([], [{"id": 1, "file_name": "a.jpg"}]),
            r"images\[0\] needs an id, a file_name, and a width and a height",
        ),
        (coco([], [IMAGE, IMAGE]), "gives id 5 to two images"),
        (coco([{"image_id": 5}]), r"annotations\[0\] needs an image_id and a list 'keypoints'"),
        (coco([annotation(image_id=6)]), "belongs to image_id 6, which is not in 'images'"),
        (coco([annotation(keypoints=[1.0] * 34)]), "'query/0001_c1.jpg' are 34 values, not 51; write x, y, score"),
        (coco([with_value(4, "3")]), "'query/0001_c1.jpg' are not all numbers"),
        (coco([with_value(4, None)]), "'query/0001_c1.jpg' are not all numbers"),
        (coco([with_value(3, float("nan"))]), "'query/0001_c1.jpg' have a NaN or infinite value"),
        (coco([with_value(3, float("inf"))]), "'query/0001_c1.jpg' have a NaN or infinite value"),
        (coco([with_value(5, -0.1)]), "'query/0001_c1.jpg' have a negative score"),
    ],
)
def test_each_fault_has_its_own_message(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        load_keypoints(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"'.*none\.json' does not exist; set DATASETS.KEYPOINTS"):
        load_keypoints(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("index", "value", "joint", "place"),
    [(3, 22.5, 1, "left_eye of query/0001_c1.jpg at x 22.5, y 2"), (49, -4.5, 16, "right_ankle of .* at x 17, y -4.5")],
)
def test_a_point_far_outside_is_not_trusted_and_counted(tmp_path, data_log, index, value, joint, place):
    found = load_keypoints(write(tmp_path, coco([with_value(index, value)])))["query/0001_c1.jpg"].points
    expected = np.reshape(with_value(index, value)["keypoints"], (17, 3))
    expected[joint, 2] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert re.search(f"far outside their images are not trusted: 1 in 1 of 1 images, first {place}", data_log.text)


def test_overhang_within_a_tenth_or_without_trust_is_not_counted(tmp_path, data_log):
    people = coco([with_value(3, 21.9)])
    assert load_keypoints(write(tmp_path, people))["query/0001_c1.jpg"].points[1].tolist() == [np.float32(21.9), 2, 0]
    far_but_doubted = annotation()
    far_but_doubted["keypoints"][3:6] = [90, 2, 0.2]
    path = write(tmp_path, coco([far_but_doubted]))
    assert load_keypoints(path, min_score=0.3)
    assert not data_log.records
    load_keypoints(path, min_score=0.1)
    assert "left_eye of query/0001_c1.jpg at x 90" in data_log.text


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = write(tmp_path, coco([annotation()]))
    (tmp_path / "keypoints.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "keypoints.json").read_bytes())
    assert list(load_keypoints(path)) == ["query/0001_c1.jpg"]


def test_a_folder_instead_of_the_file(tmp_path):
    with pytest.raises(DataError, match=r"' is a folder; name the file in it"):
        load_keypoints(str(tmp_path))


def test_the_points_that_training_trusts_are_those_inside_the_image(tmp_path):
    x, y = np.random.default_rng(0).uniform((-2, -4), (22, 44), (17, 2)).T  # nowhere so far out that it is refused
    x[:4], y[:4] = (0, 20, 0, 20), (0, 40, 40, 0)  # the border is inside
    points = np.column_stack([x, y, np.ones(17)])
    loaded = load_keypoints(write(tmp_path, coco([annotation(keypoints=points.ravel().tolist())])))
    trained = KeypointTransforms([])(Image.new("RGB", (20, 40)), torch.tensor(points[:, :2]), torch.ones(17).bool())
    expected = [0 <= a <= 20 and 0 <= b <= 40 for a, b in zip(x, y, strict=True)]
    assert 4 < sum(expected) < 17
    assert trained[1][:, 2].bool().tolist() == expected
    assert loaded["query/0001_c1.jpg"].trusted(0.3).tolist() == expected


def test_file_is_looked_for_in_the_folder_then_as_a_path(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert find_keypoint_file("k.json", str(folder)) is None
    (elsewhere / "k.json").touch()
    assert find_keypoint_file("k.json", str(folder)) == "k.json"
    (folder / "k.json").touch()
    assert find_keypoint_file("k.json", str(folder)) == str(folder / "k.json")
    assert find_keypoint_file(str(elsewhere / "k.json"), str(folder)) == str(elsewhere / "k.json")


def test_matching_is_by_path_relative_to_the_folder(tmp_path):
    loaded = load_keypoints(write(tmp_path, coco([annotation()])))
    matched = match_keypoints(loaded, ["/data/set/query/0001_c1.jpg", "/data/set/0001_c1.jpg"], "/data/set")
    assert list(matched) == ["/data/set/query/0001_c1.jpg"]


def found(points, size=(40, 20)):
    return ImageKeypoints(np.float32(points), size)


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    values = [np.round(rng.uniform(0, (20, 40, 1), (17, 3)), 3) for _ in range(3)]
    values[1][5:, 2] = 0
    keypoints = {name: found(value) for name, value in zip(("b/2.jpg", "a/1.jpg", "b/1 ä.png"), values, strict=True)}
    path = tmp_path / "keypoints.json"
    write_keypoints(str(path), keypoints, info={"description": "by hand"})

    loaded = load_keypoints(str(path))
    assert list(loaded) == ["a/1.jpg", "b/1 ä.png", "b/2.jpg"]
    for name, expected in keypoints.items():
        assert loaded[name].size == (40, 20)
        np.testing.assert_array_equal(loaded[name].points, expected.points)

    content = json.loads(path.read_text())
    assert content["info"] == {"description": "by hand"}
    assert content["images"][0] == {"id": 1, "file_name": "a/1.jpg", "width": 20, "height": 40}
    assert [annotation["image_id"] for annotation in content["annotations"]] == [1, 2, 3]
    first = content["annotations"][0]
    assert first["num_keypoints"] == 5
    assert first["bbox"] == [0, 0, 20, 40]
    assert first["score"] == pytest.approx(values[1][:5, 2].sum() / 17, abs=5e-4)
    names = content["categories"][0]["keypoints"]
    limbs = {frozenset((names[a - 1], names[b - 1])) for a, b in content["categories"][0]["skeleton"]}
    assert {"left_hip", "left_knee"} in limbs
    assert {"nose", "right_eye"} in limbs
    assert len(limbs) == 19


def test_values_are_rounded_to_three_decimals(tmp_path):
    path = str(tmp_path / "keypoints.json")
    write_keypoints(path, {"a.jpg": found([[1.23456, 2.0004, 0.98765]] * 17)})
    np.testing.assert_array_equal(load_keypoints(path)["a.jpg"].points[0], np.float32([1.235, 2.0, 0.988]))


def test_limbs_join_one_side_or_mirror_each_other():
    mirrored = dict(FLIP_PAIRS) | {right: left for left, right in FLIP_PAIRS}
    limbs = {frozenset(limb) for limb in COCO_SKELETON}
    assert {frozenset(mirrored.get(joint, joint) for joint in limb) for limb in limbs} == limbs
    assert set().union(*limbs) == set(range(17))


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "keypoints.json"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match=r"keypoints\.json' cannot be written \(No space left on device\): make room"):
        write_keypoints(str(path), {})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["keypoints.json"]


def test_the_folder_is_made_where_it_can_be(tmp_path):
    write_keypoints(str(tmp_path / "new" / "keypoints.json"), {})
    assert load_keypoints(str(tmp_path / "new" / "keypoints.json")) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"file.keypoints\.json' cannot be written"):
        write_keypoints(str(tmp_path / "file" / "keypoints.json"), {})
