"""The switches for equal bits in every run: set within the block, and afterwards as before."""

import os
import subprocess
import sys

import pytest
import torch
from mgre.errors import ConfigError, SetupError
from mgre.system.randomness import CUBLAS_VARIABLE, deterministic


def switches() -> tuple:
    import torch._inductor.config as inductor

    is_on = torch.are_deterministic_algorithms_enabled()
    return (
        is_on,
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        os.environ.get(CUBLAS_VARIABLE),
        getattr(inductor, "deterministic", is_on),  # torch 2.9 has no switch of its own for compiled code
        torch.utils.deterministic.fill_uninitialized_memory,
    )


ON = (True, False, False, True, ":4096:8", True, False)


@pytest.fixture(autouse=True)
def start(monkeypatch):
    """As a training starts that searches for the fastest algorithms."""
    monkeypatch.delenv(CUBLAS_VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


def test_switches_are_set_within_the_block_and_restored():
    before = switches()
    assert before == (False, False, True, False, None, False, True)
    with deterministic(True):
        assert switches() == ON
        with deterministic(True):  # an evaluation within a training
            assert switches() == ON
        assert switches() == ON
    assert switches() == before


def test_switches_are_restored_after_an_error():
    before = switches()
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert switches() == before


def test_a_caller_who_only_wants_warnings_gets_them_back():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic(True):
            assert switches() == ON
        assert switches()[:2] == (True, True)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fill", [True, False])
def test_new_tensors_are_not_written_twice_and_the_callers_choice_comes_back(fill):
    torch_own = torch.utils.deterministic
    before = torch_own.fill_uninitialized_memory
    torch_own.fill_uninitialized_memory = fill
    try:
        with deterministic(True):
            assert not torch_own.fill_uninitialized_memory
        assert torch_own.fill_uninitialized_memory == fill
    finally:
        torch_own.fill_uninitialized_memory = before


def test_nothing_changes_where_it_is_off():
    before = switches()
    with deterministic(False):
        assert switches() == before


def test_the_other_workspace_of_the_environment_stays(monkeypatch):
    monkeypatch.setenv(CUBLAS_VARIABLE, ":16:8")
    with deterministic(True):
        assert os.environ[CUBLAS_VARIABLE] == ":16:8"
    assert os.environ[CUBLAS_VARIABLE] == ":16:8"


def test_a_workspace_that_is_not_deterministic_is_refused(monkeypatch):
    monkeypatch.setenv(CUBLAS_VARIABLE, ":4096:2")
    with pytest.raises(SetupError, match=r"is ':4096:2'.*allowed: not set, :4096:8 or :16:8"), deterministic(True):
        pass


def test_an_operation_without_a_deterministic_kernel_is_named():
    """torch has one such operation on the CPU too."""

    def put() -> torch.Tensor:
        return torch.zeros(2).put_(torch.tensor([1]), torch.ones(1))

    assert put().tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"put_ has no deterministic kernel"), deterministic(True):
        put()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_process_that_has_used_cublas_before_is_refused(monkeypatch):
    code = (
        "import torch\n"
        "from mgre.errors import SetupError\n"
        "from mgre.system.randomness import deterministic\n"
        "square = torch.ones(4, 4, device='cuda')\n"
        "square @ square\n"
        "try:\n"
        "    with deterministic(True):\n"
        "        square @ square\n"
        "except SetupError as error:\n"
        "    print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "comes too late" in shown and "CUBLAS_WORKSPACE_CONFIG=:4096:8" in shown


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes$"), deterministic(True):
        raise RuntimeError("shapes")
