"""The regions of MGRe (Table 1) as data, the whole image as a region (Table 5), and region sets of one's own.

Legend: N x M is the sampled size (height x width) of a region, H x W the size of its stage's map.
Centres and sizes are normalised to [0, 1] by the image's width and height, x to the right, y down.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import yaml
from fvcore.common.registry import Registry

from mgre.errors import ConfigError, nearest, shell_word

# In the order of a key point file, which COCO gives.
COCO_KEYPOINTS = (
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
)
# A single point says where a region is, but not how large it is.
MIN_KEYPOINTS = 2
# Height and width of the maps C1, C2, C3 for the 256 x 128 input to which Table 1 refers.
TABLE1_MAP_SIZES = {1: (64, 32), 2: (32, 16), 3: (16, 8)}


@dataclass(frozen=True)
class Region:
    """One region of the body: a row of Table 1 plus the key points its pseudo-label is made from.

    Attributes:
        name: the region's name, unique in its set.
        stage: i of the map F_i it is sampled from, 1 to 3.
        center: (C_x, C_y), the prior centre, normalised.
        size: (w, h) of the prior box, normalised: (M / W, N / H), so that at step 0 the N x M samples
            lie one map cell apart.
        keypoints: indices into :data:`COCO_KEYPOINTS`; empty for a region that always stays at its prior box.
    """

    name: str
    stage: int
    center: tuple[float, float]
    size: tuple[float, float]
    keypoints: tuple[int, ...]

    def sample_size(self, map_size: Sequence[int]) -> tuple[int, int]:
        """N x M on a map of ``map_size`` (H, W): Table 1's at 256 x 128, in proportion elsewhere.

        Examples:
            >>> TABLE1[0].sample_size((64, 32)), TABLE1[0].sample_size((96, 32))
            ((8, 8), (12, 8))
        """
        height, width = (int(side) for side in map_size)  # the sides are tensors while the model is traced
        return max(1, round(self.size[1] * height)), max(1, round(self.size[0] * width))


def _table1_row(
    name: str, stage: int, center: tuple[float, float], n_by_m: tuple[int, int], keypoints: tuple[int, ...]
) -> Region:
    height, width = TABLE1_MAP_SIZES[stage]
    return Region(name, stage, center, (n_by_m[1] / width, n_by_m[0] / height), keypoints)


TABLE1 = (
    _table1_row("head", 1, (1 / 2, 1 / 12), (8, 8), (0, 1, 2, 3, 4)),
    _table1_row("left_torso", 1, (1 / 2, 1 / 3), (32, 16), (5, 7, 9, 11)),
    _table1_row("right_torso", 1, (1 / 2, 1 / 3), (32, 16), (6, 8, 10, 12)),
    _table1_row("legs", 1, (1 / 2, 3 / 4), (24, 32), (11, 12, 13, 14, 15, 16)),
    _table1_row("upper_body", 2, (1 / 2, 1 / 3), (16, 16), tuple(range(13))),
    _table1_row("lower_body", 2, (1 / 2, 3 / 4), (16, 16), (11, 12, 13, 14, 15, 16)),
    _table1_row("whole_body", 3, (1 / 2, 1 / 2), (16, 8), tuple(range(17))),
)

# Table 5's single-grained regions: the whole image in each stage.
WHOLE_IMAGE = tuple(Region(f"whole_image_stage{i}", i, (1 / 2, 1 / 2), (1.0, 1.0), ()) for i in TABLE1_MAP_SIZES)

# Functions that return a set, by the names that MODEL.MGRE.REGIONS takes.
REGION_REGISTRY = Registry("REGIONS")
# What tells the path of a file, and the text of one, from a name in MODEL.MGRE.REGIONS.
FILE_SUFFIXES = (".yml", ".yaml")
TEXT_START = "- "
# A prior box may exceed the image by this much, because sums of fractions are rounded.
TOLERANCE = 1e-6
# More regions than a person has parts: a larger file is none of regions.
MAX_REGIONS = 100


@REGION_REGISTRY.register()
def table1() -> tuple[Region, ...]:
    """Table 1."""
    return TABLE1


@REGION_REGISTRY.register()
def whole_image() -> tuple[Region, ...]:
    """Table 5's single-grained regions."""
    return WHOLE_IMAGE


def prior_boxes(regions: Sequence[Region]) -> list[list[float]]:
    """(R, 4), (x_min, y_min, x_max, y_max), normalised: the boxes of the regions before training.

    Examples:
        >>> prior_boxes(get_regions("whole_image", [3])["stage3"])
        [[0.0, 0.0, 1.0, 1.0]]
    """
    return [
        [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        for (x, y), (width, height) in ((region.center, region.size) for region in regions)
    ]


def source_maps(stages: Sequence[int], source_blocks: Sequence[int]) -> dict[str, str]:
    """The name of the map ("stage1" ... "stage4") that each stage embeds, by the stage's name.

    Stage 4 embeds the map of stage 4.

    Args:
        stages: the stages with regions.
        source_blocks: the number of the map for stages 1, 2 and 3.

    Examples:
        >>> source_maps([1, 3], source_blocks=(1, 2, 3))
        {'stage1': 'stage1', 'stage3': 'stage3', 'stage4': 'stage4'}
    """
    return {f"stage{i}": f"stage{source_blocks[i - 1]}" for i in sorted(stages)} | {"stage4": "stage4"}


def get_regions(region_set: str, stages: Sequence[int]) -> dict[str, tuple[Region, ...]]:
    """The regions of each stage in ``stages``, by the stage's name ("stage1" ...) in ascending order.

    Raises:
        ConfigError: see :func:`load_region_set`; or the set has no region in a stage.
    """
    members = load_region_set(region_set)
    regions = {f"stage{i}": tuple(region for region in members if region.stage == i) for i in sorted(stages)}
    for stage, found in regions.items():
        if not found:
            own = tuple(sorted({region.stage for region in members}))
            raise ConfigError(
                f"MODEL.MGRE.STAGES asks for {stage}, but {describe_set(region_set)} has no region there: set "
                f"MODEL.MGRE.STAGES {shell_word(str(own))}, or fewer of them"
            )
    return regions


def load_region_set(region_set: str) -> tuple[Region, ...]:
    """All regions of a set.

    Args:
        region_set: a name in :data:`REGION_REGISTRY`, the path of a YAML file, or the text of one.

    Raises:
        ConfigError: the set is unknown, its file cannot be read or has another form, or a region cannot be used.
    """
    where = describe_set(region_set)
    if region_set.startswith(TEXT_START):
        regions = _parse_regions(region_set, where)
    elif region_set.endswith(FILE_SUFFIXES):
        regions = _parse_regions(_read_text(region_set, where), where)
    elif region_set in REGION_REGISTRY:
        regions = tuple(REGION_REGISTRY.get(region_set)())
    else:
        known = sorted(name for name, _ in REGION_REGISTRY)
        raise ConfigError(
            f"MODEL.MGRE.REGIONS is '{region_set}', which is not a region set{nearest(region_set, known)}; known ones: "
            f"{', '.join(known)}, or the path of a YAML file, which ends in {' or '.join(FILE_SUFFIXES)}"
        )
    names = [region.name for region in regions]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where} has two regions of one name: {', '.join(sorted(names))}")
    for region in regions:
        if fault := _fault_of(region):
            raise ConfigError(f"{where}, region '{region.name}': {fault}")
    return regions


def _fault_of(region: Region) -> str:
    """Why a region cannot be used; empty if it can."""
    if region.stage not in TABLE1_MAP_SIZES:
        return f"its stage is {region.stage!r}; allowed: 1, 2 or 3 (stage 4 embeds the whole image)"
    left, top, right, bottom = box = prior_boxes([region])[0]
    if not all(side > 0 for side in region.size) or not all(-TOLERANCE <= x <= 1 + TOLERANCE for x in box):
        return (
            f"its prior box has x from {left:g} to {right:g} and y from {top:g} to {bottom:g}; allowed: inside the "
            "image, from 0 to 1, and not empty (center is the middle of the box, size its width and height)"
        )
    if len(region.keypoints) == 1:
        return f"it has one key point; allowed: none, or at least {MIN_KEYPOINTS}, which give a box"
    if wrong := [index for index in region.keypoints if index not in range(len(COCO_KEYPOINTS))]:
        return f"key point {wrong[0]!r} is none of COCO's, 0 to {len(COCO_KEYPOINTS) - 1}"
    return ""


def describe_set(region_set: str) -> str:
    """What a value of MODEL.MGRE.REGIONS is, for messages."""
    return "the region set in the config" if region_set.startswith(TEXT_START) else f"region set '{region_set}'"


def without_file(region_set: str) -> str:
    """The same set as a value of MODEL.MGRE.REGIONS that needs no file: for the path of one, its text.

    Raises:
        ConfigError: see :func:`load_region_set`.
    """
    if not region_set.endswith(FILE_SUFFIXES):
        return region_set
    rows = []
    for region in load_region_set(region_set):
        names = [COCO_KEYPOINTS[index] for index in region.keypoints]
        rows.append(vars(region) | {"center": [*region.center], "size": [*region.size], "keypoints": names})
    return yaml.safe_dump(rows, sort_keys=False)


def _read_text(path: str, where: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ConfigError(
            f"MODEL.MGRE.REGIONS is '{path}', which does not exist (working directory {os.getcwd()})"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}") from error


def _parse_regions(text: str, where: str) -> tuple[Region, ...]:
    """The regions of a YAML list of mappings, which have the fields of :class:`Region`, key points by COCO's names.

    Args:
        text: the YAML.
        where: what the text is, for messages.
    """
    try:
        content = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, list) or not 0 < len(content) <= MAX_REGIONS:
        found = f"a list of {len(content)}" if isinstance(content, list) else f"a {type(content).__name__}"
        raise ConfigError(f"{where} is {found}; allowed: a list of 1 to {MAX_REGIONS} regions, each like {_EXAMPLE}")
    return tuple(_parse_region(row, f"{where}, region {i}") for i, row in enumerate(content, start=1))


_EXAMPLE = "{name: feet, stage: 1, center: [0.5, 0.9], size: [1.0, 0.2], keypoints: [left_ankle, right_ankle]}"


def _parse_region(content: Any, where: str) -> Region:
    """
    Args:
        content: what the file has for a region.
        where: the place, for messages.
    """
    known = [field.name for field in fields(Region)]
    if not isinstance(content, dict):
        raise ConfigError(f"{where} is no mapping; allowed: {_EXAMPLE}")
    if unknown := [key for key in content if key not in known]:
        raise ConfigError(f"{where} has {unknown[0]!r}{nearest(str(unknown[0]), known)}; allowed: {', '.join(known)}")
    if missing := [key for key in known[:-1] if key not in content]:  # keypoints may be left out
        raise ConfigError(f"{where} has no {missing[0]}; allowed: {_EXAMPLE}")
    name, keypoints = content["name"], content.get("keypoints", [])
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
        raise ConfigError(f"{where}: its name is {name!r}; allowed: letters, digits, _ and -")
    where = f"{where} ({name})"
    if type(content["stage"]) is not int:  # bool is an int
        raise ConfigError(f"{where}: its stage is {content['stage']!r}; allowed: 1, 2 or 3")
    if not isinstance(keypoints, list) or not all(isinstance(keypoint, str) for keypoint in keypoints):
        raise ConfigError(f"{where}: its keypoints are {keypoints!r}; allowed: a list of COCO's names, like [nose]")
    for keypoint in keypoints:
        if keypoint not in COCO_KEYPOINTS:
            raise ConfigError(f"{where}: '{keypoint}' is no key point{nearest(keypoint, COCO_KEYPOINTS)} of COCO's 17")
    center, size = (_parse_pair(content[key], f"{where}: its {key}") for key in ("center", "size"))
    return Region(
        name, content["stage"], center, size, tuple(COCO_KEYPOINTS.index(k) for k in dict.fromkeys(keypoints))
    )


def _parse_pair(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) in (int, float) for number in value):
        raise ConfigError(f"{where} is {value!r}; allowed: two numbers (x, y) in fractions of the image, like [0.5, 1]")
    return float(value[0]), float(value[1])


def count_maps(regions: dict[str, tuple[Region, ...]]) -> dict[str, int]:
    """How many maps each stage embeds: one for each region, and one of the whole image in stage 4.

    Examples:
        >>> count_maps(get_regions("table1", [1, 2, 3]))
        {'stage1': 4, 'stage2': 2, 'stage3': 1, 'stage4': 1}
    """
    return {stage: len(members) for stage, members in regions.items()} | {"stage4": 1}
