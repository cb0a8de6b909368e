"""Tests a key point file against the data set it is for.

Some faults are seen in the file itself, others only in what most of its images have in common: people in crops stand
upright, their heads above their feet, and pose models are surer of faces that look into the camera.

What is not looked at is the pictures. So points that stand in another image's entry are seen only where something else
in the file tells: other image sizes, a person's score that is the mean of other points, or the order of the entries.
Where all crops have one size and the entries moved as a whole, only the sheets show it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgre.data.coco_file import best_people, read_people
from mgre.data.keypoints import ImageKeypoints, check_inside, file_name_of
from mgre.errors import DataError
from mgre.pose.images import image_size

ERROR, WARNING = "error", "warning"

# What more than this share of the images have is a fault of the file, not of a few images.
MOST = 0.5
# Fewer images than this say nothing about the file: half a dozen people may well sit, or look away.
MIN_IMAGES = 20
# Fewer points of a person have no shape.
MIN_POINTS = 4
# Two points of a pair closer than this (of the image's width) are seen from the side: which is left of the other is
# noise. On MoveNet's points of 800 real crops, shoulders and hips disagree 46 times without it, and twice with it.
MIN_SEPARATION = 0.05
# Of the images with the surest faces, this share may have the left shoulder on the left, as people seen from behind
# have. On the same crops, from all sides in equal shares, it is 0.33, and 0.67 with left and right exchanged.
MAX_SHARE_FROM_BEHIND = 0.6
# Scores are probabilities or heights of heatmaps trained towards 1; both overshoot a little at most.
MAX_SCORE = 1.5
# Coordinates up to here, in pixels, are normalised ones that overhang.
MAX_NORMALISED = 1.5
# Points are looked for this many entries away from their own: a list that lost or gained a few images.
MAX_SHIFT = 3
# By how much a person's score may differ from the mean of the points' and still be that, rounded to three digits.
SCORE_ROUNDING = 1e-3
# Feet are in the lower half of a crop of a person: if nearly no point is, the pixels are those of a smaller image.
LOWER_HALF, NEARLY_ALL = 0.5, 95

_NUM_NAMED = 3
_NOSE, _EYES, _SHOULDERS = 0, (1, 2), (5, 6)
# From top to bottom: head, shoulders, hips, knees, ankles.
_LEVELS = (range(5), (5, 6), (11, 12), (13, 14), (15, 16))
# Pairs that one body cannot have in opposite orders, unless it looks back: eyes, ears, hips against the shoulders.
_RIGID_PAIRS = ((1, 2), (3, 4), (11, 12))


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        level: "error" (the file is refused) or "warning" (told, accepted).
        message: one line.
    """

    level: str
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def check_keypoints(
    path: str,
    image_paths: Sequence[str],
    folder: str,
    *,
    train_paths: Collection[str] | None = None,
    min_score: float = 0.3,
) -> list[Finding]:
    """Test a COCO key point JSON against a data set.

    Args:
        path: the key point file.
        image_paths: the images that may have key points.
        folder: file names in the file are relative to it.
        train_paths: those of them that need key points, because they are trained on; None: all.
        min_score: points of a lower score are not trusted.

    Returns:
        What is wrong or suspicious, errors first; an empty list if nothing is. Only one finding where the file cannot
        be read at all.
    """
    try:
        names, people = read_people(path)
    except DataError as error:
        return [Finding(ERROR, str(error))]
    keypoints = best_people(people)
    paths = {file_name_of(image_path, folder): image_path for image_path in image_paths}
    train_names = (
        set(paths) if train_paths is None else {file_name_of(train_path, folder) for train_path in train_paths}
    )
    findings = [
        *_check_names(keypoints, paths, train_names, min_score),
        *_check_sizes(keypoints, paths),
        *_check_repeated(Counter(name for name, _, _ in people)),
        *_check_entries(names, people),
    ]
    if keypoints:
        crops = _Crops(keypoints, min_score)
        # Points that are at fault as a whole bring the later faults along: only the first is told.
        checks = (check(crops) for check in (_check_scale, _check_variety, _check_upright, _check_sides))
        findings += next(filter(None, map(list, checks)), [])
        findings += [*_check_scores(crops), *_check_inside(crops, people, min_score, path)]
    return sorted(findings, key=lambda finding: (ERROR, WARNING).index(finding.level))


class _Crops:
    """The key points of N images as arrays.

    Attributes:
        names: of the images.
        xy: (N, 17, 2), pixels.
        scores, trusted: (N, 17); trusted by the score alone, wherever the point is.
        size: (N, 1, 2), width and height in pixels.
    """

    def __init__(self, keypoints: Mapping[str, ImageKeypoints], min_score: float) -> None:
        self.names = np.array(list(keypoints))
        points = np.stack([found.points for found in keypoints.values()])
        self.xy, self.scores = points[..., :2], points[..., 2]
        self.trusted = np.stack([found.trusted(min_score) for found in keypoints.values()])
        self.size = np.array([found.size[::-1] for found in keypoints.values()])[:, None]
        self.anything_trusted = self.trusted.any(axis=1)

    def tell(self, concerned: np.ndarray, judged: np.ndarray) -> str:
        """How many of the ``judged`` images (N,) are ``concerned`` (N,), and the first names."""
        return _tell(self.names[concerned & judged], int(judged.sum()))

    def most(self, concerned: np.ndarray, judged: np.ndarray) -> bool:
        """Whether most of the ``judged`` images (N,), which are enough to tell, are ``concerned`` (N,)."""
        return judged.sum() >= MIN_IMAGES and concerned[judged].mean() > MOST

    def side(self, pair: tuple[int, int]) -> np.ndarray:
        """(N,): 1 where the pair's left point is clearly right of its right one, as in people who face the camera, -1
        where it is clearly left of it, 0 where neither can be told."""
        left, right = pair
        distance = (self.xy[:, left, 0] - self.xy[:, right, 0]) / self.size[:, 0, 0]
        known = self.trusted[:, left] & self.trusted[:, right] & (np.abs(distance) > MIN_SEPARATION)
        return np.where(known, np.sign(distance), 0)

    def extent(self) -> np.ndarray:
        """(N, 2): width and height of the box around the trusted points; -inf where there is none."""
        trusted = self.trusted[..., None]
        high = np.where(trusted, self.xy, -np.inf).max(axis=1)
        return high - np.where(trusted, self.xy, np.inf).min(axis=1)

    def height_of(self, joints: Sequence[int]) -> np.ndarray:
        """(N,) mean y of the trusted ones of ``joints``; NaN where there is none, which compares as false."""
        trusted = self.trusted[:, joints]
        total = (self.xy[:, joints, 1] * trusted).sum(axis=1)
        count = trusted.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _tell(names: Sequence[str], total: int) -> str:
    named = ", ".join(names[:_NUM_NAMED])
    return f"{len(names)} of {total} images ({len(names) / total:.1%}; first {named})"


def _check_names(
    keypoints: Mapping[str, ImageKeypoints], paths: Mapping[str, str], train_names: Collection[str], min_score: float
) -> Iterator[Finding]:
    missing = [name for name in paths if name not in keypoints]
    unknown = [name for name in keypoints if name not in paths]
    if len(missing) == len(paths) and unknown:
        yield Finding(
            ERROR,
            f"the file is of another data set: none of its {len(keypoints)} images (first {unknown[0]}) is among the "
            f"data set's {len(paths)} (first {next(iter(paths), 'none')}); file names are relative to the data set",
        )
        return
    yield from _check_missing(keypoints, missing, train_names, len(paths), min_score)
    if unknown:
        yield Finding(WARNING, f"{_tell(unknown, len(keypoints))} of the file are not in the data set")


def _check_missing(
    keypoints: Mapping[str, ImageKeypoints],
    missing: Sequence[str],
    train_names: Collection[str],
    num_images: int,
    min_score: float,
) -> Iterator[Finding]:
    """Training stops where most of its images have no trusted point; images to test on need none."""
    num_train, num_test = len(train_names), num_images - len(train_names)
    needed = [name for name in missing if name in train_names]
    not_needed = [name for name in missing if name not in train_names]
    which = "training split" if num_test else "data set"
    if needed:
        level = ERROR if len(needed) > MOST * num_train else WARNING
        yield Finding(level, f"{_tell(needed, num_train)} of the {which} have no key points; find theirs too")
    if not_needed:
        yield Finding(
            WARNING,
            f"{_tell(not_needed, num_test)} to test on have no key points; training needs none of them, but the IoU of "
            "the regions is measured only where there are some",
        )
    doubted = [name for name in train_names if name in keypoints and not keypoints[name].trusted(min_score).any()]
    if max(len(needed), len(doubted)) <= MOST * num_train < len(needed) + len(doubted):
        yield Finding(
            ERROR,
            f"{len(needed) + len(doubted)} of {num_train} images of the {which} have no trusted point: {len(needed)} "
            f"have no key points, and all scores of {len(doubted)} are too low",
        )


def _check_sizes(keypoints: Mapping[str, ImageKeypoints], paths: Mapping[str, str]) -> Iterator[Finding]:
    both = [name for name in keypoints if name in paths]
    sizes, unreadable = {}, []
    for name in both:
        try:
            sizes[name] = image_size(paths[name])
        except DataError as error:
            unreadable.append(str(error))
    if unreadable:
        yield Finding(WARNING, f"{len(unreadable)} images cannot be read; the first: {unreadable[0]}")
    wrong = [name for name, size in sizes.items() if keypoints[name].size != size]
    if wrong:
        said, size = keypoints[wrong[0]].size, sizes[wrong[0]]
        yield Finding(
            ERROR,
            f"width or height are not the image's in {_tell(wrong, len(both))}: the first is {said[1]} x {said[0]} in "
            f"the file and {size[1]} x {size[0]} on disk (width x height); find the key points in these images",
        )


def _check_repeated(counts: Mapping[str, int]) -> Iterator[Finding]:
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        yield Finding(WARNING, f"{_tell(repeated, len(counts))} have several people; the best score counts")


def _check_entries(names: Sequence[str], people: Sequence[tuple[str, float, ImageKeypoints]]) -> Iterator[Finding]:
    """Points that stand in the entry of a neighbouring image.

    Seen by the person's score, where it is the mean of the points' that were found with it, as most tools write it; and
    by an order of entries that is the images' order but for its beginning.
    """
    if len(people) < MIN_IMAGES:
        return
    scores = np.array([score for _, score, _ in people])
    means = np.array([keypoints.points[:, 2].mean() for _, _, keypoints in people])
    others = np.abs(scores - means) > SCORE_ROUNDING
    order = {name: index for index, name in enumerate(names)}
    positions = np.array([order[name] for name, _, _ in people])
    for shift in (sign * step for step in range(1, MAX_SHIFT + 1) for sign in (1, -1)):
        where = f"{abs(shift)} {'after' if shift > 0 else 'before'} it"
        moved = others & (np.abs(scores - np.roll(means, -shift)) <= SCORE_ROUNDING)
        if moved.sum() >= MIN_IMAGES and moved.sum() > MOST * others.sum():
            told = _tell([people[index][0] for index in np.flatnonzero(moved)], len(people))
            yield Finding(
                ERROR,
                f"points stand in other images' entries: the score of {told} is the mean of the points of the entry "
                f"{where}; write each image's points to its own entry",
            )
            return
        if len(names) == len(people) and (positions == np.roll(np.arange(len(names)), -shift)).all():
            yield Finding(
                ERROR,
                f"each entry of 'annotations' names the image {where} in the order of 'images': are its image_ids off "
                f"by {abs(shift)}?",
            )
            return


def _check_scores(crops: _Crops) -> Iterator[Finding]:
    every = np.ones(len(crops.names), dtype=bool)
    empty = ~crops.anything_trusted
    if empty.any():
        level = ERROR if empty.mean() > MOST else WARNING
        yield Finding(level, f"{crops.tell(empty, every)} have no trusted point: all scores are too low")
    if np.isin(crops.scores, (0, 1, 2)).all() and (crops.scores == 2).any():
        yield Finding(WARNING, "scores are COCO's visibility flags 0, 1, 2: all labelled points are trusted")
    elif crops.scores.max() > MAX_SCORE:
        yield Finding(
            WARNING,
            f"scores reach {crops.scores.max():.3g}: they are no probabilities; bring them to 0 ... 1, or see how many "
            "points are trusted",
        )


def _check_scale(crops: _Crops) -> Iterator[Finding]:
    if crops.anything_trusted.sum() < MIN_IMAGES:
        return
    points = crops.xy[crops.trusted]
    if np.abs(points).max() <= MAX_NORMALISED < crops.size.min():
        yield Finding(
            ERROR, "coordinates are normalised: all are from 0 to 1; multiply x by the width and y by the height"
        )
        return
    low = np.percentile((crops.xy / crops.size)[crops.trusted], NEARLY_ALL, axis=0)
    if (low < LOWER_HALF).all():
        yield Finding(
            ERROR,
            f"coordinates are of smaller images: {NEARLY_ALL} % of the points are above {low[1]:.0%} of the height and "
            f"left of {low[0]:.0%} of the width; scale them to the pixels of the images",
        )


def _check_variety(crops: _Crops) -> Iterator[Finding]:
    relative = np.round(np.where(crops.trusted[..., None], crops.xy / crops.size, 0), 3)[crops.anything_trusted]
    if len(relative) < MIN_IMAGES:
        return
    num_different = len(np.unique(relative.reshape(len(relative), -1), axis=0))
    if num_different <= MOST * len(relative):
        yield Finding(
            ERROR,
            f"{len(relative)} images have only {num_different} different sets of points: the pose model was stuck",
        )


def _check_upright(crops: _Crops) -> Iterator[Finding]:
    """At most one finding, because each fault brings those after it along."""
    width, height = np.moveaxis(crops.extent(), -1, 0)
    crop_width, crop_height = np.moveaxis(crops.size[:, 0], -1, 0)
    upright = (crop_height > crop_width) & (crops.trusted.sum(axis=1) >= MIN_POINTS)
    if crops.most(width > height, upright):
        yield Finding(
            ERROR, f"x and y look swapped: the person is wider than tall in {crops.tell(width > height, upright)}"
        )
        return

    levels = np.stack([crops.height_of(joints) for joints in _LEVELS])
    known = ~np.isnan(levels)
    head, hips = levels[0], levels[2]
    if crops.most(head > hips, known[0] & known[2]):
        yield Finding(
            ERROR,
            "upside down, or joints in reverse order: the head is below the hips in "
            f"{crops.tell(head > hips, known[0] & known[2])}; y goes down, and the nose comes first",
        )
        return

    disordered = (levels[:-1] > levels[1:]).any(axis=0)
    if crops.most(disordered, known.sum(axis=0) > 1):
        yield Finding(
            ERROR,
            "joints of another order than COCO's: head, shoulders, hips, knees and ankles are not below each other in "
            f"{crops.tell(disordered, known.sum(axis=0) > 1)}",
        )
        return

    nose_y, left_eye_y, right_eye_y = crops.xy[:, [_NOSE, *_EYES], 1].T
    split = (left_eye_y > nose_y) & (right_eye_y < nose_y)
    face = crops.trusted[:, [_NOSE, *_EYES]].all(axis=1)
    if crops.most(split, face):
        yield Finding(
            ERROR,
            "joints of PoseTrack, not of COCO: in the places of the eyes are the neck and the top of the head in "
            f"{crops.tell(split, face)}; give these two score 0",
        )


def _check_sides(crops: _Crops) -> Iterator[Finding]:
    shoulders = crops.side(_SHOULDERS)
    products = np.stack([shoulders * crops.side(pair) for pair in _RIGID_PAIRS])
    disagree, judged = (products < 0).any(axis=0), (products != 0).any(axis=0)
    if crops.most(disagree, judged):
        yield Finding(
            ERROR,
            "joints of another order than COCO's: left and right of the shoulders and of the eyes, ears or hips "
            f"disagree in {crops.tell(disagree, judged)}",
        )
    elif (disagree & judged).any():
        yield Finding(
            WARNING,
            "left and right may be swapped: shoulders disagree with eyes, ears or hips in "
            f"{crops.tell(disagree, judged)}",
        )

    face = crops.scores[:, [_NOSE, *_EYES]].min(axis=1)
    seen = crops.trusted[:, [_NOSE, *_EYES]].all(axis=1) & (shoulders != 0)
    surest = seen & (face >= (np.median(face[seen]) if seen.any() else 0))
    from_behind = shoulders < 0
    if surest.sum() >= MIN_IMAGES and from_behind[surest].mean() > MAX_SHARE_FROM_BEHIND:
        yield Finding(
            ERROR,
            "left and right are exchanged in the file: the left shoulder is on the left, as from behind, although the "
            f"face is seen best, in {crops.tell(from_behind, surest)}; left is the person's left",
        )


def _check_inside(
    crops: _Crops, people: Sequence[tuple[str, float, ImageKeypoints]], min_score: float, path: str
) -> Iterator[Finding]:
    try:
        for name, _, keypoints in people:
            check_inside(keypoints, min_score, name, path)
    except DataError as error:
        yield Finding(ERROR, str(error))
    overhang = np.maximum(-crops.xy, crops.xy - crops.size) / crops.size
    overhang = np.where(crops.trusted, overhang.max(axis=-1), 0).max(axis=1)
    if (overhang > 0).any():
        yield Finding(
            WARNING,
            f"points with a good score lie outside the image in {crops.tell(overhang > 0, crops.anything_trusted)}, by "
            f"up to {overhang.max():.1%} of its side; training does not trust them",
        )
