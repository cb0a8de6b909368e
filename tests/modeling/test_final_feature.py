import torch
from mgre.modeling.final_feature import final_feature

WEIGHTS = {"stage1": 0.35, "stage2": 0.5, "stage3": 0.7, "stage4": 0.8}


def test_equation_6_by_hand():
    feature = final_feature({"stage1": torch.tensor([[3.0, 4.0]]), "stage4": torch.tensor([[0.0, -2.0]])}, WEIGHTS)
    torch.testing.assert_close(feature, torch.tensor([[0.35 * 0.6, 0.35 * 0.8, 0.0, -0.8]]))


def test_products_are_the_weighted_sum_of_the_stages_cosines():
    features = {stage: torch.randn(5, 8, dtype=torch.float64) for stage in WEIGHTS}
    final = final_feature(features, WEIGHTS).double()
    expected = sum(WEIGHTS[s] ** 2 * torch.cosine_similarity(f[:, None], f[None], dim=-1) for s, f in features.items())
    torch.testing.assert_close(final @ final.T, expected, rtol=0, atol=1e-6)


def test_zero_feature_stays_finite():
    assert final_feature({"stage4": torch.zeros(1, 4)}, WEIGHTS).isfinite().all()
