"""The drawn identities: a coarse look that a group of them shares, and the details that tell its members apart."""

from dataclasses import dataclass, fields
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np

from mgre.data.synthetic import difficulty

_T = TypeVar("_T")


class Colour(NamedTuple):
    """Red, green, blue, 0 to 255."""

    red: int
    green: int
    blue: int


CLOTHING = {
    "black": Colour(34, 34, 38),
    "grey": Colour(122, 124, 128),
    "white": Colour(226, 226, 222),
    "red": Colour(182, 40, 44),
    "blue": Colour(44, 76, 160),
    "navy": Colour(30, 40, 84),
    "green": Colour(46, 118, 66),
    "yellow": Colour(220, 186, 52),
    "purple": Colour(112, 60, 134),
    "beige": Colour(194, 172, 136),
}
LOWER = ("black", "grey", "navy", "blue", "beige", "green", "white", "red")
# Details must show at 128 x 64, so they come in saturated colours.
DETAIL_COLOURS = (
    Colour(236, 52, 44),
    Colour(250, 206, 40),
    Colour(44, 190, 84),
    Colour(40, 130, 236),
    Colour(240, 240, 240),
    Colour(238, 104, 190),
    Colour(244, 130, 30),
    Colour(24, 24, 28),
)
SKIN = (Colour(238, 200, 172), Colour(206, 158, 122), Colour(146, 98, 68), Colour(92, 62, 46))
HAIR = (Colour(28, 24, 22), Colour(84, 54, 34), Colour(204, 168, 96), Colour(146, 70, 36), Colour(172, 172, 170))
HAIR_STYLES = ("short", "long", "bun", "bald", "cap", "beanie")
PATTERNS = ("plain", "stripes", "checks")
LOGOS = ("square", "bar", "column", "ring")
BAGS = ("backpack", "handbag")


@dataclass(frozen=True)
class Look:
    """The features of a person that can be seen from afar.

    Attributes:
        upper, lower: colours of the shirt and of the trousers, shorts or skirt.
        pattern: of the shirt, one of ``PATTERNS``, in ``pattern_colour`` on ``upper``.
        long_sleeves: whether the sleeves reach the wrists.
        bottoms: "trousers", "shorts" or "skirt".
        build: factor on all widths, 1 on average.
    """

    upper: Colour
    lower: Colour
    pattern: str
    pattern_colour: Colour
    long_sleeves: bool
    bottoms: str
    build: float


@dataclass(frozen=True)
class Details:
    """Small details, each in one region of the body; a colour of None: the person does not have the detail."""

    skin: Colour
    hair_style: str
    hair: Colour
    hat: Colour
    glasses: bool
    logo_shape: str
    logo: Colour | None
    back_print: Colour | None
    sleeve_band: Colour | None
    elbow_patch: Colour | None
    belt: Colour | None
    knee_patch: Colour | None
    trouser_stripe: Colour | None
    shoes: Colour
    bag_kind: str
    bag: Colour | None

    def num_differences(self, other: "Details") -> int:
        """The number of visible attributes in which the two persons differ."""
        mine, theirs = self.visible(), other.visible()
        return sum(mine[name] != theirs[name] for name in mine)

    def visible(self) -> dict[str, object]:
        """The attributes by name; None for those that cannot be seen on this person."""
        visible = {field.name: getattr(self, field.name) for field in fields(self)}
        visible["hat"] = self.hat if self.hair_style in ("cap", "beanie") else None
        visible["hair"] = self.hair if self.hair_style != "bald" else None
        visible["logo_shape"] = self.logo_shape if self.logo else None
        visible["bag_kind"] = self.bag_kind if self.bag else None
        return visible


@dataclass(frozen=True)
class Identity:
    """One person. ``on_left`` is the person's side of the logo, the sleeve band, the knee patch and the handbag.

    Random flips hide the side from a model, so two members of a group never differ in it alone.
    """

    look: Look
    details: Details
    on_left: bool


def sample_identities(rng: np.random.Generator, num_identities: int) -> tuple[Identity, ...]:
    """``num_identities`` persons in groups of ``COARSE_GROUP_SIZE`` that share their look."""
    # No two groups share both colours, as long as there are enough pairs of colours.
    pairs = [(upper, lower) for upper, lower in product(CLOTHING, LOWER) if upper != lower]
    order = rng.permutation(len(pairs))
    identities: list[Identity] = []
    group = 0
    while len(identities) < num_identities:
        look = _sample_look(rng, *pairs[order[group % len(order)]])
        members: list[Details] = []
        while len(members) < min(difficulty.COARSE_GROUP_SIZE, num_identities - len(identities)):
            details = _sample_details(rng, look)
            if all(details.num_differences(other) >= difficulty.MIN_DETAIL_DIFFERENCES for other in members):
                members.append(details)
        identities += [Identity(look, details, on_left=bool(rng.random() < 0.5)) for details in members]
        group += 1
    return tuple(identities)


def _sample_look(rng: np.random.Generator, upper: str, lower: str) -> Look:
    others = [colour for name, colour in CLOTHING.items() if name != upper]
    return Look(
        upper=CLOTHING[upper],
        lower=CLOTHING[lower],
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        pattern_colour=others[rng.integers(len(others))],
        long_sleeves=bool(rng.random() < 0.6),
        bottoms=("trousers", "shorts", "skirt")[rng.choice(3, p=(0.6, 0.25, 0.15))],
        build=float(rng.uniform(0.9, 1.15)),
    )


def _sample_details(rng: np.random.Generator, look: Look) -> Details:
    def one_of(options: tuple[_T, ...]) -> _T:
        return options[rng.integers(len(options))]

    def maybe(probability: float, background: Colour) -> Colour | None:
        # Both numbers are always drawn, so that a change of one probability does not change the next details.
        present, colour = rng.random() < probability, one_of(_contrasting(background))
        return colour if present else None

    has_trousers = look.bottoms == "trousers"
    print_colour = one_of(_contrasting(look.upper))  # of chest and back, as on a jersey
    return Details(
        skin=one_of(SKIN),
        hair_style=one_of(HAIR_STYLES),
        hair=one_of(HAIR),
        hat=one_of(DETAIL_COLOURS),
        glasses=bool(rng.random() < difficulty.GLASSES_PROBABILITY),
        logo_shape=one_of(LOGOS),
        logo=print_colour if rng.random() < difficulty.LOGO_PROBABILITY else None,
        back_print=print_colour if rng.random() < difficulty.BACK_PRINT_PROBABILITY else None,
        sleeve_band=maybe(difficulty.SLEEVE_BAND_PROBABILITY, look.upper),
        elbow_patch=maybe(difficulty.ELBOW_PATCH_PROBABILITY * look.long_sleeves, look.upper),
        belt=maybe(difficulty.BELT_PROBABILITY, look.lower),
        knee_patch=maybe(difficulty.KNEE_PATCH_PROBABILITY * has_trousers, look.lower),
        trouser_stripe=maybe(difficulty.TROUSER_STRIPE_PROBABILITY * has_trousers, look.lower),
        shoes=one_of(DETAIL_COLOURS),
        bag_kind=one_of(BAGS),
        bag=maybe(difficulty.BAG_PROBABILITY, look.upper),
    )


def _contrasting(background: Colour) -> tuple[Colour, ...]:
    """The detail colours that stand out from ``background``."""
    return tuple(c for c in DETAIL_COLOURS if sum(abs(a - b) for a, b in zip(c, background, strict=True)) > 150)
