"""What a score means: the rates of errors at each threshold, as a model's record holds them. Reading needs no torch.

A false match is a pair of different people with a score at or above the threshold, a false non-match a pair of one
person with a score below it. All pairs are of different cameras.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mgre.errors import ConfigError, WeightsError
from mgre.record import ModelRecord

# Of the intervals.
CONFIDENCE = 0.95
# The rule of three: where none of n independent pairs is a false match, the rate is below 3 / n, with 95 % confidence.
PAIRS_FOR_RATE = 3
# Lower limits up to this are shown as 0.
_SHOWN_AS_ZERO = 1e-6


class Rate(NamedTuple):
    """A rate from 0 to 1, and where that of as many other people lies, with confidence :data:`CONFIDENCE`."""

    value: float
    low: float
    high: float

    def text(self, lowest: float = 0.0) -> str:
        """In words. Of a rate up to the ``lowest`` that the set can show, only the upper limit is said."""
        if self.value <= lowest:
            return f"below {self.high:.2g}"
        return f"{self.value:.2g} ({self.low if self.low > _SHOWN_AS_ZERO else 0:.2g} to {self.high:.2g})"


@dataclass(frozen=True)
class Calibration:
    """The rates of errors on a labelled set.

    Attributes:
        dataset: the set's name.
        seen_in_training: whether the model was trained on its identities, which makes the rates too good.
        fingerprint: of the model whose scores these are.
        num_identities, num_cameras, num_images: of the set.
        num_matches, num_non_matches: pairs of images of one person and of different people.
        scores: T thresholds, in ascending order.
        false_match, false_non_match: a :class:`Rate` for each of ``scores``.
        thresholds: the least score at round false-match rates, from the table, as (rate, score).
    """

    dataset: str
    seen_in_training: bool
    fingerprint: str
    num_identities: int
    num_cameras: int
    num_images: int
    num_matches: int
    num_non_matches: int
    scores: list[float]
    false_match: list[Rate]
    false_non_match: list[Rate]
    thresholds: list[tuple[float, float]]

    def __str__(self) -> str:
        return (
            f"{self.dataset} ({self.num_identities} identities, {self.num_cameras} cameras, {self.num_matches:,} pairs "
            f"of one person and {self.num_non_matches:,} of different people, always of two cameras)"
        )

    def to_dict(self) -> dict[str, Any]:
        """For the record's ``calibration``."""
        return {
            name: [list(row) if isinstance(row, tuple) else row for row in value] if isinstance(value, list) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_record(cls, record: ModelRecord, path: str) -> "Calibration | None":
        """That of the model in the file ``path``; None where it is not calibrated.

        Raises:
            WeightsError: it is damaged.
        """
        if record.calibration is None:
            return None
        try:
            found = cls(**record.calibration)
            rates = {
                name: [Rate(*map(float, rate)) for rate in getattr(found, name)]
                for name in ("false_match", "false_non_match")
            }
            scores = [float(score) for score in found.scores]
            if not scores or scores != sorted(scores) or any(len(rates[name]) != len(scores) for name in rates):
                raise ValueError("its scores are not in order, or have no rates")
            if not all(math.isfinite(number) for name in rates for rate in (*rates[name], scores) for number in rate):
                raise ValueError("a number is not finite")
            numbers = [value for name, value in vars(found).items() if name.startswith("num_")]
            if not all(isinstance(number, int) and number > 0 for number in numbers) or found.num_identities < 2:
                raise ValueError("it is of too few identities, cameras or pairs")
            pairs = [(float(rate), float(score)) for rate, score in found.thresholds]
            return cls(**(vars(found) | rates | {"scores": scores, "thresholds": pairs}))
        except (TypeError, ValueError) as error:
            raise WeightsError(
                f"the calibration in '{path}' is damaged ({error}): calibrate the model again, mgre calibrate {path}"
            ) from error

    @property
    def lowest_rate(self) -> float:
        """The lowest false-match rate that the set has enough identities for."""
        return lowest_rate(self.num_identities)

    def false_match_rate(self, score: float) -> Rate:
        """The share of pairs of different people with this score or a higher one."""
        return _interpolate(self.scores, self.false_match, score)

    def false_non_match_rate(self, score: float) -> Rate:
        """The share of pairs of one person with a lower score."""
        return _interpolate(self.scores, self.false_non_match, score)

    def threshold(self, rate: float) -> float:
        """The least score at which the false-match rate is at most ``rate``.

        Raises:
            ConfigError: the rate is not between 0 and 1, or the set has too few identities for it.
        """
        check_rate(rate)
        if rate < self.lowest_rate:
            raise ConfigError(too_few(rate, self.num_identities, self.dataset))
        return threshold_in(self.scores, [found.value for found in self.false_match], rate)


def check_rate(rate: float) -> None:
    """Raise a ConfigError where a false-match rate is not between 0 and 1."""
    if not 0 < rate < 1:
        raise ConfigError(f"the false-match rate is {rate:g}; allowed: a number between 0 and 1, like 0.001")


def lowest_rate(num_identities: int) -> float:
    """The lowest false-match rate that so many identities can show, by the rule of three over pairs of identities.

    The images of two identities say little more of a rare rate than one pair of images does.
    """
    return PAIRS_FOR_RATE / math.comb(num_identities, 2)


def needed_identities(rate: float) -> int:
    """How many identities a false-match rate needs."""
    return math.ceil((1 + math.sqrt(1 + 8 * PAIRS_FOR_RATE / rate)) / 2)


def too_few(rate: float, num_identities: int, dataset: str) -> str:
    """For a message: that the set cannot show this false-match rate, and what could."""
    return (
        f"too few pairs for a false-match rate of {rate:g}: {dataset} has {num_identities} identities, which can show "
        f"rates from {lowest_rate(num_identities):.2g}, and {rate:g} needs {needed_identities(rate):,} identities"
    )


def threshold_in(scores: Sequence[float], rates: Sequence[float], rate: float) -> float:
    """The least score at which falling ``rates``, linear between the ``scores``, are at most ``rate``."""
    place = next((i for i, found in enumerate(rates) if found <= rate), None)
    if place is None:
        return scores[-1]
    if place == 0:
        return scores[0]
    share = (rates[place - 1] - rate) / (rates[place - 1] - rates[place])
    return scores[place - 1] + share * (scores[place] - scores[place - 1])


def _interpolate(scores: Sequence[float], rates: Sequence[Rate], score: float) -> Rate:
    right = bisect_right(scores, score)
    if right == 0 or right == len(scores):
        return rates[max(0, right - 1)]
    share = (score - scores[right - 1]) / (scores[right] - scores[right - 1])
    return Rate(
        *(before + share * (after - before) for before, after in zip(*rates[right - 1 : right + 1], strict=True))
    )
