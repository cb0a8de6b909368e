"""Final feature, Eq. (6)."""

import torch
import torch.nn.functional as F


def final_feature(features: dict[str, torch.Tensor], weights: dict[str, float]) -> torch.Tensor:
    """``[l1 f1/|f1|, l2 f2/|f2|, l3 f3/|f3|, l4 f4/|f4|]``.

    Args:
        features: f_i (B, D_i), by stage.
        weights: lambda_i^F, by stage.

    Returns:
        (B, sum of D_i), float32.

    Examples:
        >>> features = {"stage1": torch.tensor([[3.0, 4.0]]), "stage4": torch.tensor([[0.0, 2.0]])}
        >>> [round(x, 3) for x in final_feature(features, {"stage1": 0.5, "stage4": 1.0})[0].tolist()]
        [0.3, 0.4, 0.0, 1.0]
    """
    return torch.cat([weights[stage] * F.normalize(f.float(), dim=1) for stage, f in features.items()], dim=1)
