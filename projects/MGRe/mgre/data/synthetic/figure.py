"""Draws one person: limbs as capsules, torso and head as shaded solids, so that details turn with the body.

The torso is an upright elliptic cylinder and the head an ellipsoid. A pixel at the view angle ``phi`` (0 towards the
camera, positive to the image's right) shows the body's azimuth ``theta = phi - yaw`` (0 front, positive the person's
left), and clothing is a function of the azimuth and the height.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import cos, hypot, pi, sin

import numpy as np
from numpy.typing import ArrayLike

from mgre.data.synthetic.canvas import Canvas
from mgre.data.synthetic.identity import Colour, Identity
from mgre.data.synthetic.pose import HEAD_CENTER_Y, HEAD_HALF, HIP_Y, NECK_Y, SHOULDER_Y, Pose, skeleton, to_view

# Numbers of the parts on a canvas; (left, right) for pairs.
HEAD, TORSO, SKIRT, BAG = 1, 2, 3, 4
ARMS, LEGS = (5, 6), (7, 8)
# Parts that hide a person: occluders and other people.
FOREIGN = 255

# Parts that may cover a key point without hiding it: its own body part, and things worn there.
_NOT_HIDDEN_BY = (
    *((HEAD,),) * 5,
    *((TORSO, HEAD, BAG, arm) for arm in ARMS),
    *((arm,) for arm in ARMS),
    *((arm,) for arm in ARMS),
    *((TORSO, SKIRT, BAG, leg) for leg in LEGS),
    *((SKIRT, leg) for leg in LEGS),
    *((leg,) for leg in LEGS),
)
# How far behind the centre of the head (depth, in heights) nose, eyes and ears are still seen.
_FACE_MIN_DEPTH = (-0.012, 0.0, 0.0, -0.03, -0.03)

_TORSO_TOP, _TORSO_BOTTOM = NECK_Y - 0.005, HIP_Y + 0.035
# Half width and half depth of the torso at fractions of its height.
_TORSO_V = (0.0, 0.09, 0.2, 0.45, 0.7, 1.0)
_TORSO_HALF_WIDTH = np.array((0.045, 0.108, 0.122, 0.113, 0.1, 0.106))
_TORSO_HALF_DEPTH = np.array((0.04, 0.055, 0.072, 0.075, 0.07, 0.072))
_BELT_V = (0.84, 0.91)


@dataclass(frozen=True)
class Placement:
    """Where a figure stands: ``top`` (x, y) of its upright axis and its ``height``, in pixels of the canvas."""

    top: tuple[float, float]
    height: float


class _Figure:
    """One person on a canvas."""

    def __init__(self, canvas: Canvas, identity: Identity, pose: Pose, placement: Placement, foreign: bool) -> None:
        self.canvas = canvas
        self.look, self.details = identity.look, identity.details
        self.side = 0 if identity.on_left else 1
        self.yaw = pose.yaw
        self.foreign = foreign
        self.unit = placement.height
        self.skeleton = skeleton(pose, self.look.build)
        # Similarity from the view plane to the canvas: lean about the hips, scale, shift.
        self._rotation = np.array(((cos(pose.lean), -sin(pose.lean)), (sin(pose.lean), cos(pose.lean))))
        self._pivot = np.array((0.0, HIP_Y))
        self._origin = np.asarray(placement.top) + self.unit * self._pivot

    def to_canvas(self, points: ArrayLike) -> np.ndarray:
        """From view coordinates (..., 2 or more) to pixels (..., 2)."""
        return self._origin + self.unit * (np.asarray(points)[..., :2] - self._pivot) @ self._rotation.T

    def from_canvas(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of :meth:`to_canvas`."""
        x, y = (x - float(self._origin[0])) / self.unit, (y - float(self._origin[1])) / self.unit
        (cosine, _), (sine, _) = self._rotation.tolist()
        return cosine * x + sine * y, cosine * y - sine * x + HIP_Y

    def body_point(self, x: float, y: float, z: float) -> np.ndarray:
        """Pixels (x, y) of a point in body coordinates."""
        return self.to_canvas(to_view((x, y, z), self.yaw))

    def part(self, number: int) -> int:
        return FOREIGN if self.foreign else number

    def capsule(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        colour: tuple[float, float, float],
        part: int,
    ) -> None:
        """A capsule between two points of the canvas with radii in heights."""
        scaled = (radii[0] * self.unit, radii[1] * self.unit)
        self.canvas.capsule(start, end, scaled, colour, self.part(part))

    def draw(self) -> None:
        """Back to front: legs, then the rest by depth."""
        points = self.skeleton.keypoints
        for i in np.argsort(points[[15, 16], 2], kind="stable"):
            self._draw_leg(i)
        if self.look.bottoms == "skirt":
            self._draw_skirt()
        neck, chin = self.to_canvas([(0, NECK_Y + 0.03), (0, 0.1)])
        self.capsule(neck, chin, (0.04, 0.032), self.details.skin, HEAD)
        layers: list[tuple[float, Callable[[], None]]] = [(0.0, self._draw_torso), (0.001, self._draw_head)]
        # An arm that hangs straight down lies before the torso.
        layers += [
            (float(points[[5 + i, 7 + i, 9 + i], 2].mean()) + 0.002, partial(self._draw_arm, i)) for i in range(2)
        ]
        if self.details.hair_style == "long":
            layers.append((-0.05 * cos(self.yaw) + 0.003, self._draw_long_hair))
        if self.details.bag:
            layers.append(self._bag_layer(self.details.bag))
        for _, draw in sorted(layers, key=lambda layer: layer[0]):
            draw()

    def _draw_leg(self, i: int) -> None:
        points = self.to_canvas(self.skeleton.keypoints)
        hip, knee, ankle, toe = points[11 + i], points[13 + i], points[15 + i], self.to_canvas(self.skeleton.toes[i])
        look, details, build = self.look, self.details, self.look.build
        # The farther leg lies in the shade of the other.
        is_behind = self.skeleton.keypoints[11 + i, 2] < self.skeleton.keypoints[12 - i, 2] - 0.03
        light = 0.8 if is_behind else 1.0
        lower, skin = _lit(look.lower, light), _lit(details.skin, light)
        self.capsule(knee, ankle, (0.036 * build, 0.026), lower if look.bottoms == "trousers" else skin, LEGS[i])
        if look.bottoms == "skirt":
            self.capsule(hip, knee, (0.055 * build, 0.036 * build), skin, LEGS[i])
        else:
            self.capsule(hip, knee, (0.062 * build, 0.043 * build), lower, LEGS[i])
        outer = 1 if i == 0 else -1
        if details.trouser_stripe:
            offsets = [outer * r * build * cos(self.yaw) * self.unit for r in (0.042, 0.028, 0.018)]
            stripe = np.array((hip, knee, ankle))
            stripe[:, 0] += offsets
            # The stripe is on the outside: a leg seen from its inside does not show it.
            if -outer * sin(self.yaw) > -0.5:
                for a, b in ((0, 1), (1, 2)):
                    self.capsule(stripe[a], stripe[b], (0.01, 0.01), details.trouser_stripe, LEGS[i])
        if details.knee_patch and i == self.side and cos(self.yaw) > -0.4:
            patch = knee + self.unit * np.array((0.02 * sin(self.yaw), -0.01))
            self.canvas.ellipse(patch, (0.03 * self.unit, 0.034 * self.unit), details.knee_patch, self.part(LEGS[i]))
        self.capsule(ankle + self.unit * np.array((0, 0.006)), toe, (0.027, 0.024), _lit(details.shoes, light), LEGS[i])

    def _draw_skirt(self) -> None:
        points = self.skeleton.keypoints
        half_waist = float(self._torso_half_width(np.array(0.95)))
        knees = points[[13, 14], :2] - (0, 0.05)
        left, right = min(knees[:, 0].min(), -half_waist) - 0.03, max(knees[:, 0].max(), half_waist) + 0.03
        hem = knees[:, 1].min()
        corners = [(-half_waist, HIP_Y - 0.03), (half_waist, HIP_Y - 0.03), (right, hem), (left, hem)]
        self.canvas.polygon(self.to_canvas(corners), self.look.lower, self.part(SKIRT))

    def _draw_arm(self, i: int) -> None:
        points = self.to_canvas(self.skeleton.keypoints)
        shoulder, elbow, wrist = points[5 + i], points[7 + i], points[9 + i]
        hand = self.to_canvas(self.skeleton.hands[i])
        details, build = self.details, self.look.build
        sleeve, skin = _lit(self.look.upper, 0.88), _lit(details.skin, 0.95)
        self.capsule(wrist, hand, (0.022, 0.024), skin, ARMS[i])
        self.capsule(elbow, wrist, (0.032 * build, 0.024), sleeve if self.look.long_sleeves else skin, ARMS[i])
        if not self.look.long_sleeves:
            self.capsule(shoulder, elbow, (0.036 * build, 0.031 * build), skin, ARMS[i])
        cuff = elbow if self.look.long_sleeves else shoulder + 0.6 * (elbow - shoulder)
        self.capsule(shoulder + self.unit * np.array((0, 0.01)), cuff, (0.042 * build, 0.036 * build), sleeve, ARMS[i])
        if i != self.side:
            return
        if details.sleeve_band:
            upper, lower = (shoulder + t * (elbow - shoulder) for t in (0.42, 0.58))
            self.capsule(upper, lower, (0.041 * build, 0.041 * build), details.sleeve_band, ARMS[i])
        if details.elbow_patch:
            self.canvas.ellipse(elbow, (0.034 * self.unit,) * 2, details.elbow_patch, self.part(ARMS[i]))

    def _torso_half_width(self, v: np.ndarray) -> np.ndarray:
        """Half width of the torso as seen, in heights, at the fractions ``v`` of its height."""
        half_widths = np.hypot(_TORSO_HALF_WIDTH * np.cos(self.yaw), _TORSO_HALF_DEPTH * np.sin(self.yaw))
        return np.interp(v, _TORSO_V, self.look.build * half_widths).astype(np.float32)

    def _draw_torso(self) -> None:
        def shader(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x, y = self.from_canvas(x, y)
            v = (y - _TORSO_TOP) / (_TORSO_BOTTOM - _TORSO_TOP)
            across = x / self._torso_half_width(v)
            mask = (np.abs(across) <= 1) & (v >= 0) & (v <= 1)
            phi = np.arcsin(across[mask])
            colours = self._torso_colours(_wrap(phi - self.yaw), v[mask])
            return mask, colours * (0.75 + 0.25 * np.cos(phi))[:, None]

        reach = 0.2 * self.look.build
        corners = self.to_canvas([(x, y) for x in (-reach, reach) for y in (_TORSO_TOP, _TORSO_BOTTOM)])
        self.canvas.shade((*corners.min(axis=0), *corners.max(axis=0)), shader, self.part(TORSO))

    def _torso_colours(self, theta: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of shirt, print, belt and waist at the azimuths ``theta`` and the height fractions ``v``."""
        look, details = self.look, self.details
        colours = np.broadcast_to(np.asarray(look.upper, np.float32), (len(v), 3)).copy()
        if look.pattern == "stripes":
            colours[(v * 7 % 1) < 0.4] = look.pattern_colour
        elif look.pattern == "checks":
            colours[((v * 5 % 1) < 0.5) ^ ((theta * 5 / pi % 1) < 0.5)] = look.pattern_colour
        if details.logo:
            # Azimuth and height from the centre of the logo on the chest, each in units of its half extent.
            across = (theta - (0.5 if self.side == 0 else -0.5)) / 0.36
            down = (v - 0.32) / 0.1
            shape = {
                "square": (np.abs(across) < 1) & (np.abs(down) < 1),
                "bar": (np.abs(across) < 1.4) & (np.abs(down) < 0.5),
                "column": (np.abs(across) < 0.5) & (np.abs(down) < 1.8),
                "ring": np.abs(np.hypot(across, down / 1.2) - 0.85) < 0.4,
            }[details.logo_shape]
            colours[shape] = details.logo
        if details.back_print:
            colours[(np.abs(_wrap(theta - pi)) < 0.55) & (np.abs(v - 0.35) < 0.13)] = details.back_print
        if details.bag and details.bag_kind == "backpack":
            colours[(np.abs(np.abs(theta) - 0.55) < 0.13) & (v < 0.6)] = details.bag
        colours[v > _BELT_V[0]] = look.lower
        if details.belt:
            colours[(v > _BELT_V[0]) & (v < _BELT_V[1])] = details.belt
        return colours

    def _draw_head(self) -> None:
        details = self.details
        half = (hypot(HEAD_HALF[0] * cos(self.yaw), HEAD_HALF[2] * sin(self.yaw)), HEAD_HALF[1])
        if details.hair_style == "bun":
            bun = self.body_point(0.0, 0.02, -0.05)
            self.canvas.ellipse(bun, (0.032 * self.unit,) * 2, details.hair, self.part(HEAD))

        def shader(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x, y = self.from_canvas(x, y)
            # The unit normal of the sphere that the head is a stretched copy of.
            right, down = x / half[0], (y - HEAD_CENTER_Y) / half[1]
            mask = right**2 + down**2 <= 1
            right, down = right[mask], down[mask]
            near = np.sqrt(1 - right**2 - down**2)
            colours = self._head_colours(near * cos(self.yaw) + right * sin(self.yaw), -down)
            return mask, colours * (0.85 + 0.15 * near)[:, None]

        corners = self.to_canvas([(x, HEAD_CENTER_Y + y) for x in (-0.1, 0.1) for y in (-0.1, 0.1)])
        self.canvas.shade((*corners.min(axis=0), *corners.max(axis=0)), shader, self.part(HEAD))
        if details.hair_style == "cap":
            back, front = (self.body_point(0.0, 0.048, z) for z in (0.045, 0.09))
            if cos(self.yaw) > -0.5:
                self.capsule(back, front, (0.016, 0.01), _lit(details.hat, 0.8), HEAD)

    def _head_colours(self, forward: np.ndarray, up: np.ndarray) -> np.ndarray:
        """Colours (N, 3) of hair, hat, glasses and skin; ``forward`` and ``up`` are of the head's unit normals."""
        details = self.details
        colours = np.broadcast_to(np.asarray(details.skin, np.float32), (len(up), 3)).copy()
        if details.glasses:
            colours[(np.abs(up - 0.1) < 0.13) & (forward > 0.15)] = (20, 20, 24)
        if details.hair_style != "bald":
            back, lowest = (0.25, -1.0) if details.hair_style == "long" else (-0.05, -0.6)
            colours[(up > 0.5) | ((forward < back) & (up > lowest))] = details.hair
        if details.hair_style in ("cap", "beanie"):
            colours[up > (0.35 if details.hair_style == "cap" else 0.2)] = details.hat
        return colours

    def _draw_long_hair(self) -> None:
        top, bottom = self.body_point(0.0, 0.09, -0.03), self.body_point(0.0, SHOULDER_Y + 0.03, -0.045)
        self.capsule(top, bottom, (0.058, 0.052), _lit(self.details.hair, 0.85), HEAD)

    def _bag_layer(self, colour: Colour) -> tuple[float, Callable[[], None]]:
        """Depth and drawing of the bag: a box on the back, or one at the side that hangs from the shoulder."""
        if self.details.bag_kind == "backpack":
            center, half = (0.0, 0.32, -0.115), (0.085, 0.105, 0.05)
            return 0.115 * -cos(self.yaw), partial(self._draw_box, center, half, colour)
        side = 1 if self.side == 0 else -1
        center, half = (side * (0.125 * self.look.build + 0.02), 0.50, -0.01), (0.022, 0.06, 0.07)

        def draw() -> None:
            top, end = (self.body_point(side * x * self.look.build, y, 0.0) for x, y in ((0.09, 0.18), (0.135, 0.46)))
            self.capsule(top, end, (0.01, 0.01), _lit(colour, 0.7), BAG)
            self._draw_box(center, half, colour)

        return float(to_view(center, self.yaw)[2]) + 0.06, draw

    def _draw_box(self, center: tuple[float, float, float], half: tuple[float, float, float], colour: Colour) -> None:
        signs = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
        corners = self.to_canvas(to_view(np.asarray(center) + signs * half, self.yaw))
        self.canvas.polygon(corners, colour, self.part(BAG))
        flap = np.asarray(center) + signs * half * (1.0, 0.3, 1.0) - (0, half[1] * 0.7, 0)
        self.canvas.polygon(self.to_canvas(to_view(flap, self.yaw)), _lit(colour, 0.7), self.part(BAG))


def draw_person(
    canvas: Canvas, identity: Identity, pose: Pose, placement: Placement, *, foreign: bool = False
) -> np.ndarray:
    """Draw a person.

    Args:
        foreign: mark all pixels of the person as ``FOREIGN``, for a stranger who may hide the main person.

    Returns:
        (17, 3): x and y of the COCO key points in pixels of the canvas, and the depth towards the camera in heights.
    """
    figure = _Figure(canvas, identity, pose, placement, foreign)
    figure.draw()
    keypoints = figure.skeleton.keypoints
    return np.column_stack((figure.to_canvas(keypoints), keypoints[:, 2]))


def visible_keypoints(canvas: Canvas, keypoints: np.ndarray) -> np.ndarray:
    """Which key points (17, 3) of :func:`draw_person` are visible on the finished canvas, (17,) bool.

    A point outside the canvas, on the far side of the head, or under another part is hidden.
    """
    visible = np.array(
        [canvas.part_at(point[:2]) in parts for point, parts in zip(keypoints, _NOT_HIDDEN_BY, strict=True)]
    )
    visible[:5] &= keypoints[:5, 2] > _FACE_MIN_DEPTH
    return visible


def _lit(colour: Colour, light: float) -> tuple[float, float, float]:
    return light * colour.red, light * colour.green, light * colour.blue


def _wrap(angle: np.ndarray) -> np.ndarray:
    """The same angle within [-pi, pi)."""
    return (angle + pi) % (2 * pi) - pi
