"""The drawn data set: its files, its key points against geometry worked out by hand, and its failures."""

import json
from dataclasses import replace
from math import cos, pi, radians, sin

import cv2
import numpy as np
import pytest
from mgre.config import add_mgre_config
from mgre.data.synthetic import SyntheticPedestrians, SyntheticSpec, difficulty, ensure_drawn, figure, files, scene
from mgre.data.synthetic.canvas import Canvas
from mgre.data.synthetic.figure import Placement, draw_person, visible_keypoints
from mgre.data.synthetic.identity import sample_identities
from mgre.data.synthetic.pose import FACINGS, Pose, sample_pose, skeleton
from mgre.errors import ConfigError, DataError

NOSE, EYES, EARS, SHOULDERS, ELBOWS, WRISTS = 0, (1, 2), (3, 4), (5, 6), (7, 8), (9, 10)
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)
TINY = {"num_train_ids": 3, "num_test_ids": 2, "num_cameras": 2, "images_per_camera": 3, "size": (64, 32)}
GREEN_SCREEN = (0, 255, 0)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def draw(root, **changes):
    return ensure_drawn(root, SyntheticSpec(**{**TINY, **changes}), progress=False)


def empty_canvas(height=384, width=384):
    return Canvas(np.full((height, width, 3), GREEN_SCREEN, np.uint8))


def plain_person(**details):
    """Somebody in unpatterned clothes with long sleeves and trousers, and without any detail but ``details``."""
    identity = sample_identities(np.random.default_rng(0), 1)[0]
    look = replace(identity.look, pattern="plain", long_sleeves=True, bottoms="trousers", build=1.0)
    bare = dict.fromkeys(
        ("logo", "back_print", "sleeve_band", "elbow_patch", "belt", "knee_patch", "trouser_stripe", "bag")
    )
    bare |= {"glasses": False, "hair_style": "short"}
    return replace(identity, look=look, details=replace(identity.details, **{**bare, **details}), on_left=True)


def drawn_person(pose, identity=None, height=340.0, top=(192.0, 20.0), canvas=None):
    canvas = canvas or empty_canvas()
    keypoints = draw_person(canvas, identity or plain_person(), pose, Placement(top, height))
    return canvas, keypoints


def colour_distance(pixel, colour):
    """Distance of directions in colour space, of one pixel or of many: light and shade do not matter."""
    pixel, colour = np.asarray(pixel, float) + 1e-6, np.asarray(colour, float)
    return np.linalg.norm(
        pixel / np.linalg.norm(pixel, axis=-1, keepdims=True) - colour / np.linalg.norm(colour), axis=-1
    )


# -- Files -------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first, again = contents(draw(tmp_path / "a")), contents(draw(tmp_path / "b"))
    assert first == again
    other = contents(draw(tmp_path / "a", seed=1))
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_an_image_does_not_depend_on_how_many_others_are_drawn(tmp_path):
    few, more = contents(draw(tmp_path)), contents(draw(tmp_path, num_test_ids=4, images_per_camera=4))
    name = "bounding_box_train/0001_c2s1_000003_00.jpg"
    assert few[name] == more[name]


def test_layout_names_and_counts(tmp_path):
    folder = draw(tmp_path)
    names = {
        split: sorted(path.name for path in (folder / split).iterdir()) for split in SyntheticSpec(**TINY).num_images
    }
    # 3 identities x 2 cameras x 3 images; of 2 test identities x 2 cameras one image each is a query.
    assert {split: len(found) for split, found in names.items()} == {
        "bounding_box_train": 18,
        "query": 4,
        "bounding_box_test": 8,
    }
    assert names["query"] == [f"000{pid}_c{camera}s1_000001_00.jpg" for pid in (4, 5) for camera in (1, 2)]
    image = cv2.imread(str(folder / "query" / names["query"][0]))
    assert image.shape == (64, 32, 3)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_keypoint_file_is_coco_and_covers_every_image(tmp_path):
    folder = draw(tmp_path)
    content = json.loads((folder / "keypoints.json").read_text())
    on_disk = {f"{path.parent.name}/{path.name}" for path in folder.rglob("*.jpg")}
    assert {image["file_name"] for image in content["images"]} == on_disk
    assert {(image["width"], image["height"]) for image in content["images"]} == {(32, 64)}
    assert [a["image_id"] for a in content["annotations"]] == [image["id"] for image in content["images"]]
    (category,) = content["categories"]
    assert category["keypoints"][::8] == ["nose", "right_elbow", "right_ankle"]
    assert {i for limb in category["skeleton"] for i in limb} == set(range(1, 18))
    points = np.array([a["keypoints"] for a in content["annotations"]]).reshape(-1, 17, 3)
    inside = (points[..., 0] >= 0) & (points[..., 0] < 32) & (points[..., 1] >= 0) & (points[..., 1] < 64)
    assert set(np.unique(points[..., 2])) == {0.0, 0.5, 1.0}
    assert not points[~inside, 2].any()
    # Every person is mostly in the picture: heads and torsos can be found in it.
    assert inside.mean() > 0.9
    assert 0.5 < points[..., 2].mean() < 0.95


def test_finished_set_is_used_as_it_is(tmp_path, monkeypatch):
    folder = draw(tmp_path)
    monkeypatch.setattr(files, "_draw", lambda *_: pytest.fail("drew again"))
    assert draw(tmp_path) == folder


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch, error):
    drawn = []

    def draw_crop(*args):
        drawn.append(args)
        if len(drawn) > 5:
            raise error("stop")
        return original(*args)

    original = scene.draw_crop
    monkeypatch.setattr(scene, "draw_crop", draw_crop)
    with pytest.raises(DataError if error is OSError else error):
        draw(tmp_path)
    assert len(drawn) == 6
    assert list(tmp_path.iterdir()) == []


def test_process_that_loses_the_race_uses_the_winners_set(tmp_path, monkeypatch):
    original = files._draw

    def slow_draw(folder, spec, progress):
        original(folder, spec, progress)
        monkeypatch.setattr(files, "_draw", original)
        draw(tmp_path)

    monkeypatch.setattr(files, "_draw", slow_draw)
    folder = draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def edit_manifest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 0}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_manifest, r"manifest\.json tells of another set \(version differ\).*delete the folder"),
        (lambda folder: (folder / "manifest.json").unlink(), r"no readable manifest\.json.*delete the folder"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), r"another set .*delete the folder"),
        (lambda folder: (folder / "keypoints.json").unlink(), r"keypoints\.json is missing.*delete the folder"),
        (lambda folder: next((folder / "query").iterdir()).unlink(), r"query has 3 images instead of 4.*delete"),
    ],
)
def test_folder_that_is_not_the_set_is_refused(tmp_path, damage, message):
    damage(draw(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        draw(tmp_path)
    assert "\n" not in str(caught.value)


def test_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written.*FASTREID_DATASETS"):
        draw(tmp_path / "file")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("num_train_ids", 0),
        ("num_test_ids", 0),
        ("num_test_ids", 9999),
        ("num_cameras", 1),
        ("num_cameras", 10),
        ("images_per_camera", 1),
        ("size", (31, 16)),
        ("size", (64, 15)),
        ("size", (64,)),
    ],
)
def test_value_out_of_range_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"DATASETS\.SYNTHETIC\.{key.upper()} is .*give"):
        SyntheticSpec(**{**TINY, key: value})


# -- The data set class ------------------------------------------------------------------------------


def test_items_are_the_toolboxs(tmp_path):
    from fastreid.config import get_cfg
    from fastreid.data.datasets import DATASET_REGISTRY

    cfg = get_cfg()
    add_mgre_config(cfg)
    for key, value in TINY.items():
        setattr(cfg.DATASETS.SYNTHETIC, key.upper(), value)
    dataset = DATASET_REGISTRY.get("SyntheticPedestrians")(cfg, root=str(tmp_path), mode="query")
    folder = tmp_path / SyntheticSpec(**TINY).folder_name
    assert dataset.folder == str(folder)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (18, 4, 8)
    path = folder / "bounding_box_train" / "0001_c1s1_000001_00.jpg"
    assert dataset.train[0] == (str(path), "synthetic_1", "synthetic_0")
    assert dataset.query[-1] == (str(folder / "query" / "0005_c2s1_000001_00.jpg"), 5, 1)
    assert dataset.data == dataset.query
    for items in (dataset.train, dataset.query, dataset.gallery):
        assert items == sorted(items)
    combined = SyntheticPedestrians(root=str(tmp_path), combineall=True, **TINY)
    assert len(combined.train) == 18 + 4 + 8
    assert combined.get_num_pids(combined.train) == 5


# -- Identities --------------------------------------------------------------------------------------


def test_groups_share_their_look_and_differ_in_details():
    size = difficulty.COARSE_GROUP_SIZE
    identities = sample_identities(np.random.default_rng(3), 4 * size + 2)
    assert len(identities) == 4 * size + 2
    groups = [identities[i : i + size] for i in range(0, len(identities), size)]
    assert len({group[0].look for group in groups}) == len(groups)
    for group in groups:
        assert len({person.look for person in group}) == 1
        for i, person in enumerate(group):
            for other in group[:i]:
                assert person.details.num_differences(other.details) >= difficulty.MIN_DETAIL_DIFFERENCES


def test_details_nobody_can_see_are_no_differences():
    details = plain_person(hair_style="bald").details
    unseen = replace(details, hat=(1, 2, 3), hair=(1, 2, 3), logo_shape="ring", bag_kind="handbag")
    assert details.num_differences(unseen) == 0
    assert details.num_differences(replace(unseen, shoes=(1, 2, 3), belt=(1, 2, 3))) == 2


# -- Key points --------------------------------------------------------------------------------------


def test_upright_pose_has_the_joints_of_the_proportions():
    points = skeleton(Pose()).keypoints
    expected = {
        NOSE: (0, 0.088),
        EYES: (0.02, 0.068),
        EARS: (0.053, 0.078),
        SHOULDERS: (0.118, 0.195),
        ELBOWS: (0.118, 0.195 + 0.16),
        WRISTS: (0.118, 0.195 + 0.16 + 0.15),
        HIPS: (0.062, 0.51),
        KNEES: (0.062, 0.51 + 0.225),
        ANKLES: (0.062, 0.51 + 0.225 + 0.215),
    }
    for joints, (x, y) in expected.items():
        for joint, side in zip(np.atleast_1d(joints), (1, -1), strict=False):
            np.testing.assert_allclose(points[joint, :2], (side * x, y), atol=1e-12)


def test_limbs_swing_by_their_angles():
    # Seen from the person's right side, forward is to the right of the image.
    pose = Pose(yaw=pi / 2, hips=(0.5, 0), knees=(0.3, 0), shoulders=(0.4, 0), elbows=(0.7, 0))
    points = skeleton(pose).keypoints[:, :2]
    np.testing.assert_allclose(points[13] - points[11], (0.225 * sin(0.5), 0.225 * cos(0.5)), atol=1e-12)
    np.testing.assert_allclose(points[15] - points[13], (0.215 * sin(0.2), 0.215 * cos(0.2)), atol=1e-12)
    np.testing.assert_allclose(points[7] - points[5], (0.16 * sin(0.4), 0.16 * cos(0.4)), atol=1e-12)
    np.testing.assert_allclose(points[9] - points[7], (0.15 * sin(1.1), 0.15 * cos(1.1)), atol=1e-12)


def test_sides_change_places_between_front_and_back():
    front, back = (skeleton(Pose(yaw=FACINGS[name], hips=(0.3, -0.2))).keypoints for name in ("front", "back"))
    for left, right in (EYES, EARS, SHOULDERS, ELBOWS, WRISTS, HIPS, KNEES, ANKLES):
        assert front[left, 0] > front[right, 0]
        assert back[left, 0] < back[right, 0]
    np.testing.assert_allclose(back[:, 0], -front[:, 0], atol=1e-12)


@pytest.mark.parametrize(("facing", "near", "far"), [("left", 0, 1), ("right", 1, 0)])
def test_side_views_show_the_near_side(facing, near, far):
    canvas, keypoints = drawn_person(Pose(yaw=FACINGS[facing]))
    visible = visible_keypoints(canvas, keypoints)
    head_x = keypoints[list(EARS), 0].mean()
    assert (keypoints[NOSE, 0] < head_x) == (facing == "left")
    for pair in (EYES, EARS, SHOULDERS, ELBOWS, WRISTS, KNEES):
        assert visible[pair[near]]
        assert not visible[pair[far]]


def test_front_shows_all_and_back_hides_the_face():
    for facing, face in (("front", True), ("back", False)):
        canvas, keypoints = drawn_person(Pose(yaw=FACINGS[facing], spread=radians(10)))
        visible = visible_keypoints(canvas, keypoints)
        assert visible[[NOSE, *EYES]].tolist() == [face] * 3
        assert visible[3:].all()


def test_lean_turns_the_figure_about_its_hips():
    _, upright = drawn_person(Pose())
    _, leaning = drawn_person(Pose(lean=0.1))
    pivot = (upright[11, :2] + upright[12, :2]) / 2
    # As complex numbers, in image axes (y down): clockwise is multiplication by exp(i angle).
    before, after = ((points[:, :2] - pivot) @ (1, 1j) for points in (upright, leaning))
    np.testing.assert_allclose(after, before * np.exp(0.1j), atol=1e-9)


def test_pixels_at_key_points_show_what_is_there():
    person = plain_person()
    canvas, keypoints = drawn_person(Pose(spread=radians(10)), person)
    skin, upper, lower = person.details.skin, person.look.upper, person.look.lower
    expected = {(NOSE,): skin, SHOULDERS: upper, ELBOWS: upper, KNEES: lower}
    for joints, colour in expected.items():
        for joint in joints:
            x, y = keypoints[joint, :2].astype(int)
            assert colour_distance(canvas.image[y, x], colour) < 0.05
    canvas, keypoints = drawn_person(Pose(yaw=pi), person)
    x, y = keypoints[NOSE, :2].astype(int)
    assert colour_distance(canvas.image[y, x], person.details.hair) < 0.05


def test_chest_turns_with_the_body():
    logo = (255, 0, 255)
    person = plain_person(logo=logo, logo_shape="square")
    found = {}
    for facing, yaw in FACINGS.items():
        canvas, keypoints = drawn_person(Pose(yaw=yaw), person)
        rows_columns = np.argwhere(colour_distance(canvas.image, logo) < 0.1)
        found[facing] = rows_columns[:, 1] - keypoints[list(SHOULDERS), 0].mean()
    # plain_person wears it on the left: a front view shows it to the right, and of the side views only the left one,
    # which faces the left of the image.
    assert len(found["front"]) > len(found["left"]) > 20
    assert (found["front"] > 0).all()
    assert (found["left"] < 0).all()
    assert len(found["back"]) == len(found["right"]) == 0


def test_figure_fills_its_placement():
    canvas, _ = drawn_person(Pose(), height=300.0, top=(192.0, 40.0))
    rows = np.flatnonzero((canvas.parts > 0).any(axis=1))
    columns = np.flatnonzero((canvas.parts > 0).any(axis=0))
    assert rows[0] == pytest.approx(40, abs=2)
    assert rows[-1] == pytest.approx(340, abs=8)
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(192, abs=8)
    # What is marked as the background has not been painted, and the rest has, up to smoothed edges.
    painted = (canvas.image != GREEN_SCREEN).any(axis=2)
    eroded = cv2.erode((canvas.parts > 0).astype(np.uint8), np.ones((3, 3)))
    dilated = cv2.dilate((canvas.parts > 0).astype(np.uint8), np.ones((3, 3)))
    assert painted[eroded > 0].all()
    assert not painted[dilated == 0].any()


def test_key_points_under_an_occluder_or_outside_are_hidden():
    canvas, keypoints = drawn_person(Pose(spread=radians(10)))
    cover = keypoints[7, :2]
    canvas.polygon(cover + 12 * np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))), (9, 9, 9), figure.FOREIGN)
    assert np.flatnonzero(~visible_keypoints(canvas, keypoints)).tolist() == [7]
    canvas, keypoints = drawn_person(Pose(spread=radians(10)), top=(192.0, -45.0))
    outside = keypoints[:, 1] < 0
    assert outside.sum() == 5
    np.testing.assert_array_equal(visible_keypoints(canvas, keypoints), ~outside)


def test_crop_has_key_points_where_the_person_is(monkeypatch):
    # Without whatever hides and blurs, against a plain scenery: the key points of the crop lie on the person.
    for name, value in {"OCCLUDER_PROBABILITY": 0, "BYSTANDER_PROBABILITY": 0, "DISTRACTOR_RANGE": (0, 0)}.items():
        monkeypatch.setattr(difficulty, name, value)
    size = (128, 64)
    monkeypatch.setattr(scene, "_through_camera", lambda rng, image, camera: image)
    camera = scene.sample_camera(np.random.default_rng(0), size)
    camera = replace(camera, scenery=np.full_like(camera.scenery, GREEN_SCREEN))
    num_seen = 0
    for seed in range(20):
        image, keypoints = scene.draw_crop(np.random.default_rng(seed), plain_person(), camera, size)
        assert image.shape == (*size, 3)
        # A joint has the person about it; the nose in profile and the toes are near the outline.
        is_person = cv2.dilate(
            (np.abs(image.astype(int) - GREEN_SCREEN).sum(axis=2) > 60).astype(np.uint8), np.ones((3, 3))
        )
        for x, y, score in keypoints:
            inside = 0 <= x < 64 and 0 <= y < 128
            assert inside or score == 0
            if inside:
                num_seen += 1
                assert is_person[int(y), int(x)]
    assert num_seen > 250


def test_occluders_cost_visible_key_points(monkeypatch):
    camera = scene.sample_camera(np.random.default_rng(0), (64, 32))

    def scores(probability):
        monkeypatch.setattr(difficulty, "OCCLUDER_PROBABILITY", probability)
        person = plain_person()
        return np.stack(
            [scene.draw_crop(np.random.default_rng(s), person, camera, (64, 32))[1][:, 2] for s in range(30)]
        )

    free, occluded = scores(0.0), scores(1.0)
    assert (occluded <= free).all()
    assert 0.05 < (free - occluded).mean() < 0.5


def test_camera_casts_its_colour():
    camera = scene.Camera(np.zeros((1, 1, 3), np.uint8), gain=np.array((1.5, 1.0, 0.5)), brightness=0.0, contrast=1.0)
    grey = np.full((128, 64, 3), 100, np.uint8)
    means = np.stack(
        [scene._through_camera(np.random.default_rng(s), grey, camera).mean(axis=(0, 1)) for s in range(60)]
    )
    np.testing.assert_allclose(means.mean(axis=0), (150, 100, 50), atol=6)


def test_poses_are_of_the_four_facings():
    yaws = np.array([sample_pose(np.random.default_rng(seed)).yaw for seed in range(400)])
    nearest = np.abs(yaws[:, None] - np.array(list(FACINGS.values()))).argmin(axis=1)
    share = np.bincount(nearest, minlength=4) / len(yaws)
    np.testing.assert_allclose(share, difficulty.FACING_PROBABILITIES, atol=0.08)
