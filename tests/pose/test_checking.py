import json
import os
import re

import numpy as np
import pytest
from mgre.data.coco_file import load_keypoints
from mgre.data.keypoints import FLIP_PAIRS
from mgre.data.synthetic import SyntheticSpec, ensure_drawn
from mgre.pose.checking import ERROR, WARNING, check_keypoints

from tests.pose.damage import MIRRORED, damages, hips_exchanged, with_points

SIZE = (64, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """48 images of drawn people with their exact key points."""
    spec = SyntheticSpec(seed=1, num_train_ids=8, num_test_ids=4, num_cameras=2, images_per_camera=2, size=SIZE)
    return ensure_drawn(tmp_path_factory.mktemp("drawn"), spec, progress=False)


@pytest.fixture
def check(folder, tmp_path):
    """Check the drawn set's file after a change to its content and to its points (N, 17, 3)."""
    images = sorted(str(path) for path in folder.glob("*/*.jpg"))

    def run(change_points=None, change_content=None, image_paths=images, **options):
        content = json.loads((folder / "keypoints.json").read_text())
        if change_points:
            content = with_points(change_points)(content)
        if change_content:
            content = change_content(content)
        path = tmp_path / "keypoints.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        findings = check_keypoints(str(path), image_paths, str(folder), **options)
        assert all("\n" not in finding.message for finding in findings)
        return findings

    run.images = images
    return run


def messages(findings, level):
    return [finding.message for finding in findings if finding.level == level]


def test_exact_key_points_are_accepted_without_a_word(check):
    assert check() == []


def moved(points, x=0.0, y=0.0):
    return points + np.array([x, y, 0])


def with_scores(points, scores):
    return np.concatenate([points[..., :2], np.broadcast_to(scores, points.shape)[..., :1]], axis=-1)


def without(count):
    def change(content):
        return {**content, "annotations": content["annotations"][count:]}

    return change


DAMAGED = damages(48, SIZE) | {
    "mirrored": (
        with_points(lambda points: [32, 0, 0] + points * [-1, 1, 1]),
        "left and right are exchanged in the file",
    ),
    "low scores": (
        with_points(lambda points: with_scores(points, 0.29)),
        r"48 of 48 images \(100.0%; .* no trusted point",
    ),
    "most missing": (without(25), r"25 of 48 images \(52.1%; first .* have no key points"),
    "all missing": (without(48), r"48 of 48 images \(100.0%; first .* have no key points"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_refused(check, damage, message):
    errors = messages(check(None, damage), ERROR)
    assert len(errors) <= 2, "one fault has many consequences, but is told once"
    assert [re.search(message, error) is not None for error in errors].count(True) == 1, errors


def doubted(points, count):
    points = points.copy()
    points[:count, :, 2] = 0.1
    return points


def one_far_out_but_doubted(points):
    points = points.copy()
    points[5, 9] = 500, 500, 0.2
    return points


def repeated(content):
    return {**content, "annotations": content["annotations"] + content["annotations"][:2]}


def one_more(content):
    content["images"].append({**content["images"][0], "id": 99, "file_name": "query/more.jpg"})
    content["annotations"].append({**content["annotations"][0], "image_id": 99})
    return content


def hips_exchanged_in_some(points):
    return np.concatenate([hips_exchanged(points[:12]), points[12:]])


ACCEPTED = {
    "some missing": (None, without(3), r"3 of 48 images \(6.2%; first .*, .*, .*\) of the data set have no key points"),
    "one more": (None, one_more, r"1 of 49 images \(2.0%; first query/more.jpg\) of the file are not in the data set"),
    "repeated": (None, repeated, r"2 of 48 images \(4.2%; .* have several people; the best score counts"),
    "visibility": (lambda points: points * [1, 1, 2], None, "visibility flags 0, 1, 2: all labelled points"),
    "logits": (lambda points: points * [1, 1, 5], None, "scores reach 5: they are no probabilities"),
    "some doubted": (lambda points: doubted(points, 24), None, r"24 of 48 images \(50.0%; .* have no trusted point"),
    "some swapped": (hips_exchanged_in_some, None, "shoulders disagree with eyes, ears or hips in"),
}


@pytest.mark.parametrize(("points", "content", "message"), ACCEPTED.values(), ids=ACCEPTED)
def test_suspicious_files_are_accepted_with_a_warning(check, points, content, message):
    findings = check(points, content)
    assert messages(findings, ERROR) == []
    (warning,) = messages(findings, WARNING)
    assert re.search(message, warning)


def test_points_a_little_outside_are_told_with_how_far(check):
    def overhanging(points):
        points = points.copy()
        points[7, 0] = 33.6, 10, 1  # 1.6 of 32 pixels
        return points

    findings = check(overhanging)
    (warning,) = messages(findings, WARNING)
    assert re.search(r"outside the image in 1 of 48 images \(2.1%; .*by up to 5.0% of its side", warning)
    assert messages(findings, ERROR) == []


def test_doubted_points_may_lie_anywhere(check):
    assert check(one_far_out_but_doubted) == []
    findings = check(one_far_out_but_doubted, min_score=0.1)
    assert not messages(findings, ERROR)
    assert re.search(r"outside the image in 1 of 48 images .*by up to 1462.5%", messages(findings, WARNING)[0])


@pytest.mark.parametrize(("count", "refused"), [(14, False), (15, True)])  # of 48: 29 % and 31 %
def test_points_far_outside_in_many_images_are_a_fault_of_the_file(check, count, refused):
    def far_out(points):
        points = points.copy()
        points[:count, 16, :] = 10, 90, 0.9
        return points

    errors = messages(check(far_out), ERROR)
    assert bool(errors) == refused
    if refused:
        assert re.match(
            r"points of other images, or no pixels: far outside in 15 of 48 images .*such as right_ankle at x 10, y 90",
            errors[0],
        )


@pytest.mark.parametrize("count", [1, 4])
def test_normalised_points_are_seen_in_few_images_too(check, count):
    def few(content):
        return {"images": content["images"][:count], "annotations": content["annotations"][:count]}

    errors = messages(check(lambda points: points / [*SIZE[::-1], 1], few, check.images[:count]), ERROR)
    assert any(error.startswith(f"coordinates are normalised in {count} of {count} images") for error in errors)


def test_swapped_images_are_counted_by_hand(check, folder):
    expected = 0
    keypoints = load_keypoints(str(folder / "keypoints.json"))
    for found in list(keypoints.values())[:12]:
        x, trusted = found.points[:, 0], found.trusted(0.3)
        apart = [abs(x[left] - x[right]) > 0.05 * 32 and trusted[left] and trusted[right] for left, right in FLIP_PAIRS]
        expected += apart[2] and apart[5]
    (warning,) = messages(check(hips_exchanged_in_some), WARNING)
    assert expected > 0
    assert f"in {expected} of " in warning


def test_few_images_are_not_judged_by_what_most_have(check):
    def first_ten(content):
        return {"images": content["images"][:10], "annotations": content["annotations"][:10]}

    exchanged = check(lambda points: points[:, MIRRORED], first_ten, image_paths=check.images)
    assert all("exchanged" not in finding.message for finding in exchanged)


def test_images_that_cannot_be_read_are_told(check, folder, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    name = os.path.relpath(broken, folder).replace(os.sep, "/")

    def with_broken(content):
        content["images"][0]["file_name"] = name
        return content

    warnings = messages(check(None, with_broken, image_paths=[*check.images, str(broken)]), WARNING)
    assert any(re.search(r"1 images cannot be read; the first: Image '.*broken\.jpg'", warning) for warning in warnings)


def test_an_empty_file_is_refused(check):
    (finding,) = check(None, lambda _: {"images": [], "annotations": []})
    assert finding.level == ERROR
    assert str(finding).startswith("error: 48 of 48 images")


def test_a_missing_file_is_refused(folder):
    (finding,) = check_keypoints(str(folder / "none.json"), [], str(folder))
    assert finding.level == ERROR
    assert "none.json' does not exist" in finding.message


def split(folder, *names):
    return [str(path) for name in names for path in sorted((folder / name).glob("*.jpg"))]


def only(*splits):
    def change(content):
        chosen = {image["id"] for image in content["images"] if image["file_name"].split("/")[0] in splits}
        return {
            "images": [image for image in content["images"] if image["id"] in chosen],
            "annotations": [entry for entry in content["annotations"] if entry["image_id"] in chosen],
        }

    return change


def test_images_to_test_on_need_no_key_points(check, folder):
    train = split(folder, "bounding_box_train")
    (warning,) = map(str, check(None, only("bounding_box_train"), train_paths=train))
    assert re.match(r"warning: 16 of 16 images \(100.0%; first .*\) to test on have no key points; training", warning)
    assert check(train_paths=train) == []


def test_training_images_need_them(check, folder):
    train = split(folder, "bounding_box_train")
    errors = messages(check(None, only("query", "bounding_box_test"), train_paths=train), ERROR)
    assert len(errors) == 1 and re.match(r"32 of 32 images \(.*\) of the training split have no key points", errors[0])
    # Without the first three, which are training images.
    (warning,) = messages(check(None, without(3), train_paths=train), WARNING)
    assert re.match(r"3 of 32 images \(.*\) of the training split have no key points", warning)


def test_missing_and_doubted_images_count_together_as_in_training(check, folder):
    def half_gone(content):
        chosen = {image["id"] for image in content["images"]}
        trained = [image["id"] for image in content["images"] if image["file_name"].startswith("bounding_box_train")]
        chosen -= set(trained[:10])
        for entry in content["annotations"]:
            if entry["image_id"] in trained[10:17]:
                entry["keypoints"][2::3] = [0.1] * 17
        return {**content, "annotations": [entry for entry in content["annotations"] if entry["image_id"] in chosen]}

    train = split(folder, "bounding_box_train")
    (error,) = messages(check(None, half_gone, train_paths=train), ERROR)
    assert error.startswith(
        "17 of 32 images of the training split have no trusted point: 10 have no key points, and all"
    )


# -- points in the entries of other images --------------------------------------------------------


def with_person_scores(content):
    """As MoveNet's file of PKU-Reid: the points' scores differ, and a person's score is their mean."""
    scores = np.random.default_rng(0).uniform(0.3, 1, (len(content["annotations"]), 17))
    for entry, values in zip(content["annotations"], scores, strict=True):
        entry["keypoints"][2::3] = values.tolist()
        entry["score"] = round(float(np.mean(values)), 4)
    return content


def points_moved(shift, first=0):
    """Each entry from the ``first`` on gets the points of the entry ``shift`` before it; at the end around."""

    def change(content):
        entries = with_person_scores(content)["annotations"][first:]
        points = [entry["keypoints"] for entry in entries]
        for index, entry in enumerate(entries):
            entry["keypoints"] = points[(index - shift) % len(points)]
        return content

    return change


@pytest.mark.parametrize(("shift", "where"), [(1, "1 after it"), (-1, "1 before it"), (3, "3 after it")])
def test_points_in_a_neighbours_entry_are_seen_by_the_scores(check, shift, where):
    assert messages(check(None, with_person_scores), ERROR) == []
    errors = messages(check(None, points_moved(shift)), ERROR)
    assert len(errors) == 1
    assert re.match(rf"points stand in other images' entries: the score of 4\d of 48 .* the entry {where};", errors[0])


def test_points_that_moved_from_some_image_on_are_seen(check):
    (error,) = messages(check(None, points_moved(1, first=20)), ERROR)
    assert re.match(r"points stand in other images' entries: the score of 2\d of 48 images", error)


def test_scores_of_a_detector_are_no_fault(check):
    def detected(content):
        scores = np.random.default_rng(1).uniform(0.5, 1, len(content["annotations"]))
        for entry, score in zip(with_person_scores(content)["annotations"], scores, strict=True):
            entry["score"] = score
        return content

    assert messages(check(None, detected), ERROR) == []


@pytest.mark.parametrize(("shift", "where"), [(1, "1 after it"), (-2, "2 before it")])
def test_image_ids_that_are_off_are_seen_by_the_order(check, shift, where):
    def shifted(content):
        ids = [entry["image_id"] for entry in content["annotations"]]
        for index, entry in enumerate(content["annotations"]):
            entry["image_id"] = ids[(index + shift) % len(ids)]
        return content

    (error,) = messages(check(None, shifted), ERROR)
    assert f"names the image {where} in the order of 'images': are its image_ids off by {abs(shift)}?" in error


def test_entries_in_another_order_are_no_fault(check):
    def shuffled(content):
        np.random.default_rng(0).shuffle(content["annotations"])
        return content

    assert check(None, shuffled) == []


@pytest.mark.parametrize(("distance", "num_warnings"), [(1.5, 0), (1.7, 1)])  # 5 % of 32 pixels are 1.6
def test_pairs_seen_from_the_side_have_no_order(check, distance, num_warnings):
    def hips_close(points):
        points = points.copy()
        left_on_the_right = points[0, 5, 0] > points[0, 6, 0]
        points[0, [11, 12], 0] = (16, 16 + distance) if left_on_the_right else (16 + distance, 16)
        points[0, [5, 6, 11, 12], 2] = 1
        return points

    assert len(check(hips_close)) == num_warnings
