"""Average query expansion: each image is replaced by the mean of its neighbours (Chum et al., ICCV 2007)."""

import torch
from torch.nn import functional as F

from mgre.evaluation.neighbours import indicator, nearest_neighbours
from mgre.evaluation.pairs import pair_products


def expand(
    query_feat: torch.Tensor, gallery_feat: torch.Tensor, qe_times: int = 1, qe_k: int = 10, alpha: float = 3.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of queries (Q, D) and gallery (G, D), expanded like by the toolbox's ``aqe``, but without an array
    of all pairs of images.

    Args:
        query_feat, gallery_feat: float32, on the device that searches.
        qe_times: how many times the features are expanded.
        qe_k: number of neighbours in the mean, by cosine, the image itself counted; at most Q + G.
        alpha: the weight of a neighbour is its cosine to this power.
    """
    features = torch.cat((query_feat, gallery_feat))
    for _ in range(qe_times):
        directions = F.normalize(features, dim=1)
        # By the inner product: by the distance, a zero vector would be nearer than a direction with a small cosine.
        nearest = nearest_neighbours(directions, qe_k, by_product=True)
        weights = indicator(nearest).astype("float32")
        weights.data = pair_products(directions, weights) ** alpha
        features = torch.from_numpy(weights @ features.cpu().numpy() / nearest.shape[1]).to(features.device)
    return features[: len(query_feat)], features[len(query_feat) :]
