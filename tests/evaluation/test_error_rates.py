"""The rates of a calibration against a loop over all pairs, and its intervals against many drawings of people."""

import itertools

import numpy as np
import pytest
from mgre.errors import DataError
from mgre.evaluation.error_rates import calibrate
from scipy.stats import beta, norm, t


def draw_people(rng, number, *, cameras=3, images=2, dim=12):
    """Features of people whose images scatter, their identities and cameras, in no order."""
    people = rng.normal(size=(number, 1, 1, dim))
    views = np.random.default_rng(7).normal(size=(1, cameras, 1, dim))  # the cameras are the same each time
    features = people + 0.4 * views + 0.6 * rng.normal(size=(number, cameras, images, dim))
    identities = np.broadcast_to(np.arange(number)[:, None, None], features.shape[:3])
    seen_by = np.broadcast_to(np.arange(cameras)[None, :, None], features.shape[:3])
    order = rng.permutation(identities.size)
    return features.reshape(-1, dim)[order], identities.ravel()[order], seen_by.ravel()[order]


def pairs_of(features, identities, cameras):
    """(score, whether it is a match, the identities) of all pairs of different cameras, by a loop."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return [
        (float(unit[i] @ unit[j]), identities[i] == identities[j], {int(identities[i]), int(identities[j])})
        for i, j in itertools.combinations(range(len(unit)), 2)
        if cameras[i] != cameras[j]
    ]


def test_the_rates_are_those_of_a_loop_over_the_pairs():
    people = draw_people(np.random.default_rng(0), 6)
    found = calibrate(*people, dataset="drawn")
    pairs = pairs_of(*people)
    matches = [score for score, is_match, _ in pairs if is_match]
    others = [score for score, is_match, _ in pairs if not is_match]
    assert (found.num_identities, found.num_cameras, found.num_images) == (6, 3, 36)
    assert (found.num_matches, found.num_non_matches) == (len(matches), len(others))
    assert found.scores == sorted(found.scores) and len(found.scores) > 20
    for score, false_match, false_non_match in zip(found.scores, found.false_match, found.false_non_match, strict=True):
        assert false_match.value == pytest.approx(np.mean([other >= score for other in others]), abs=1e-9)
        assert false_non_match.value == pytest.approx(np.mean([match < score for match in matches]), abs=1e-9)


def naive_variance(errors, members):
    """Of a rate: the sum over pairs of residuals whose identities overlap."""
    residuals = np.array(errors, dtype=float) - np.mean(errors)
    return (
        sum(
            residuals[a] * residuals[b]
            for a, b in itertools.product(range(len(residuals)), repeat=2)
            if members[a] & members[b]
        )
        / len(residuals) ** 2
    )


def test_the_intervals_are_of_pairs_that_share_identities():
    people = draw_people(np.random.default_rng(3), 5, dim=3)
    found = calibrate(*people, dataset="drawn")
    pairs = pairs_of(*people)
    checked = 0
    for is_match, rates, num_clusters in ((False, found.false_match, 10), (True, found.false_non_match, 5)):
        kept = [(score, members) for score, same, members in pairs if same == is_match]
        for threshold, rate in zip(found.scores[::7], rates[::7], strict=True):
            errors = [(score >= threshold) != is_match for score, _ in kept]
            if not 0 < rate.value < 1:
                limit = rate.high if rate.value == 0 else 1 - rate.low
                assert (1 - limit) ** (num_clusters / 2) == pytest.approx(0.05)  # the rule of three, exactly
                continue
            variance = naive_variance(errors, [members for _, members in kept])
            # Half of the pairs, for the other people's part in the difference; and Student's t for five identities.
            variance *= 2 * (t.ppf(0.975, 4) / norm.ppf(0.975)) ** 2
            effective = min(rate.value * (1 - rate.value) / variance if variance > 0 else np.inf, num_clusters / 2)
            wrong, right = rate.value * effective, (1 - rate.value) * effective
            # Clopper and Pearson, by the beta distribution.
            assert rate.low == pytest.approx(beta.ppf(0.025, wrong, right + 1), abs=1e-6)
            assert rate.high == pytest.approx(beta.ppf(0.975, wrong + 1, right), abs=1e-6)
            checked += 1
    assert checked > 5


def test_the_intervals_hold_for_other_people():
    """Of 25 calibrations on 20 people each, the intervals at a few thresholds hold the rates of 500 other people."""
    rng = np.random.default_rng(1)
    many = calibrate(*draw_people(rng, 500, cameras=2, images=1), dataset="drawn")
    held = []
    for _ in range(25):
        found = calibrate(*draw_people(rng, 20, cameras=2, images=1), dataset="drawn")
        for level in (0.3, 0.1, 0.03, 0.01):
            threshold = many.threshold(level)
            rate = found.false_match_rate(threshold)
            held.append(rate.low <= many.false_match_rate(threshold).value <= rate.high)
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize(
    ("identities", "cameras", "message"),
    [
        ([1, 1, 1, 1], [1, 1, 2, 2], "small has 1 of two identities that a calibration needs"),
        ([1, 1, 2, 2], [1, 1, 1, 1], "small has 1 of two cameras that a calibration needs"),
        ([1, 1, 2, 2], [1, 1, 2, 2], "small has no person under two cameras"),
    ],
)
def test_a_set_without_pairs_is_refused(identities, cameras, message):
    with pytest.raises(DataError, match=message) as caught:
        calibrate(np.eye(4), np.array(identities), np.array(cameras), dataset="small")
    assert "\n" not in str(caught.value)


def test_features_that_are_no_numbers_are_refused():
    features = np.eye(4)
    features[2, 1] = np.nan
    with pytest.raises(DataError, match="a feature of small is NaN or infinite"):
        calibrate(features, np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]), dataset="small")
