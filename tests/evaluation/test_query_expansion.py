import pytest
import torch
from fastreid.evaluation import query_expansion
from mgre.evaluation.query_expansion import expand

# The toolbox's own function, which the package replaces by the one under test.
toolbox_aqe = query_expansion.aqe.__wrapped__


@pytest.mark.parametrize(("times", "k", "alpha"), [(1, 10, 3.0), (2, 3, 1.0), (1, 1, 2.0)])
def test_equals_the_toolbox(times, k, alpha):
    generator = torch.Generator().manual_seed(0)
    queries, gallery = 3 * torch.randn(8, 6, generator=generator), torch.randn(30, 6, generator=generator)
    found = expand(queries.clone(), gallery.clone(), times, k, alpha)
    expected = toolbox_aqe(queries.clone(), gallery.clone(), times, k, alpha)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_zero_vector_is_at_cosine_0():
    """By hand: the query's neighbours are itself and the image at cosine 0.3; the zero vector has no part."""
    query = torch.tensor([[1.0, 0.0, 0.0]])
    gallery = torch.tensor([[0.3, 0.91**0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expanded, _ = expand(query, gallery, qe_k=2, alpha=1.0)
    torch.testing.assert_close(expanded, torch.tensor([[(1 + 0.3 * 0.3) / 2, 0.3 * 0.91**0.5 / 2, 0.0]]))


def test_more_neighbours_than_images_are_all_images():
    features = torch.eye(3) + 0.5
    (expanded, rest) = expand(features[:1], features[1:], qe_k=10, alpha=0.0)
    torch.testing.assert_close(torch.cat((expanded, rest)), features.mean(dim=0).expand(3, 3))
