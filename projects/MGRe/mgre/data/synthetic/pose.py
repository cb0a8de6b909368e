"""The pose of a person: joint angles, and the three-dimensional skeleton that follows from them.

Body coordinates, in units of the person's height: X to the person's left, Y down from the top of the head, Z forward.
View coordinates: x to the image's right, y down, depth towards the camera (orthographic).
"""

from dataclasses import dataclass
from math import cos, pi, radians, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mgre.data.synthetic import difficulty

# Heights Y of the joints of a person who stands upright; 1 is the sole.
EYE_Y, EAR_Y, NOSE_Y, HEAD_CENTER_Y = 0.068, 0.078, 0.088, 0.075
NECK_Y, SHOULDER_Y, HIP_Y = 0.16, 0.195, 0.51
UPPER_ARM, FOREARM, HAND = 0.16, 0.15, 0.03
THIGH, SHIN = 0.225, 0.215
# Half extents of the head in X, Y, Z, and half distances of the paired joints.
HEAD_HALF = (0.056, 0.075, 0.064)
EYE_X, EAR_X, SHOULDER_X, HIP_X = 0.02, 0.053, 0.118, 0.062
FACE_Z = 0.055
# Angle by which hanging arms stand off the body.
ARM_SPREAD = radians(8.0)

FACINGS = {"front": 0.0, "back": pi, "left": -pi / 2, "right": pi / 2}


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians; all zero: upright, arms and legs straight down, facing the camera.

    Attributes:
        yaw: turn of the body about the vertical; pi / 2 faces the image's right, pi away from the camera.
        lean: turn of the figure in the image about its hips, positive clockwise.
        hips, knees: (left, right); a hip swings the leg forward, a knee bends the shin backward.
        shoulders, elbows: (left, right); both swing forward.
        spread: angle of the upper arms to the side.
    """

    yaw: float = 0.0
    lean: float = 0.0
    hips: tuple[float, float] = (0.0, 0.0)
    knees: tuple[float, float] = (0.0, 0.0)
    shoulders: tuple[float, float] = (0.0, 0.0)
    elbows: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0


class Skeleton(NamedTuple):
    """Points of a posed body in view coordinates (x, y, depth); pairs are (left, right).

    Attributes:
        keypoints: (17, 3), the COCO key points.
        hands, toes: (2, 3), the ends of the limbs beyond the wrists and the ankles.
    """

    keypoints: np.ndarray
    hands: np.ndarray
    toes: np.ndarray


def to_view(points: ArrayLike, yaw: float) -> np.ndarray:
    """Turn points (..., 3) from body coordinates (X, Y, Z) to view coordinates (x, y, depth)."""
    x, y, z = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
    return np.stack((x * cos(yaw) + z * sin(yaw), y, z * cos(yaw) - x * sin(yaw)), axis=-1)


def skeleton(pose: Pose, build: float = 1.0) -> Skeleton:
    """The skeleton of ``pose``, without its lean, for a body whose widths are ``build`` times the average."""
    head = [(0.0, NOSE_Y, FACE_Z)]
    head += [(side * EYE_X, EYE_Y, FACE_Z) for side in (1, -1)]
    head += [(side * EAR_X, EAR_Y, 0.0) for side in (1, -1)]
    shoulders, elbows, wrists, hands, hips, knees, ankles, toes = ([] for _ in range(8))
    for i, side in enumerate((1, -1)):
        shoulders.append(np.array((side * SHOULDER_X * build, SHOULDER_Y, 0.0)))
        elbows.append(shoulders[i] + UPPER_ARM * _swing(pose.shoulders[i], side * pose.spread))
        forearm = _swing(pose.shoulders[i] + pose.elbows[i], side * pose.spread)
        wrists.append(elbows[i] + FOREARM * forearm)
        hands.append(wrists[i] + HAND * forearm)
        hips.append(np.array((side * HIP_X * build, HIP_Y, 0.0)))
        knees.append(hips[i] + THIGH * _swing(pose.hips[i]))
        shin_angle = pose.hips[i] - pose.knees[i]
        ankles.append(knees[i] + SHIN * _swing(shin_angle))
        # The sole is 0.03 below the ankle; the foot points forward, toes slightly out, square to the shin.
        toes.append(ankles[i] + 0.03 * _swing(shin_angle) + 0.065 * _swing(shin_angle + pi / 2) + (side * 0.012, 0, 0))
    keypoints = np.array([*head, *shoulders, *elbows, *wrists, *hips, *knees, *ankles])
    return Skeleton(to_view(keypoints, pose.yaw), to_view(np.array(hands), pose.yaw), to_view(np.array(toes), pose.yaw))


def sample_pose(rng: np.random.Generator) -> Pose:
    """A walking or standing person who faces one of four ways."""
    facing = list(FACINGS.values())[rng.choice(4, p=difficulty.FACING_PROBABILITIES)]
    stride = radians(rng.uniform(*difficulty.STRIDE_DEG)) * rng.choice((-1, 1))
    hips = (stride, -stride)
    # The leg that is behind bends its knee.
    knees = [abs(stride) * rng.uniform(0.6, 1.2) if hip < 0 else radians(rng.uniform(0, 8)) for hip in hips]
    swing = stride * rng.uniform(0.6, 1.1)
    shoulders, elbows = [-swing, swing], [radians(rng.uniform(5, 40)) for _ in range(2)]
    if rng.random() < difficulty.BENT_ARM_PROBABILITY:
        arm = rng.integers(2)
        shoulders[arm], elbows[arm] = radians(rng.uniform(10, 40)), radians(rng.uniform(70, 125))
    return Pose(
        yaw=facing + radians(rng.uniform(-1, 1) * difficulty.YAW_JITTER_DEG),
        lean=radians(rng.uniform(-1, 1) * difficulty.LEAN_JITTER_DEG),
        hips=hips,
        knees=(knees[0], knees[1]),
        shoulders=(shoulders[0], shoulders[1]),
        elbows=(elbows[0], elbows[1]),
        spread=ARM_SPREAD * rng.uniform(0.5, 2.0),
    )


def _swing(forward: float, sideways: float = 0.0) -> np.ndarray:
    """Unit vector (X, Y, Z) that hangs down, swung ``forward`` and then ``sideways`` to the person's left."""
    return np.array((sin(sideways), cos(forward) * cos(sideways), sin(forward) * cos(sideways)))
