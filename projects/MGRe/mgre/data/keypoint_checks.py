"""Checks of a key point file that need the file alone: where its points lie, and in whose entry.

Some faults can be seen only in most images together, by properties that most crops of people share: people stand
upright, their heads are above their feet, and pose models are surer of faces that look into the camera.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mgre.data.findings import ERROR, MIN_IMAGES, MOST, WARNING, Finding, share_of
from mgre.data.keypoints import COCO_KEYPOINTS, ImageKeypoints, far_outside, trusted_points
from mgre.errors import DataError

logger = logging.getLogger(__name__)

# Points far outside are single ones of a pose model, or those of other images. More than this share of the images has
# them only in the second case (a choice).
MANY = 0.3
# A person with fewer trusted points has no shape that could be judged.
MIN_POINTS = 4
# Two points of a pair closer than this (in widths of the image) are seen from the side, so their left-right order is
# noise. On MoveNet's points of 800 real crops, shoulders and hips disagree 46 times without this limit, and twice with
# it.
MIN_SEPARATION = 0.05
# Of the images with the surest faces, at most this share may have the left shoulder on the left, as people seen from
# behind have. On the same crops, from all sides in equal shares, the share is 0.33, and 0.67 with left and right
# exchanged.
MAX_SHARE_FROM_BEHIND = 0.6
# Scores are probabilities, or heights of heatmaps that are trained towards 1. Both exceed 1 by little.
MAX_SCORE = 1.5
# If no coordinate exceeds this, the coordinates are normalised ones, some of which overhang, and not pixels.
MAX_NORMALISED = 1.5
# The feet are in the lower half of a crop of a person. If NEARLY_ALL percent of the points are above and left of the
# middle, their pixels are those of a smaller image.
LOWER_HALF, NEARLY_ALL = 0.5, 95

# Points are looked for at most this many entries away from their own: a list may have lost or gained a few images.
MAX_SHIFT = 3
# A person's score that differs from the mean of the points' scores by no more than this is that mean, rounded to three
# digits.
SCORE_ROUNDING = 1e-3

_NOSE, _EYES, _SHOULDERS = 0, (1, 2), (5, 6)
# From top to bottom: head, shoulders, hips, knees, ankles.
_LEVELS = (range(5), (5, 6), (11, 12), (13, 14), (15, 16))
# Eyes, ears and hips: a body cannot have one of these pairs in the opposite order to its shoulders, unless it looks
# back.
_RIGID_PAIRS = ((1, 2), (3, 4), (11, 12))


def require_sound(findings: Sequence[Finding], path: str, *, doubtful: str) -> None:
    """Stop where there are errors among the ``findings`` in the key point file ``path``, or only warn of the errors.

    Args:
        doubtful: "stop" or "warn", as in DATASETS.DOUBTFUL_KEYPOINTS.

    Raises:
        DataError: there is an error, and ``doubtful`` is "stop".
    """
    errors = [finding.message for finding in findings if finding.level == ERROR]
    if errors and doubtful == "stop":
        raise DataError(
            f"Key point file '{path}': {'; '.join(errors)}; or, if the points are right, set "
            "DATASETS.DOUBTFUL_KEYPOINTS warn"
        )
    for error in errors:
        logger.warning("Key point file '%s': %s", path, error)


def check_points(keypoints: Mapping[str, ImageKeypoints], min_score: float) -> list[Finding]:
    """Find faults in the places and the scores of the points.

    Args:
        keypoints: by ``file_name``, with their scores as in the file, also those outside their image.
        min_score: points of a lower score are not trusted.
    """
    return [*check_places(keypoints, min_score), *check_scores(keypoints, min_score)]


def check_places(keypoints: Mapping[str, ImageKeypoints], min_score: float) -> list[Finding]:
    """Find faults in the places of the points alone; see :func:`check_points`."""
    if not keypoints:
        return []
    crops = _Crops(keypoints, min_score)
    # A fault of all points also trips the checks after the one that names it, so only the first is reported.
    checks = (check(crops) for check in (_check_scale, _check_variety, _check_upright, _check_sides))
    findings = next(filter(None, map(list, checks)), [])
    return [*findings, *_check_inside(crops, min_score)]


class _Crops:
    """The key points of N images as arrays.

    Attributes:
        names: (N,), the ``file_name`` of each image.
        xy: (N, 17, 2), pixels.
        scores: (N, 17).
        trusted: (N, 17), by the score alone, wherever the point is.
        anything_trusted: (N,), whether the image has a trusted point.
        size: (N, 1, 2), width and height in pixels.
    """

    def __init__(self, keypoints: Mapping[str, ImageKeypoints], min_score: float) -> None:
        self.names = np.array(list(keypoints))
        points = np.stack([found.points for found in keypoints.values()])
        self.xy, self.scores = points[..., :2], points[..., 2]
        self.trusted = trusted_points(points, min_score)
        self.size = np.array([found.size[::-1] for found in keypoints.values()])[:, None]
        self.anything_trusted = np.any(self.trusted, axis=1)

    def share(self, concerned: np.ndarray, judged: np.ndarray) -> str:
        """In words: how many of the ``judged`` images (N,) are ``concerned`` (N,), and the first names."""
        return share_of(self.names[concerned & judged], int(judged.sum()))

    def most(self, concerned: np.ndarray, judged: np.ndarray) -> bool:
        """Whether most of the ``judged`` images (N,) are ``concerned`` (N,); False where too few are judged."""
        return judged.sum() >= MIN_IMAGES and concerned[judged].mean() > MOST

    def side(self, pair: tuple[int, int]) -> np.ndarray:
        """(N,): 1 where the left point of the pair is clearly to the right of the right point, as in people who face
        the camera; -1 where the left point is clearly to the left; 0 where the order cannot be told."""
        left, right = pair
        distance = (self.xy[:, left, 0] - self.xy[:, right, 0]) / self.size[:, 0, 0]
        known = self.trusted[:, left] & self.trusted[:, right] & (np.abs(distance) > MIN_SEPARATION)
        return np.where(known, np.sign(distance), 0)

    def extent(self) -> np.ndarray:
        """(N, 2): width and height of the box around the trusted points; -inf where no point is trusted."""
        trusted = self.trusted[..., None]
        high = np.where(trusted, self.xy, -np.inf).max(axis=1)
        return high - np.where(trusted, self.xy, np.inf).min(axis=1)

    def height_of(self, joints: Sequence[int]) -> np.ndarray:
        """(N,) mean y of the trusted ``joints``; NaN where none is trusted: comparisons with NaN are false."""
        trusted = self.trusted[:, joints]
        total = (self.xy[:, joints, 1] * trusted).sum(axis=1)
        count = trusted.sum(axis=1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def check_scores(keypoints: Mapping[str, ImageKeypoints], min_score: float) -> Iterator[Finding]:
    """Find faults in the scores of the points; see :func:`check_points`."""
    if not keypoints:
        return
    crops = _Crops(keypoints, min_score)
    every = np.ones(len(crops.names), dtype=bool)
    empty = ~crops.anything_trusted
    if empty.any():
        level = ERROR if empty.mean() > MOST else WARNING
        yield Finding(level, f"{crops.share(empty, every)} have no trusted point: all scores are too low")
    if np.isin(crops.scores, (0, 1, 2)).all() and (crops.scores == 2).any():
        yield Finding(WARNING, "scores are COCO's visibility flags 0, 1, 2: all labelled points are trusted")
    elif crops.scores.max() > MAX_SCORE:
        yield Finding(
            WARNING,
            f"scores reach {crops.scores.max():.3g}: they are no probabilities; bring them to 0 ... 1, or see how many "
            "points are trusted",
        )


def _check_scale(crops: _Crops) -> Iterator[Finding]:
    judged = crops.trusted.sum(axis=1) >= MIN_POINTS
    # So many points in a corner of one or two pixels are of no person, in however few images.
    reach = np.where(crops.trusted, np.abs(crops.xy).max(axis=-1), 0).max(axis=1)
    normalised = (reach <= MAX_NORMALISED) & (crops.size.min(axis=(1, 2)) > 4 * MAX_NORMALISED)
    if judged.any() and normalised[judged].mean() > MOST:
        yield Finding(
            ERROR,
            f"coordinates are normalised in {crops.share(normalised, judged)}: all are from 0 to 1; multiply x by the "
            "width and y by the height",
        )
        return
    if crops.anything_trusted.sum() < MIN_IMAGES:
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
    """Give at most one finding, because each fault also trips the tests after the one that names it."""
    width, height = np.moveaxis(crops.extent(), -1, 0)
    crop_width, crop_height = np.moveaxis(crops.size[:, 0], -1, 0)
    upright = (crop_height > crop_width) & (crops.trusted.sum(axis=1) >= MIN_POINTS)
    if crops.most(width > height, upright):
        yield Finding(
            ERROR, f"x and y look swapped: the person is wider than tall in {crops.share(width > height, upright)}"
        )
        return

    levels = np.stack([crops.height_of(joints) for joints in _LEVELS])
    known = ~np.isnan(levels)
    head, hips = levels[0], levels[2]
    if crops.most(head > hips, known[0] & known[2]):
        yield Finding(
            ERROR,
            "upside down, or joints in reverse order: the head is below the hips in "
            f"{crops.share(head > hips, known[0] & known[2])}; y goes down, and the nose comes first",
        )
        return

    disordered = np.any(levels[:-1] > levels[1:], axis=0)
    if crops.most(disordered, known.sum(axis=0) > 1):
        yield Finding(
            ERROR,
            "joints of another order than COCO's: head, shoulders, hips, knees and ankles are not below each other in "
            f"{crops.share(disordered, known.sum(axis=0) > 1)}",
        )
        return

    nose_y, left_eye_y, right_eye_y = crops.xy[:, [_NOSE, *_EYES], 1].T
    split = (left_eye_y > nose_y) & (right_eye_y < nose_y)
    face = np.all(crops.trusted[:, [_NOSE, *_EYES]], axis=1)
    if crops.most(split, face):
        yield Finding(
            ERROR,
            "joints of PoseTrack, not of COCO: in the places of the eyes are the neck and the top of the head in "
            f"{crops.share(split, face)}; give these two score 0",
        )


def _check_sides(crops: _Crops) -> Iterator[Finding]:
    shoulders = crops.side(_SHOULDERS)
    products = np.stack([shoulders * crops.side(pair) for pair in _RIGID_PAIRS])
    disagree, judged = np.any(products < 0, axis=0), np.any(products != 0, axis=0)
    if crops.most(disagree, judged):
        yield Finding(
            ERROR,
            "joints of another order than COCO's: left and right of the shoulders and of the eyes, ears or hips "
            f"disagree in {crops.share(disagree, judged)}",
        )
    elif (disagree & judged).any():
        yield Finding(
            WARNING,
            "left and right may be swapped: shoulders disagree with eyes, ears or hips in "
            f"{crops.share(disagree, judged)}",
        )

    face = crops.scores[:, [_NOSE, *_EYES]].min(axis=1)
    seen = crops.trusted[:, [_NOSE, *_EYES]].all(axis=1) & (shoulders != 0)
    surest = seen & (face >= (np.median(face[seen]) if seen.any() else 0))
    from_behind = shoulders < 0
    if surest.sum() >= MIN_IMAGES and from_behind[surest].mean() > MAX_SHARE_FROM_BEHIND:
        yield Finding(
            ERROR,
            "left and right are exchanged in the file: the left shoulder is on the left, as from behind, although the "
            f"face is seen best, in {crops.share(from_behind, surest)}; left is the person's left",
        )


def _check_inside(crops: _Crops, min_score: float) -> Iterator[Finding]:
    overhang = np.maximum(-crops.xy, crops.xy - crops.size) / crops.size
    overhang = np.where(crops.trusted, overhang.max(axis=-1), 0).max(axis=1)
    if not (overhang > 0).any():
        return
    far = far_outside(np.concatenate([crops.xy, crops.scores[..., None]], axis=-1), crops.size[:, 0, ::-1], min_score)
    images = np.any(far, axis=1)
    if images.sum() > MANY * crops.anything_trusted.sum():
        number, index = np.argwhere(far)[0]
        (x, y), score = crops.xy[number, index], crops.scores[number, index]
        width, height = crops.size[number, 0]
        yield Finding(
            ERROR,
            f"points of other images, or no pixels: far outside in {crops.share(images, np.ones_like(images))}, "
            f"such as {COCO_KEYPOINTS[index]} at x {x:g}, y {y:g} (score {score:g}), outside the image of {width} x "
            f"{height} pixels (width x height); write pixels of the crop, x before y",
        )
        return
    yield Finding(
        WARNING,
        f"points with a good score lie outside the image in {crops.share(overhang > 0, crops.anything_trusted)}, "
        f"by up to {overhang.max():.1%} of its side; training does not trust them",
    )


def check_entries(names: Sequence[str], people: Sequence[tuple[str, float, ImageKeypoints]]) -> Iterator[Finding]:
    """Find points that stand in the entry of a neighbouring image.

    Two signs give such points away. First, most tools write the mean of the points' scores as the person's score: a
    score that is the mean of a neighbouring entry's points came with those points. Second, the annotations are in the
    order of the images, but moved by a few places.

    Args:
        names: the ``file_name`` of each image, in the file's order.
        people: the annotations in the file's order, as (``file_name``, the person's score, key points).
    """
    if len(people) < MIN_IMAGES:
        return
    scores = np.array([score for _, score, _ in people])
    means = np.stack([keypoints.points[:, 2] for _, _, keypoints in people]).mean(axis=1)
    others = np.abs(scores - means) > SCORE_ROUNDING
    order = {name: index for index, name in enumerate(names)}
    positions = np.array([order[name] for name, _, _ in people])
    for shift in (sign * step for step in range(1, MAX_SHIFT + 1) for sign in (1, -1)):
        where = f"{abs(shift)} {'after' if shift > 0 else 'before'} it"
        moved = others & (np.abs(scores - np.roll(means, -shift)) <= SCORE_ROUNDING)
        if moved.sum() >= MIN_IMAGES and moved.sum() > MOST * others.sum():
            told = share_of([people[index][0] for index in np.flatnonzero(moved).tolist()], len(people))
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
