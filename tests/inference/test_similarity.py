import mgre
import numpy as np
import pytest
import torch
from mgre.inference.similarity import CONSTANT, pair_shares, similarity, split_similarity


def naive_shares(terms_a, terms_b, weights):
    """The shares of one pair by a loop over all pairs of terms: their product is halved between the two."""
    whole = sum(weight**2 for weight in weights.values())
    found = {}
    for stage in terms_a:
        a, b = terms_a[stage].astype(float), terms_b[stage].astype(float)
        lengths = np.linalg.norm(a.sum(axis=0)) * np.linalg.norm(b.sum(axis=0))
        shares = np.zeros(len(a))
        for r in range(len(a)):
            for s in range(len(b)):
                part = weights[stage] ** 2 / whole * sum(x * y for x, y in zip(a[r], b[s], strict=True)) / lengths
                shares[r] += part / 2
                shares[s] += part / 2
        found[stage] = shares
    return found


@pytest.mark.parametrize("stages", ["()", "(1,)", "(2,)", "(3,)", "(1, 2)", "(1, 3)", "(2, 3)", "(1, 2, 3)"])
def test_the_shares_add_up_to_the_cosine(save_model, write_crops, stages):
    small = {"MODEL.MGRE.BACKBONE": "build_osnet_backbone", "MODEL.BACKBONE.DEPTH": "x0_25"}
    _, path = save_model(**small, **{"MODEL.MGRE.STAGES": stages})
    model = mgre.load(path, device="cpu")
    found = model.describe(write_crops(3))
    expected = torch.nn.functional.cosine_similarity(*torch.from_numpy(found.features[1:]), dim=0)
    shares = pair_shares(found, 1, 2, model.record)
    assert sum(share.value for share in shares) == pytest.approx(expected.item(), abs=1e-5)
    names = [(stage, name) for stage, names in model.record.regions.items() for name in (*names, CONSTANT)]
    assert [(share.stage, share.region) for share in shares] == names
    weights = {stage: model.record.stage_weights[stage] for stage in found.terms}
    naive = naive_shares(*({stage: t[i] for stage, t in found.terms.items()} for i in (1, 2)), weights)
    np.testing.assert_allclose([s.value for s in shares], np.concatenate(list(naive.values())), atol=1e-6)
    swapped = [share.value for share in pair_shares(found, 2, 1, model.record)]
    np.testing.assert_allclose(swapped, [share.value for share in shares], atol=1e-12)


def test_many_pairs_are_split_as_each_alone():
    rng = np.random.default_rng(0)
    first, second = ({"stage1": rng.normal(size=(4, 3, 5)), "stage4": rng.normal(size=(4, 2, 7))} for _ in range(2))
    weights = {"stage1": 0.3, "stage4": 0.8}
    together = split_similarity(first, second, weights)
    for i in range(4):
        alone = naive_shares(*({stage: t[i] for stage, t in side.items()} for side in (first, second)), weights)
        for stage, values in alone.items():
            np.testing.assert_allclose(together[stage][i], values, rtol=1e-9)


def test_a_stage_of_zeros_gives_nothing():
    """As in the final feature, of which the stage's part is then zero."""
    rng = np.random.default_rng(1)
    terms = {"stage1": np.zeros((1, 2, 3)), "stage4": rng.normal(size=(1, 2, 3))}
    shares = split_similarity(terms, terms, {"stage1": 0.5, "stage4": 0.5})
    assert shares["stage1"].tolist() == [[0.0, 0.0]]
    assert shares["stage4"].sum() == pytest.approx(1.0)


def test_models_without_regions_have_no_shares(save_model, write_crops):
    model = mgre.load(save_model("quickstart-baseline")[1], device="cpu")
    assert pair_shares(model.describe(write_crops(2)), 0, 1, model.record) == []


def test_cosines_by_hand():
    features = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_allclose(similarity(features[:2], features), [[1.0, 0.8, 0.0], [0.8, 1.0, 0.0]])
