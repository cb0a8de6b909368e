"""One crop: a person before a camera's background, framed by an inexact detector, in the camera's colours."""

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np

from mgre.data.synthetic import difficulty
from mgre.data.synthetic.canvas import Canvas
from mgre.data.synthetic.figure import FOREIGN, Placement, draw_person, visible_keypoints
from mgre.data.synthetic.identity import CLOTHING, DETAIL_COLOURS, Identity, sample_identities
from mgre.data.synthetic.pose import sample_pose

# Pictures are drawn at least this high and then shrunk, which smooths all edges.
_MIN_CANVAS_HEIGHT = 256
_COLOURS = (*CLOTHING.values(), *DETAIL_COLOURS)
HIDDEN_SCORE = 0.0
# The score of points behind the person's own body, which pose models place well, with a middling score.
SELF_OCCLUDED_SCORE = 0.5
VISIBLE_SCORE = 1.0


@dataclass(frozen=True)
class Camera:
    """The properties that all images of a camera share.

    Attributes:
        scenery: (H, 3 W, 3) uint8 RGB, the camera's background; an image shows a window of H x W.
        gain: factor on each of red, green and blue.
        brightness: offset as a fraction of 255.
        contrast: factor on the difference from mid grey.
    """

    scenery: np.ndarray
    gain: np.ndarray
    brightness: float
    contrast: float


def canvas_scale(size: tuple[int, int]) -> int:
    """Canvas pixels for a pixel of a crop of ``size`` (H, W)."""
    return max(1, ceil(_MIN_CANVAS_HEIGHT / size[0]))


def sample_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """A camera for crops of ``size`` (H, W)."""
    scale = canvas_scale(size)
    return Camera(
        scenery=_draw_scenery(rng, scale * size[0], 3 * scale * size[1]),
        gain=1 + rng.uniform(-1, 1, 3) * difficulty.CAMERA_GAIN,
        brightness=rng.uniform(-1, 1) * difficulty.CAMERA_BRIGHTNESS,
        contrast=1 + rng.uniform(-1, 1) * difficulty.CAMERA_CONTRAST,
    )


def draw_crop(
    rng: np.random.Generator, identity: Identity, camera: Camera, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a person as a camera's detector crops it.

    Returns:
        The crop, (H, W, 3) uint8 RGB of ``size`` (H, W), and its key points, (17, 3): x and y in pixels of the crop,
        whose top left corner is (0, 0), and the score: 1.0 for a visible point, 0.5 for a point behind the person's own
        body, 0.0 for a point outside the crop or hidden by something else.
    """
    scale = canvas_scale(size)
    height, width = (scale * side for side in size)
    left = rng.integers(camera.scenery.shape[1] - width + 1)
    canvas = Canvas(camera.scenery[:, left : left + width].copy())
    _draw_distractors(rng, canvas)

    placement = _sample_placement(rng, height, width)
    if rng.random() < difficulty.BYSTANDER_PROBABILITY:
        _draw_stranger(rng, canvas, placement, apart=(0.45, 0.75))
    keypoints = draw_person(canvas, identity, sample_pose(rng), placement)
    if rng.random() < difficulty.OCCLUDER_PROBABILITY:
        _draw_occluder(rng, canvas, placement)

    visible = visible_keypoints(canvas, keypoints)
    behind_own_body = np.array([canvas.part_at(point[:2]) not in (None, FOREIGN) for point in keypoints])
    scores = np.where(visible, VISIBLE_SCORE, np.where(behind_own_body, SELF_OCCLUDED_SCORE, HIDDEN_SCORE))
    image = cv2.resize(canvas.image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return _through_camera(rng, image, camera), np.column_stack((keypoints[:, :2] / scale, scores))


def jpeg_quality(rng: np.random.Generator) -> int:
    """The JPEG quality an image is saved with."""
    return int(rng.integers(difficulty.JPEG_QUALITY[0], difficulty.JPEG_QUALITY[1] + 1))


def _sample_placement(rng: np.random.Generator, height: int, width: int) -> Placement:
    """The person's place in an image of ``height`` x ``width``; people in a wide image are not wider."""
    side = min(height, 2 * width)
    wide = rng.random() < difficulty.WIDE_PROBABILITY
    figure = side * rng.uniform(*(difficulty.WIDE_HEIGHT_RANGE if wide else difficulty.HEIGHT_RANGE))
    jitter_x, jitter_y = rng.uniform(-1, 1, 2) * difficulty.CENTER_JITTER
    x = width * (0.5 + jitter_x)
    y = (height - figure) / 2 + height * jitter_y
    if wide:
        x += width * rng.uniform(-1, 1) * difficulty.WIDE_SHIFT
        y = (height - figure) * rng.random()
    elif rng.random() < difficulty.CUT_OFF_PROBABILITY:
        cut = rng.uniform(0.3, 1.0) * difficulty.MAX_CUT_OFF
        border = rng.choice(("top", "bottom", "left", "right"))
        if border == "top":
            y = -cut * figure
        elif border == "bottom":
            y = height - (1 - cut) * figure
        else:
            # The shoulders are about a third of the height wide.
            reach = figure * (0.16 - 0.33 * cut)
            x = reach if border == "left" else width - reach
    return Placement((x, y), figure)


def _draw_scenery(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A wall and a floor, uneven and with bricks, slats or panes."""
    wall, floor_colour = rng.uniform(70, 210, (2, 3)) * 0.6 + rng.uniform(70, 190, (2, 1)) * 0.4
    horizon = int(height * rng.uniform(0.45, 0.8))
    scenery = np.empty((height, width, 3), np.float32)
    scenery[:horizon], scenery[horizon:] = wall, floor_colour
    for cells, amplitude in ((6, 22), (24, 12), (90, 8)):
        grain = rng.normal(0, amplitude, (cells, cells, 1)).astype(np.float32)
        scenery += cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    scenery = np.clip(scenery, 0, 255).astype(np.uint8)
    joint = tuple(float(channel) for channel in wall * 0.7)
    step = int(height * rng.uniform(0.05, 0.14))
    pattern = rng.choice(("bricks", "slats", "panes"))
    rows = range(0, horizon, step)
    if pattern != "slats":
        for y in rows:
            cv2.line(scenery, (0, y), (width, y), joint, 2, cv2.LINE_AA)
    for row, y in enumerate(rows):
        for x in range(step if pattern == "bricks" and row % 2 else 0, width, 2 * step):
            cv2.line(scenery, (x, y), (x, min(y + step, horizon)), joint, 2, cv2.LINE_AA)
    for _ in range(6):
        left, object_width = rng.integers(width), rng.uniform(0.05, 0.2) * height
        bottom, object_height = horizon + rng.uniform(-0.02, 0.1) * height, rng.uniform(0.15, 0.5) * height
        colour = rng.uniform(40, 220, 3)
        corners = np.array(((left, bottom - object_height), (left + object_width, bottom))).astype(int).tolist()
        cv2.rectangle(scenery, corners[0], corners[1], colour.tolist(), -1)
    return scenery


def _draw_distractors(rng: np.random.Generator, canvas: Canvas) -> None:
    """Things in the colours of clothes, behind the person."""
    height, width = canvas.parts.shape
    for _ in range(rng.integers(*difficulty.DISTRACTOR_RANGE, endpoint=True)):
        center = rng.uniform(0, 1, 2) * (width, height)
        half = rng.uniform(0.03, 0.12, 2) * height
        colour = _COLOURS[rng.integers(len(_COLOURS))]
        if rng.random() < 0.5:
            canvas.ellipse(center, half, colour, FOREIGN)
        else:
            _draw_block(rng, canvas, center, half, colour)


def _draw_block(
    rng: np.random.Generator, canvas: Canvas, center: np.ndarray, half: np.ndarray, colour: tuple[float, float, float]
) -> None:
    """A rectangle, a little askew."""
    angle = rng.uniform(-0.2, 0.2)
    corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * half
    rotation = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    canvas.polygon(center + corners @ rotation.T, colour, FOREIGN)


def _draw_occluder(rng: np.random.Generator, canvas: Canvas, placement: Placement) -> None:
    """A pole, a box or a passer-by, before the person."""
    height = canvas.parts.shape[0]
    kind = rng.choice(("pole", "box", "person"))
    if kind == "person":
        _draw_stranger(rng, canvas, placement, apart=(0.28, 0.42))
        return
    colour = _COLOURS[rng.integers(len(_COLOURS))]
    x = placement.top[0] + rng.uniform(-0.2, 0.2) * placement.height
    if kind == "pole":
        center, half = np.array((x, height / 2)), np.array((rng.uniform(0.02, 0.04) * height, height))
    else:
        top = height * rng.uniform(0.55, 0.85)
        center, half = np.array((x, (top + 1.1 * height) / 2)), np.array((0.14 * height, (1.1 * height - top) / 2))
    _draw_block(rng, canvas, center, half, colour)


def _draw_stranger(rng: np.random.Generator, canvas: Canvas, placement: Placement, apart: tuple[float, float]) -> None:
    """Somebody else, ``apart`` (a range, in heights of the person) to one side of the person."""
    shift = rng.choice((-1, 1)) * rng.uniform(*apart) * placement.height
    height = placement.height * rng.uniform(0.9, 1.05)
    top = (placement.top[0] + shift, placement.top[1] + rng.uniform(-0.05, 0.1) * placement.height)
    (stranger,) = sample_identities(rng, 1)
    draw_person(canvas, stranger, sample_pose(rng), Placement(top, height), foreign=True)


def _through_camera(rng: np.random.Generator, image: np.ndarray, camera: Camera) -> np.ndarray:
    """Colour cast, exposure, blur and noise."""
    gain = camera.gain * (1 + rng.uniform(-1, 1, 3) * difficulty.IMAGE_GAIN)
    brightness = camera.brightness + rng.uniform(-1, 1) * difficulty.IMAGE_BRIGHTNESS
    contrast = camera.contrast * (1 + rng.uniform(-1, 1) * difficulty.IMAGE_CONTRAST)
    seen: np.ndarray = (image.astype(np.float32) * gain.astype(np.float32) - 127.5) * np.float32(contrast)
    seen += np.float32(127.5 + 255 * brightness)
    sigma = rng.uniform(*difficulty.BLUR_SIGMA) * image.shape[0] / 128
    seen = cv2.GaussianBlur(seen, (0, 0), sigma)
    noise = np.float32(rng.uniform(*difficulty.NOISE_SIGMA)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.round(seen + noise), 0, 255).astype(np.uint8)
