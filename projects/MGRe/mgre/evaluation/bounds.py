"""Bounds of inner products from few numbers an image.

Let V (D, d) have orthonormal columns. A feature x is the sum of V p_x with p_x = V^T x, and of a rest r_x that is
orthogonal to V's columns. So

    x . y = p_x . p_y + r_x . r_y,    and    |r_x . r_y| <= |r_x| |r_y|    (Cauchy and Schwarz):

    p_x . p_y - |r_x| |r_y|  <=  x . y  <=  p_x . p_y + |r_x| |r_y|.

The upper bound is the inner product of the d + 1 numbers [p_x, |r_x|]. As |x - y|^2 = |x|^2 + |y|^2 - 2 x . y, it gives
a lower bound of the distance. Any V is right. The principal directions of the features make |r| small and the bounds
tight. |r_x|^2 is |x|^2 - |p_x|^2, and a number larger than |r_x| is right as well.

Rounding: the computed product of D float32 numbers differs from x . y by at most D 2^-24 |x| |y|, and mostly by some
hundred times less. ``MARGIN`` (|x|^2 + |y|^2) >= 2 ``MARGIN`` |x| |y| is added wherever a bound is compared with a
computed product: at D = 2048 that is four times the most that one product can be wrong. With more than ``MOST_NUMBERS``
it could be wrong by more than the margin. V's columns are not quite orthonormal, and p is rounded too. No worst case
is claimed for these. At D = 2048 and d = 256 the largest errors measured were 3e-6 for V (of V^T V, spectral norm) and
2e-6 |x| for p, of a margin of 2.4e-4.

Legend: N images, D the features' dimension, d directions.
"""

import torch

MARGIN = 2.0**-12
# The largest D with D 2^-24 <= 2 MARGIN.
MOST_NUMBERS = int(2 * MARGIN * 2**24)
# Images from which principal directions are computed, and rounds of subspace iteration.
SAMPLED_IMAGES, ROUNDS = 4096, 3


def principal_directions(features: torch.Tensor, count: int) -> torch.Tensor:
    """Orthonormal columns (D, ``count``) that hold most of the energy of features (N, D), the first the most.

    They are the features' own, their mean not subtracted, by subspace iteration (Halko et al., SIAM Review 2011) on
    evenly spaced images. The same features give the same directions. ``count`` is at most D.
    """
    sample = spread(features, SAMPLED_IMAGES)
    # The scale of the features changes no direction, but products of four large features would overflow.
    sample = sample / sample.abs().max().clamp(min=torch.finfo(sample.dtype).tiny)
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(features.shape[1], count, generator=random).to(features)
    for _ in range(ROUNDS):
        directions = torch.linalg.qr(sample.T @ (sample @ directions))[0]
    parts = sample @ directions
    return directions @ torch.linalg.eigh(parts.T @ parts)[1].flip(1)


def spread(features: torch.Tensor, count: int) -> torch.Tensor:
    """At most ``count`` evenly spaced rows of ``features`` (N, D)."""
    return features[torch.linspace(0, len(features) - 1, min(count, len(features))).long()]


def reduce_to(parts: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """[p, |r|] (N, d + 1) from the parts p (N, d) of features and their squared norms (N,); |r| is rounded up."""
    rests = (squares - parts.square().sum(dim=1)).clamp_(min=0).add_(MARGIN * squares).sqrt_()
    return torch.cat((parts, rests[:, None]), dim=1)
