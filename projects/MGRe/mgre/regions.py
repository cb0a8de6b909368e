"""The regions of MGRe (Table 1) as data, and the whole image as a region (Table 5).

Legend: N x M is the sampled size (height x width) of a region, H x W the size of its stage's map.
Centres and sizes are normalised to [0, 1] by the image's width and height, x to the right, y down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mgre.errors import ConfigError

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
        keypoints: indices into the 17 COCO key points (see :mod:`mgre.data.keypoints`); empty for a region that always
            stays at its prior box.
    """

    name: str
    stage: int
    center: tuple[float, float]
    size: tuple[float, float]
    keypoints: tuple[int, ...]

    def sample_size(self, map_size: Sequence[int]) -> tuple[int, int]:
        """N x M on a map of ``map_size`` (H, W): Table 1's at 256 x 128, in proportion elsewhere.

        >>> REGION_SETS["table1"][0].sample_size((64, 32)), REGION_SETS["table1"][0].sample_size((96, 32))
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

# The sets by the names that MODEL.MGRE.REGIONS takes; add a set of your own here or by assignment.
REGION_SETS: dict[str, tuple[Region, ...]] = {"table1": TABLE1, "whole_image": WHOLE_IMAGE}


def prior_boxes(regions: Sequence[Region]) -> list[list[float]]:
    """(R, 4), (x_min, y_min, x_max, y_max), normalised: the boxes of the regions before training.

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

    >>> source_maps([1, 3], source_blocks=(1, 2, 3))
    {'stage1': 'stage1', 'stage3': 'stage3', 'stage4': 'stage4'}
    """
    return {f"stage{i}": f"stage{source_blocks[i - 1]}" for i in sorted(stages)} | {"stage4": "stage4"}


def get_regions(region_set: str, stages: Sequence[int]) -> dict[str, tuple[Region, ...]]:
    """The regions of each stage in ``stages``, by the stage's name ("stage1" ...) in ascending order.

    Raises:
        ConfigError: the set is unknown, has two regions of one name, or has no region in a stage.
    """
    if region_set not in REGION_SETS:
        raise ConfigError(
            f"MODEL.MGRE.REGIONS is '{region_set}', which is not a region set; "
            f"known ones (mgre/regions.py): {', '.join(sorted(REGION_SETS))}"
        )
    regions = {f"stage{i}": tuple(r for r in REGION_SETS[region_set] if r.stage == i) for i in sorted(stages)}
    names = [region.name for members in regions.values() for region in members]
    if len(set(names)) < len(names):
        raise ConfigError(f"region set '{region_set}' has two regions of one name: {', '.join(sorted(names))}")
    for stage, members in regions.items():
        if not members:
            raise ConfigError(f"MODEL.MGRE.STAGES asks for {stage}, but region set '{region_set}' has no region there")
    return regions


def count_maps(regions: dict[str, tuple[Region, ...]]) -> dict[str, int]:
    """How many maps each stage embeds: one for each region, and one of the whole image in stage 4.

    >>> count_maps(get_regions("table1", [1, 2, 3]))
    {'stage1': 4, 'stage2': 2, 'stage3': 1, 'stage4': 1}
    """
    return {stage: len(members) for stage, members in regions.items()} | {"stage4": 1}
