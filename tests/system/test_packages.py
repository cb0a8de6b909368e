"""Which build of faiss and onnxruntime is there, said in a line."""

import importlib
import importlib.metadata
import types

import pytest
from mgre.system.packages import describe_build


@pytest.fixture
def install(monkeypatch):
    """Let only these distributions be installed, with a module that is given or an error in its place."""

    def make(versions: dict[str, str], **modules: types.SimpleNamespace | Exception) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        def load(name: str) -> types.SimpleNamespace:
            if isinstance(modules[name], Exception):
                raise modules[name]
            return modules[name]

        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib, "import_module", load)

    return make


def test_what_is_installed_here_is_found():
    faiss = importlib.import_module("faiss")
    assert f"{faiss.__version__} (GPUs: {faiss.get_num_gpus()})" in describe_build("faiss")
    assert importlib.import_module("onnxruntime").__version__ in describe_build("onnxruntime")


@pytest.mark.parametrize("number", [0, 1])
def test_faiss_with_cuda(install, number):
    install({"faiss-gpu": "1.15.1"}, faiss=types.SimpleNamespace(get_num_gpus=lambda: number))
    assert describe_build("faiss") == f"faiss-gpu 1.15.1 (GPUs: {number})"


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_build_whose_libraries_are_missing(install, error):
    install({"faiss-gpu": "1.15.1"}, faiss=error("libcudart.so.12:\n cannot open shared object file"))
    expected = "faiss-gpu 1.15.1 cannot be loaded (libcudart.so.12: cannot open shared object file)"
    assert describe_build("faiss") == expected


def test_nothing_is_installed(install):
    install({}, faiss=ModuleNotFoundError("No module named 'faiss'"))
    assert describe_build("faiss") == "faiss cannot be loaded (No module named 'faiss')"


@pytest.mark.parametrize(
    ("distribution", "providers", "expected"),
    [
        ("onnxruntime-gpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], "onnxruntime-gpu 1.30.0 (with CUDA)"),
        ("onnxruntime", ["CPUExecutionProvider"], "onnxruntime 1.30.0 (CPU)"),
    ],
)
def test_builds_of_onnxruntime(install, distribution, providers, expected):
    install({distribution: "1.30.0"}, onnxruntime=types.SimpleNamespace(get_available_providers=lambda: providers))
    assert describe_build("onnxruntime") == expected
