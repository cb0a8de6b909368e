import pytest
from mgre.errors import ConfigError
from mgre.regions import REGION_REGISTRY, TABLE1, count_maps, get_regions

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
    monkeypatch.setitem(REGION_REGISTRY._obj_map, "twice", lambda: (head, head))
    with pytest.raises(ConfigError, match="'twice' has two regions of one name"):
        get_regions("twice", (1,))
