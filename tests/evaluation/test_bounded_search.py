import numpy as np
import pytest
import torch
from mgre.evaluation import bounded_search, neighbours
from mgre.evaluation.bounded_search import find_reduction, search_bounded
from mgre.evaluation.bounds import MARGIN, MOST_NUMBERS, principal_directions, reduce_to
from mgre.evaluation.neighbours import nearest_neighbours
from mgre.evaluation.pairs import pair_products
from mgre.evaluation.products import squared_norms
from scipy import sparse
from torch.nn import functional as F


def clustered(num_images: int = 400, dim: int = 64, noise: float = 0.3, num_of_each: int = 10) -> torch.Tensor:
    """Unit features of identities, whose energy falls with the direction as it does in real ones."""
    generator = torch.Generator().manual_seed(num_images)
    fall = 1 / torch.arange(1, dim + 1)
    centres = torch.randn(num_images // num_of_each, dim, generator=generator)
    labels = torch.randint(len(centres), (num_images,), generator=generator)
    hardness = torch.randn(num_images, 1, generator=generator).exp()
    noisy = centres[labels] + noise * hardness * torch.randn(num_images, dim, generator=generator)
    return F.normalize(noisy * fall, dim=1)


@pytest.fixture
def small(monkeypatch):
    """Sizes with which few images make many blocks, and pairs are computed in several goes."""
    monkeypatch.setattr(bounded_search, "MIN_IMAGES", 50)
    monkeypatch.setattr(bounded_search, "DIRECTIONS", (4, 8, 16))
    monkeypatch.setattr(bounded_search, "COST_OF_LEFT", 0)
    monkeypatch.setattr(bounded_search, "BLOCK", 48)
    monkeypatch.setattr(bounded_search, "PAIRS", 700)


def both(features: torch.Tensor, k: int, by_product: bool = False) -> list[np.ndarray]:
    """Neighbours (N, K) by the bound and by all products."""
    half_squares = torch.zeros(len(features)) if by_product else squared_norms(features) / 2
    reduced = find_reduction(features, half_squares, k)
    assert reduced is not None
    found = search_bounded(features, half_squares, reduced, k), neighbours._search_blocks(features, half_squares, k)
    return [neighbours._in_order(*each).numpy() for each in found]


def assert_same_but_for_equal_distances(features: torch.Tensor, found: np.ndarray, expected: np.ndarray) -> None:
    x = features.double().numpy()
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    assert all(len(set(row)) == found.shape[1] for row in found)
    np.testing.assert_allclose(
        np.take_along_axis(distances, found, 1), np.take_along_axis(distances, expected, 1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("rank", [3, 64])
@pytest.mark.parametrize("powers", [0, 2])
@pytest.mark.parametrize("by_product", [False, True])
def test_the_compared_product_is_above_the_true_one_by_a_margin(rank, powers, by_product):
    """A rank of 3 leaves no rest, and lengths from 1e-2 to 1e2 in one set leave the rests' margin small."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
    features = F.normalize(features, dim=1) * 10 ** (powers * (2 * torch.rand(200, 1, generator=generator) - 1))
    squares = squared_norms(features)
    half_squares = torch.zeros(200) if by_product else squares / 2
    reduced = reduce_to(features @ principal_directions(features, 8), squares)
    left, right = bounded_search._sides(features, half_squares, reduced)

    x, h, both_squares = features.double(), half_squares.double(), squares.double()[:, None] + squares.double()
    true = x @ x.T - h[:, None] - h
    bound = (left @ right.T).double()
    assert (bound >= true + MARGIN / 2 * both_squares).all()
    if rank == 3:  # and not needlessly far above
        assert (bound <= true + 2 * MARGIN * both_squares).all()


@pytest.mark.parametrize("by_product", [False, True])
@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("num_images", [97, 192, 401])
def test_equals_the_full_search(small, num_images, k, by_product):
    found, expected = both(clustered(num_images), k, by_product)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, 5e18])
@pytest.mark.parametrize("by_product", [False, True])
def test_equals_the_full_search_for_features_of_any_length(small, scale, by_product):
    lengths = torch.rand(300, 1, generator=torch.Generator().manual_seed(1)) * scale
    found, expected = both(clustered(300) * lengths, 7, by_product)
    np.testing.assert_array_equal(found, expected)


def test_random_features_are_right_too_where_the_bound_leaves_almost_all(small):
    features = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    found, expected = both(features, 7)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("copies", [20, 150, 299])
def test_duplicates(small, copies):
    features = clustered(300)
    features[:copies] = features[0].clone()
    assert_same_but_for_equal_distances(features, *both(features, 9))


def test_exactly_equal_distances_are_in_the_order_of_the_numbers(small):
    """Each product of these whole numbers is exact, however it is computed. All images of a group fit."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(-4, 5, (100, 64), generator=generator).float() * (torch.arange(64) < 8)
    features = groups.repeat(3, 1)
    found, _ = both(features, 3)
    expected = torch.arange(100).repeat(3)[:, None] + torch.tensor([0, 100, 200])
    np.testing.assert_array_equal(found, expected.numpy())


def test_zero_vectors(small):
    features = clustered(300)
    features[5:40] = 0
    for by_product in (False, True):
        products = (features @ features.T).numpy()
        found, expected = (np.take_along_axis(products, each, 1) for each in both(features, 9, by_product))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_few_pairs_are_computed_and_each_once(small, monkeypatch):
    monkeypatch.setattr(bounded_search, "COST_OF_LEFT", 1)  # so that the bound gets directions enough
    counted = []

    def count(features, pairs):
        counted.append(pairs.copy())
        return pair_products(features, pairs)

    monkeypatch.setattr(bounded_search, "pair_products", count)
    features = clustered(400, noise=0.05)
    assert_same_but_for_equal_distances(features, *both(features, 5))
    rows, columns = (np.concatenate([pairs.tocoo().coords[axis] for pairs in counted]) for axis in (0, 1))
    assert len(counted) > 1 and 0 < rows.size < 0.2 * 400 * 399 / 2
    assert len({tuple(sorted(pair)) for pair in zip(rows.tolist(), columns.tolist(), strict=True)}) == rows.size


def test_an_image_that_is_near_to_very_many_takes_no_more_room_than_others(small, monkeypatch):
    features = clustered(400)
    features[7] = 10 * features.mean(dim=0)  # by the product it is the nearest of most
    rooms, pad = [], F.pad
    monkeypatch.setattr(
        bounded_search.F, "pad", lambda array, room, **value: rooms.append(room) or pad(array, room, **value)
    )
    found, expected = both(features, 3, by_product=True)
    np.testing.assert_array_equal(found, expected)
    assert rooms and max(room[1] for room in rooms) == 3


def test_the_largest_entries_of_each_row_stay():
    generator = np.random.default_rng(0)
    dense = generator.permutation(200).reshape(10, 20) * (generator.random((10, 20)) < 0.4)
    dense[3] = 0
    found = bounded_search._largest_of_each_row(sparse.csr_array(dense), 5).toarray()
    for row, values in zip(found, dense, strict=True):
        largest = sorted(values[values > 0], reverse=True)[:5]
        np.testing.assert_array_equal(row, values * np.isin(values, largest))


@pytest.mark.parametrize(
    ("features", "k"),
    [
        (torch.randn(400, 64, generator=torch.Generator().manual_seed(0)), 5),  # no principal directions
        (clustered(400)[:1].repeat(400, 1), 5),  # all are equal
        (clustered(400), 390),  # almost all are neighbours
        (clustered(40), 5),
        (clustered(400, dim=8), 5),  # not more numbers than directions
        (clustered(400).index_fill(0, torch.tensor([3]), torch.nan), 5),
    ],
)
def test_where_the_bound_does_not_pay_all_products_are_computed(small, monkeypatch, features, k):
    monkeypatch.setattr(bounded_search, "COST_OF_LEFT", 100)
    assert find_reduction(features, squared_norms(features) / 2, k) is None


@pytest.mark.parametrize(("k", "dim", "taken"), [(12, 64, True), (13, 64, False), (5, 9, True), (5, 8, False)])
def test_the_bound_is_taken_up_to_a_fourth_of_a_block_and_for_enough_numbers(small, k, dim, taken):
    features = clustered(400, dim)
    assert (find_reduction(features, squared_norms(features) / 2, k) is not None) == taken


def test_features_with_more_numbers_than_the_margin_covers_get_all_products(small):
    assert MOST_NUMBERS * 2.0**-24 == 2 * MARGIN
    for more, taken in ((0, True), (1, False)):
        features = F.pad(clustered(100), (0, MOST_NUMBERS - 64 + more))
        assert (find_reduction(features, squared_norms(features) / 2, 5) is not None) == taken


def test_the_share_that_is_left_chooses_the_directions(small, monkeypatch):
    features = clustered(400)
    half_squares = squared_norms(features) / 2
    sizes = []
    for cost in (0, 1, 2, 1000):
        monkeypatch.setattr(bounded_search, "COST_OF_LEFT", cost)
        reduced = find_reduction(features, half_squares, 5)
        sizes.append(None if reduced is None else reduced.shape[1] - 1)
    assert sizes[0] == 4 and sizes[-1] is None
    assert [size for size in sizes if size] == sorted(size for size in sizes if size)


@pytest.mark.parametrize("by_product", [False, True])
def test_the_search_takes_the_bound_where_it_pays(small, monkeypatch, by_product):
    features = clustered(400)
    expected = nearest_neighbours(features, 5, by_product=by_product)

    def refuse(*args):
        raise AssertionError("all products were computed")

    monkeypatch.setattr(neighbours, "_search_blocks", refuse)
    np.testing.assert_array_equal(nearest_neighbours(features, 5, by_product=by_product), expected)
    monkeypatch.setattr(bounded_search, "MIN_IMAGES", 401)
    with pytest.raises(AssertionError, match="all products"):
        nearest_neighbours(features, 5, by_product=by_product)


def test_at_the_real_sizes():
    features = clustered(9000, 512, noise=0.05, num_of_each=30)
    half_squares = squared_norms(features) / 2
    reduced = find_reduction(features, half_squares, 10)
    assert reduced is not None
    found = neighbours._in_order(*search_bounded(features, half_squares, reduced, 10)).numpy()
    expected = neighbours._in_order(*neighbours._search_blocks(features, half_squares, 10)).numpy()
    other = found != expected
    x = features.double().numpy()
    rows, places = other.nonzero()
    distances = [((x[rows] - x[each[rows, places]]) ** 2).sum(-1) for each in (found, expected)]
    np.testing.assert_allclose(*distances, rtol=0, atol=1e-5)
    assert other.mean() < 0.01
