import collections
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import fastreid
import pytest
from mgre import compat
from mgre.compat import imports
from mgre.compat.patching import Overlay, adapt
from mgre.errors import SetupError

FIND_SPEC = importlib.util.find_spec


# A Python that has imported torch and torchvision, which takes four fifths of the time of ``import mgre``, and nothing
# else. For each line it reads, it runs code in a child and writes the child's exit status.
SERVER = """
import json, os, sys, torch, torchvision
for line in sys.stdin:
    code, first_on_path, *streams = json.loads(line)
    process = os.fork()
    if process:
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.path.insert(1, first_on_path)
    exec(code, {"__name__": "__main__"})
    sys.exit()
"""


@pytest.fixture(scope="module")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Run code in a process that has not imported this package or the toolbox, with a folder first on its path."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    streams = [tmp_path_factory.mktemp("run_python") / name for name in ("stdout", "stderr")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SERVER], env=env, text=True, **pipes) as server:

        def run(code: str, first_on_path: Path) -> subprocess.CompletedProcess:
            print(json.dumps([code, str(first_on_path), *map(str, streams)]), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            return subprocess.CompletedProcess(code, status, *(path.read_text() for path in streams))

        yield run


def test_missing_toolbox_names_its_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastreid" else FIND_SPEC(name))
    with pytest.raises(SetupError) as error:
        compat.apply()
    assert str(error.value).endswith("pip install --no-deps fastreid==1.4.0")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_faiss_may_be_missing(run_python, tmp_path):
    code = (
        "import importlib.util, sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'faiss':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "find_spec = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *args: None if name == 'faiss' else find_spec(name, *args)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import mgre, torch\n"
        "from fastreid.utils import compute_dist\n"
        "print(compute_dist.build_dist(torch.eye(4)[:2], torch.eye(4)[2:], 'jaccard', k1=2, k2=1).shape)\n"
        "compute_dist.faiss.IndexFlatL2\n"
    )
    result = run_python(code, tmp_path)
    assert result.stdout.strip() == "(2, 2)", result.stderr
    assert result.stderr.strip().endswith("ModuleNotFoundError: No module named 'faiss'")


def test_other_import_errors_show(run_python, tmp_path):
    (tmp_path / "fastreid").mkdir()
    (tmp_path / "fastreid" / "__init__.py").write_text("raise ImportError('libbroken.so')")
    result = run_python("import mgre", tmp_path)
    assert result.returncode != 0
    assert result.stderr.strip().endswith("ImportError: libbroken.so")


@pytest.mark.slow
def test_guarded_clone_imports_in_a_fresh_process(run_python, tmp_path):
    """A git clone on the path, whose HEAD asks for torch._six only where torch has it."""
    shutil.copytree(Path(fastreid.__file__).parent, tmp_path / "fastreid", ignore=shutil.ignore_patterns("*.so"))
    build = tmp_path / "fastreid" / "data" / "build.py"
    guarded = "if torch.__version__ < '2':\n    from torch._six import string_classes\nelse:\n    string_classes = str"
    source = build.read_text()
    assert "from torch._six import string_classes" in source
    build.write_text(source.replace("from torch._six import string_classes", guarded))
    code = (
        "import collections, sys, warnings\n"
        "warnings.filterwarnings('error', message='Cython')\n"
        "import mgre, fastreid, fastreid.engine, fastreid.evaluation.rank\n"
        "from fastreid.data.build import fast_batch_collator\n"
        "print(fastreid.__file__, hasattr(collections, 'Mapping'), 'torch._six' in sys.modules)\n"
        "print(fast_batch_collator([{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]))\n"
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    where, collated = result.stdout.strip().splitlines()
    assert where == f"{tmp_path / 'fastreid' / '__init__.py'} False False"
    assert collated == "{'a': tensor([1, 2]), 'b': ['x', 'y']}"


LATE = ("tensorboard", "tensorflow", "sklearn", "scipy", "timm", "matplotlib", "captum", "faiss", "pandas", "h5py",
        "onnxruntime", "cv2")  # fmt: skip


@pytest.mark.slow
def test_packages_are_imported_when_they_are_used(run_python, tmp_path):
    """One process: nothing of the packages after ``import mgre``, and the packages themselves at first use."""
    code = (
        "import sys, mgre\n"
        f"print([name for name in (*{LATE}, 'torch.utils.tensorboard') if name in sys.modules])\n"
        "from fastreid.evaluation import reid_evaluation\n"
        "from fastreid.modeling import BACKBONE_REGISTRY\n"
        "from fastreid.solver.optim import lamb\n"
        "from fastreid.utils import compute_dist, faiss_utils\n"
        "print(BACKBONE_REGISTRY.get('build_timm_backbone').__name__, 'timm' in sys.modules)\n"
        "print(reid_evaluation.metrics.auc([0, 1, 3], [0, 1, 1]))\n"  # a triangle of 1/2 and a rectangle of 2
        f"writer = lamb.SummaryWriter({str(tmp_path)!r})\n"
        "names = [compute_dist.faiss.IndexFlatL2, faiss_utils.faiss.IndexFlatL2]\n"
        "import faiss, inspect, sklearn.metrics\n"
        "from torch.utils.tensorboard import SummaryWriter\n"
        "print(reid_evaluation.metrics.auc is sklearn.metrics.auc, names == [faiss.IndexFlatL2] * 2)\n"
        "print(isinstance(writer, SummaryWriter))\n"
        "metric = inspect.signature(faiss_utils.search_raw_array_pytorch).parameters['metric']\n"
        "print(metric.default == faiss.METRIC_L2, faiss.__spec__.name, sklearn.__path__ != [])\n"
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "[]", "build_timm_backbone False", "2.5", "True True", "True", "True faiss True",
    ]  # fmt: skip
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_packages_that_are_there_need_no_stand_in(monkeypatch):
    faiss, sklearn = types.ModuleType("faiss"), types.ModuleType("sklearn")
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    monkeypatch.setitem(sys.modules, "sklearn", sklearn)
    with imports.late_packages():
        assert (sys.modules["faiss"], sys.modules["sklearn"]) == (faiss, sklearn)
    assert (sys.modules["faiss"], sys.modules["sklearn"]) == (faiss, sklearn)


@pytest.mark.slow
def test_a_changed_toolbox_may_import_more_of_the_packages(run_python, tmp_path):
    shutil.copytree(Path(fastreid.__file__).parent, tmp_path / "fastreid")
    with (tmp_path / "fastreid" / "evaluation" / "reid_evaluation.py").open("a") as source:
        source.write("\nfrom sklearn.metrics import auc\n")
    with (tmp_path / "fastreid" / "utils" / "compute_dist.py").open("a") as source:
        source.write("\nSEARCH = faiss.IndexFlatIP\n")
    code = (
        "import mgre, sklearn.metrics, faiss\n"
        "from fastreid.evaluation import reid_evaluation\n"
        "from fastreid.utils import compute_dist\n"
        "print(reid_evaluation.auc is sklearn.metrics.auc, compute_dist.SEARCH is faiss.IndexFlatIP)\n"
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True", "True"]


def test_former_names_last_as_long_as_asked():
    with imports.former_names():
        from collections.abc import Mapping

        from torch._six import string_classes

        assert isinstance({}, Mapping)
        assert isinstance("x", string_classes)
    assert not hasattr(collections, "Mapping")
    assert "torch._six" not in sys.modules


def test_former_names_leaves_those_that_are_there(monkeypatch):
    mapping, six = object(), types.ModuleType("torch._six")
    six.__spec__ = importlib.util.spec_from_loader("torch._six", loader=None)
    monkeypatch.setattr(collections, "Mapping", mapping, raising=False)
    monkeypatch.setitem(sys.modules, "torch._six", six)
    with imports.former_names():
        assert collections.Mapping is mapping
        assert sys.modules["torch._six"] is six
    assert collections.Mapping is mapping
    assert sys.modules["torch._six"] is six


def test_apply_twice_changes_nothing():
    def snapshot():
        modules = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "fastreid"}
        state = {}
        for module_name, module in modules.items():
            for name, value in vars(module).items():
                state[module_name, name] = id(value)
                if isinstance(value, type) and value.__module__.startswith(("fastreid", "mgre")):
                    state |= {(module_name, name, k): id(v) for k, v in vars(value).items() if callable(v)}
        return state

    before = snapshot()
    compat.apply()
    assert snapshot() == before


@pytest.fixture
def made_up_modules(monkeypatch):
    """A module that defines ``function``, and one that has imported it as ``alias``."""
    owner, user = types.ModuleType("madeup.owner"), types.ModuleType("madeup.user")
    exec("def function():\n    return 1", vars(owner))
    user.alias = owner.function
    monkeypatch.setitem(sys.modules, "madeup.owner", owner)
    monkeypatch.setitem(sys.modules, "madeup.user", user)
    return owner, user


def test_adapt_replaces_every_name_once(made_up_modules):
    owner, user = made_up_modules
    for _ in range(2):
        adapt(owner, "function", lambda f: lambda: f() + 1)
    assert owner.function is user.alias
    assert owner.function() == 2


def test_adapt_replaces_an_imported_name_there_alone(made_up_modules):
    owner, user = made_up_modules
    adapt(user, "alias", lambda f: lambda: f() + 1)
    assert user.alias() == 2
    assert owner.function() == 1


def test_overlay_leaves_the_module_alone():
    overlay = Overlay(collections, Mapping=dict)
    assert overlay.Mapping is dict
    assert overlay.OrderedDict is collections.OrderedDict
    assert not hasattr(collections, "Mapping")
