import re

import pytest
from mgre.errors import ConfigError
from mgre.regions import REGION_REGISTRY, TABLE1, WHOLE_IMAGE, Region, count_maps, get_regions, load_region_set

# Table 1 of the paper, typed again: name, stage, C_x, C_y, N, M.
ROWS = [
    ("head", 1, 1 / 2, 1 / 12, 8, 8),
    ("left_torso", 1, 1 / 2, 1 / 3, 32, 16),
    ("right_torso", 1, 1 / 2, 1 / 3, 32, 16),
    ("legs", 1, 1 / 2, 3 / 4, 24, 32),
    ("upper_body", 2, 1 / 2, 1 / 3, 16, 16),
    ("lower_body", 2, 1 / 2, 3 / 4, 16, 16),
    ("whole_body", 3, 1 / 2, 1 / 2, 16, 8),
]
MAPS_256X128 = {1: (64, 32), 2: (32, 16), 3: (16, 8)}


def test_table1_has_the_papers_rows():
    sampled = [(r.name, r.stage, *r.center, *r.sample_size(MAPS_256X128[r.stage])) for r in TABLE1]
    assert sampled == ROWS


def test_another_input_size_scales_the_samples_with_the_map():
    head = TABLE1[0]
    assert head.sample_size((96, 32)) == (12, 8)  # 384 x 128
    assert head.sample_size((32, 16)) == (4, 4)  # 128 x 64
    assert head.sample_size((4, 2)) == (1, 1)  # 0.5 x 0.5 cells: never none


def test_left_and_right_torso_take_the_left_and_right_key_points():
    names = [
        "nose",
        "l_eye",
        "r_eye",
        "l_ear",
        "r_ear",
        "l_sho",
        "r_sho",
        "l_elb",
        "r_elb",
        "l_wri",
        "r_wri",
        "l_hip",
        "r_hip",
        "l_kne",
        "r_kne",
        "l_ank",
        "r_ank",
    ]
    by_name = {r.name: [names[k] for k in r.keypoints] for r in TABLE1}
    assert by_name["left_torso"] == ["l_sho", "l_elb", "l_wri", "l_hip"]
    assert by_name["right_torso"] == ["r_sho", "r_elb", "r_wri", "r_hip"]
    assert by_name["head"] == names[:5]
    assert by_name["legs"] == by_name["lower_body"] == names[11:]
    assert by_name["upper_body"] == names[:13]
    assert by_name["whole_body"] == names


def test_get_regions_groups_by_stage():
    regions = get_regions("table1", (3, 1))
    assert {stage: [r.name for r in members] for stage, members in regions.items()} == {
        "stage1": ["head", "left_torso", "right_torso", "legs"],
        "stage3": ["whole_body"],
    }
    assert count_maps(regions) == {"stage1": 4, "stage3": 1, "stage4": 1}
    assert get_regions("table1", ()) == {}


def test_unknown_set_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'tabel1'.*table1"):
        get_regions("tabel1", (1,))


def test_two_regions_of_one_name_are_refused(monkeypatch):
    head = TABLE1[0]
    monkeypatch.setattr(REGION_REGISTRY, "_obj_map", {"twice": lambda: (head, head)})
    with pytest.raises(ConfigError, match="'twice' has two regions of one name"):
        get_regions("twice", (1,))


def test_the_sets_that_are_registered():
    assert load_region_set("table1") == TABLE1
    assert load_region_set("whole_image") == WHOLE_IMAGE


GOOD = "- {name: feet, stage: 2, center: [0.5, 0.9], size: [1, 0.2], keypoints: [left_ankle, right_ankle]}\n"


def test_a_file_of_regions(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(GOOD + "- {name: top-half, stage: 3, center: [0.5, 0.25], size: [1.0, 0.5]}\n")
    feet = Region("feet", 2, (0.5, 0.9), (1.0, 0.2), (15, 16))
    top = Region("top-half", 3, (0.5, 0.25), (1.0, 0.5), ())
    assert load_region_set(str(path)) == (feet, top)
    assert get_regions(str(path), (3, 2)) == {"stage2": (feet,), "stage3": (top,)}
    with pytest.raises(ConfigError, match=r'asks for stage1, .* set MODEL\.MGRE\.STAGES "\(2, 3\)", or fewer'):
        get_regions(str(path), (1, 2, 3))


def test_table_1_written_as_a_file_is_table_1(tmp_path):
    """Independent of the fractions that the code computes: rows as in the paper, sizes in cells of the maps."""
    names = [
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ]
    lines = []
    for (name, stage, x, y, n, m), region in zip(ROWS, TABLE1, strict=True):
        height, width = MAPS_256X128[stage]
        points = ", ".join(names[k] for k in region.keypoints)
        lines.append(
            f"- {{name: {name}, stage: {stage}, center: [{x}, {y}], size: [{m / width}, {n / height}], "
            f"keypoints: [{points}]}}"
        )
    path = tmp_path / "table1.yml"
    path.write_text("\n".join(lines))
    assert load_region_set(str(path)) == TABLE1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage: 2, ", "", "region 1 has no stage; allowed: {name: feet, "),
        ("stage: 2", "stage: 4", r"'feet': its stage is 4; allowed: 1, 2 or 3"),
        ("stage: 2", "stage: two", r"\(feet\): its stage is 'two'; allowed: 1, 2 or 3"),
        ("stage: 2", "stage: true", "its stage is True; allowed"),
        ("0.9]", "1.1]", "'feet': its prior box has x from 0 to 1 and y from 1 to 1.2; allowed: inside the image"),
        ("[0.5, 0.9]", "[0.6, 0.9]", "x from 0.1 to 1.1"),
        ("[1, 0.2]", "[0, 0.2]", "not empty"),
        ("[1, 0.2]", "[1, .nan]", "y from nan to nan"),
        ("[1, 0.2]", "[1, 0.2, 0.3]", "its size is .*; allowed: two numbers"),
        ("[1, 0.2]", "1", "its size is 1; allowed: two numbers"),
        ("[1, 0.2]", "[1, true]", "its size is .*; allowed: two numbers"),
        ("name: feet", "name: two feet", "its name is 'two feet'; allowed: letters"),
        ("name: feet", "name: 7", "its name is 7; allowed: letters"),
        ("name", "nam", "has 'nam' .nearest: name.; allowed: name, stage, center, size, keypoints"),
        ("left_ankle, right_ankle", "left_ankle", "has one key point; allowed: none, or at least 2"),
        ("left_ankle", "left_ancle", "'left_ancle' is no key point .nearest: left_ankle. of COCO's 17"),
        ("[left_ankle, right_ankle]", "[15, 16]", "its keypoints are .15, 16.; allowed: a list of COCO's names"),
        ("[left_ankle, right_ankle]", "left_ankle", "its keypoints are 'left_ankle'; allowed: a list"),
        (GOOD, "- feet", "region 1 is no mapping"),
        (GOOD, "feet: {stage: 2}", "is a dict; allowed: a list of 1 to 100 regions"),
        (GOOD, "", "is a NoneType; allowed: a list"),
        (GOOD, "[]", "is a list of 0; allowed: a list of 1"),
        (GOOD, GOOD * 101, "is a list of 101; allowed"),
        (GOOD, GOOD * 2, "has two regions of one name"),
        (GOOD, "- {name: [", "cannot be read: "),
        (GOOD, "- !!python/object/apply:os.getcwd []", "cannot be read: "),
    ],
)
def test_what_is_no_region_is_refused(tmp_path, old, new, message):
    path = tmp_path / "own.yml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=rf"region set '{re.escape(str(path))}'.*{message}") as error:
        load_region_set(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region("far", 1, (0.5, 0.5), (0.5, 1.5), ()), "'far': its prior box"),
        (Region("late", 0, (0.5, 0.5), (0.5, 0.5), ()), "'late': its stage is 0"),
        (Region("odd", 1, (0.5, 0.5), (0.5, 0.5), (5, 17)), "'odd': key point 17 is none of COCO's"),
    ],
)
def test_a_registered_region_is_checked_too(monkeypatch, region, message):
    monkeypatch.setattr(REGION_REGISTRY, "_obj_map", {"mine": lambda: (region,)})
    with pytest.raises(ConfigError, match=message):
        get_regions("mine", (1,))


def test_a_missing_file_and_a_wrong_name(tmp_path):
    with pytest.raises(ConfigError, match=r"'nowhere\.yml', which does not exist \(working directory "):
        get_regions("nowhere.yml", (1,))
    (tmp_path / "folder.yml").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be read: .*directory"):
        get_regions(str(tmp_path / "folder.yml"), (1,))
    with pytest.raises(
        ConfigError, match=r"nearest: table1.*or the path of a YAML file, which ends in \.yml or \.yaml"
    ):
        get_regions("table2", (1,))
