import pytest
import torch
from mgre.evaluation.products import true_float32

CPU = torch.device("cpu")


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(9, 8, generator=torch.Generator().manual_seed(0))


def settings() -> list:
    """All that torch says of the precision of float32 products; an error where two settings disagree."""

    def read(function):
        try:
            return function()
        except RuntimeError:
            return "the settings disagree"

    places = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    return [
        read(torch.get_float32_matmul_precision),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
        *(place.fp32_precision for place in places),
    ]


@pytest.fixture(autouse=True)
def restore_settings():
    with true_float32(CPU):
        yield


def set_backend():
    torch.backends.cuda.matmul.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "change",
    [
        lambda: None,
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        set_backend,
    ],
)
def test_no_setting_of_the_user_lowers_the_precision(change):
    change()
    before = settings()
    with true_float32(CPU):
        inside = settings()
    assert inside[:2] == ["highest", False]  # no disagreement, with which products on CUDA would stop
    assert set(inside[2:]) <= {"ieee"}
    assert settings() == before
    with pytest.raises(ZeroDivisionError), true_float32(CPU):
        _ = 1 / 0
    assert settings() == before


def test_autocast_does_not_reach_the_products(features):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (features @ features.T).dtype == torch.bfloat16
        with true_float32(CPU):
            assert (features @ features.T).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", [lambda: torch.set_float32_matmul_precision("medium"), set_backend])
def test_products_on_a_gpu_are_true_float32(change):
    change()
    features = torch.randn(200, 2048, generator=torch.Generator().manual_seed(0))
    expected = (features.double() @ features.double().T).float()
    on_device = features.cuda()
    with true_float32(on_device.device):
        found = (on_device @ on_device.T).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)  # TF32 is wrong by some 0.03
