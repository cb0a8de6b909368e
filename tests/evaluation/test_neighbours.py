import inspect
import sys
import types

import faiss
import numpy as np
import pytest
import torch
from faiss import gpu_wrappers
from mgre.config.keys import KEYS
from mgre.errors import ConfigError
from mgre.evaluation import neighbours
from mgre.evaluation.neighbours import nearest_neighbours
from mgre.evaluation.placement import SEARCHES, place
from mgre.evaluation.products import squared_norms


def random_features(num_images: int, dim: int = 8, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(num_images, dim, generator=torch.Generator().manual_seed(num_images))


def search_on_device(features: torch.Tensor, k: int, by_product: bool = False) -> np.ndarray:
    """The search of other devices than the CPU, on the CPU."""
    half_squares = torch.zeros(len(features)) if by_product else squared_norms(features) / 2
    return neighbours._in_order(*neighbours._search_on_device(features, half_squares, k)).numpy()


@pytest.fixture(autouse=True)
def forget_faiss():
    for function in (neighbours._load_faiss, neighbours._warn_once):
        function.cache_clear()
    yield
    for function in (neighbours._load_faiss, neighbours._warn_once):
        function.cache_clear()


@pytest.fixture
def gpu_faiss(monkeypatch):
    """What faiss-gpu offers, by the CPU's search of the same interface; the calls are counted."""
    calls = []
    parameters = inspect.signature(gpu_wrappers.knn_gpu).parameters
    assert [*parameters][:4] == ["res", "xq", "xb", "k"]
    assert parameters["metric"].default == faiss.METRIC_L2

    def knn_gpu(resources, xq, xb, k, metric):
        calls.append(metric)
        return faiss.knn(xq, xb, k, metric=metric)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", knn_gpu, raising=False)
    return calls


@pytest.mark.parametrize("block", [3, 16, 50, 4096])
@pytest.mark.parametrize("k", [1, 7, 50])
def test_equals_sorting_all_distances(monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "DEVICE_BLOCK_SIZE", 50 * block)
    features = random_features(50, scale=3.0)
    distances = (features[:, None].double() - features[None].double()).square().sum(-1)
    expected = distances.argsort(dim=1)[:, :k].numpy()
    np.testing.assert_array_equal(nearest_neighbours(features, k), expected)
    np.testing.assert_array_equal(search_on_device(features, k), expected)


def test_more_neighbours_than_images_are_all_images():
    found = nearest_neighbours(random_features(5), 20)
    assert found.shape == (5, 5)
    assert (np.sort(found, axis=1) == np.arange(5)).all()


@pytest.mark.parametrize("search", [nearest_neighbours, search_on_device])
def test_equal_distances_are_in_the_order_of_the_numbers(monkeypatch, search):
    monkeypatch.setattr(neighbours, "BLOCK", 4)
    monkeypatch.setattr(neighbours, "DEVICE_BLOCK_SIZE", 48)
    features = torch.tensor([[0.0], [1.0]]).repeat(6, 1)  # even numbers at 0, odd ones at 1
    found = search(features, 12)
    even, odd = list(range(0, 12, 2)), list(range(1, 12, 2))
    assert found[4].tolist() == even + odd
    assert found[7].tolist() == odd + even


@pytest.mark.parametrize("block", [16, 4096])
def test_by_product_equals_sorting_all_products(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    monkeypatch.setattr(neighbours, "DEVICE_BLOCK_SIZE", 50 * block)
    features = random_features(50)
    expected = (-(features.double() @ features.double().T)).argsort(dim=1)[:, :7].numpy()
    np.testing.assert_array_equal(nearest_neighbours(features, 7, by_product=True), expected)
    np.testing.assert_array_equal(search_on_device(features, 7, by_product=True), expected)


def test_a_devices_memory_is_bounded(monkeypatch):
    most = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            result = super().__torch_function__(function, types, args, kwargs or {})
            if function is torch.Tensor.matmul or function is torch.Tensor.__matmul__:
                most.append(result.numel())
            return result

    monkeypatch.setattr(neighbours, "DEVICE_BLOCK_SIZE", 50 * 7 + 20)
    search_on_device(random_features(50).as_subclass(Watched), 5)
    assert len(most) == 8 and max(most) == 50 * 7  # as many whole rows as fit


# -- faiss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["auto", "torch", "faiss"])
def test_faiss_searches_where_it_is_chosen(gpu_faiss, search):
    features = random_features(40)
    with place(search=search):
        found = nearest_neighbours(features, 6), nearest_neighbours(features, 6, by_product=True)
    assert gpu_faiss == ([faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT] if search == "faiss" else [])
    np.testing.assert_array_equal(found[0], nearest_neighbours(features, 6))
    np.testing.assert_array_equal(found[1], nearest_neighbours(features, 6, by_product=True))


def missing(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def part_missing(name):
    raise ModuleNotFoundError("No module named 'faiss._swigfaiss'", name="faiss._swigfaiss")


def broken(name):
    raise ImportError("libcudart.so.12:\ncannot open shared object file")


def no_cuda(name):
    return types.SimpleNamespace(get_num_gpus=lambda: 0)


def cpu_build(name):
    return types.SimpleNamespace(get_num_gpus=lambda: 1)


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (missing, r"faiss is not installed \(pip install faiss-gpu\)"),
        (part_missing, "faiss cannot be loaded (No module named 'faiss._swigfaiss')"),
        (broken, r"faiss cannot be loaded \(libcudart.so.12: cannot open shared object file\)"),
        (no_cuda, "faiss sees no GPU"),
        (cpu_build, "faiss sees no GPU"),
    ],
)
def test_where_faiss_cannot_search_one_line_says_so_and_torch_searches(monkeypatch, caplog, load, problem):
    features = random_features(40)
    expected = nearest_neighbours(features, 6)
    monkeypatch.setattr(neighbours.importlib, "import_module", load)
    with place(search="faiss"), caplog.at_level("WARNING"):
        found = nearest_neighbours(features, 6)
        nearest_neighbours(features, 5)
    np.testing.assert_array_equal(found, expected)
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert caplog.records[0].getMessage().startswith("TEST.RERANK.SEARCH is faiss, but ")
    caplog.records[0].getMessage().index(problem.replace("\\", ""))


def test_torch_searches_more_neighbours_than_faiss_can(monkeypatch, gpu_faiss, caplog):
    assert neighbours.MOST_OF_FAISS == 2048
    monkeypatch.setattr(neighbours, "MOST_OF_FAISS", 6)
    features = random_features(40)
    expected = nearest_neighbours(features, 7)
    with place(search="faiss"), caplog.at_level("WARNING"):
        nearest_neighbours(features, 6)
        assert len(gpu_faiss) == 1 and not caplog.records
        np.testing.assert_array_equal(nearest_neighbours(features, 7), expected)
        nearest_neighbours(features, 7)
    assert len(gpu_faiss) == 1
    (record,) = caplog.records
    assert "faiss finds at most 6 neighbours on a GPU, not the 7" in record.getMessage()


def test_faiss_is_not_loaded_where_it_is_not_chosen(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import would fail
    assert nearest_neighbours(random_features(9), 2).shape == (9, 2)


def test_the_choices_are_those_of_the_config():
    (key,) = (key for key in KEYS if key.name == "TEST.RERANK.SEARCH")
    assert key.allowed.names == SEARCHES


def test_a_choice_ends_with_its_context_and_a_wrong_one_is_told(gpu_faiss):
    with place(search="faiss"):
        pass
    nearest_neighbours(random_features(9), 2)
    assert not gpu_faiss
    with (
        pytest.raises(ConfigError, match=r"TEST\.RERANK\.SEARCH is 'annoy'; allowed: auto, torch, faiss"),
        place(search="annoy"),
    ):
        pass


# -- On a GPU ---------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("search", ["auto", "faiss"])
@pytest.mark.parametrize("by_product", [False, True])
def test_a_gpu_finds_the_same(monkeypatch, search, by_product):
    monkeypatch.setattr(neighbours, "DEVICE_BLOCK_SIZE", 3000 * 700)
    features = random_features(3000, 64)
    expected = nearest_neighbours(features, 20, by_product=by_product)
    with place(search=search):  # faiss, where it cannot, leaves it to torch
        found = nearest_neighbours(features.cuda(), 20, by_product=by_product)
    x = features.double()
    closeness = x @ x.T - (0 if by_product else x.square().sum(dim=1) / 2)
    for row in (found != expected).any(axis=1).nonzero()[0]:  # at distances that are equal to rounding
        torch.testing.assert_close(closeness[row, found[row]], closeness[row, expected[row]], rtol=0, atol=1e-4)
