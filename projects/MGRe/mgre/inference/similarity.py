"""How alike two images are to a model, and how much of that each region gives.

Legend: N and M images, or N pairs; D numbers of a feature; R_i regions of stage i; D_i numbers of stage i's vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mgre.inference.model import Description
from mgre.record import ModelRecord

# The name of a stage's constant among the shares.
CONSTANT = "constant"
# Below this length a vector counts as zero, as in torch's normalisation.
_SHORTEST = 1e-12


@dataclass(frozen=True)
class Share:
    """What one region, or one stage's constant, gives to a pair's cosine.

    Attributes:
        stage: such as "stage1".
        region: its name, or :data:`CONSTANT`.
        value: in units of the cosine. It may be negative.
    """

    stage: str
    region: str
    value: float


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine of the angle between features, from -1 to 1, as the evaluation ranks by it.

    Args:
        first: features (N, D), normalised or not.
        second: features (M, D), normalised or not.

    Returns:
        (N, M) float64.
    """
    return _unit(first) @ _unit(second).T


def split_similarity(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], stage_weights: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Split the cosines of N pairs into one share for each region and for each stage's constant, exactly.

    By Eq. (6) the cosine is a sum over the stages, of weight lambda_i^2 / (the sum of the weights), of the cosines of
    the stages' vectors f_i. Each f_i is a sum of terms t_r: one for each region, and a constant. So the product of two
    images' f_i is a sum over all pairs of terms, t_r of the one image with t_s of the other. Region r's share is

        (t_r of the first . f_i of the second + f_i of the first . t_r of the second) / 2

    with the stage's factor. Of the product of two different regions, r in the one image and s in the other, this gives
    one half to r and one half to s. There is no reason to give either of them more, and with equal halves the shares
    do not depend on the order of the two images.

    Args:
        first: the terms of the first image of each pair, by stage (N, R_i + 1, D_i), as in
            :class:`mgre.inference.Description`.
        second: the terms of the second images.
        stage_weights: lambda_i^F of Eq. (6), by stage.

    Returns:
        By stage (N, R_i + 1), float64; all of a pair add up to its cosine.
    """
    lengths = np.ones(1)
    products = {}
    for terms in (first, second):
        # A stage whose vector is zero adds nothing to the length of the final feature.
        squares = sum(stage_weights[stage] ** 2 * _squares(_unit(t.sum(axis=1))) for stage, t in terms.items())
        lengths = lengths * np.maximum(np.sqrt(squares), _SHORTEST)
    for stage in first:
        a, b = first[stage].astype(np.float64), second[stage].astype(np.float64)
        whole_a, whole_b = a.sum(axis=1), b.sum(axis=1)
        halves = np.einsum("nrd,nd->nr", a, whole_b) + np.einsum("nrd,nd->nr", b, whole_a)
        norms = np.maximum(np.sqrt(_squares(whole_a) * _squares(whole_b)), _SHORTEST**2)
        products[stage] = stage_weights[stage] ** 2 * halves / (2 * norms * lengths)[:, None]
    return products


def pair_shares(description: Description, first: int, second: int, record: ModelRecord) -> list[Share]:
    """The shares of one pair of images, which add up to its cosine; none for models without regions.

    Args:
        description: what the model says of the images.
        first: the first image's place in the description.
        second: the second image's.
        record: of the model.
    """
    one, other = ({stage: terms[[i]] for stage, terms in description.terms.items()} for i in (first, second))
    split = split_similarity(one, other, record.stage_weights)
    return [
        Share(stage, region, float(value))
        for stage, values in split.items()
        for region, value in zip((*record.regions[stage], CONSTANT), values[0], strict=True)
    ]


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("...d,...d->...", vectors, vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)  # whose squares no float32 exceeds
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _SHORTEST)
