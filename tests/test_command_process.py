"""The fixture ``run_script`` against a new Python."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging, os, signal, sys, threading
print(__name__, sys.argv, os.getcwd(), sys.path[0], sorted(os.environ.items()))
print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], sys.stdout.isatty(), sys.stdin.read())
print(threading.active_count(), logging.getLogger("mgre").handlers, logging.getLogger("fastreid").handlers)
print("to stderr", file=sys.stderr)
os.system("echo from a process of its own")
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "sys.exit('a reason')", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_script_ends_as_in_a_new_python(run_script, tmp_path, end):
    script = tmp_path / "tools" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT + "sys.stdout.flush()\n" + end)
    words = (str(script), "--option", "a value")
    env = dict(os.environ) | {"OF_THIS_TEST": "1"}
    expected = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    finished = run_script(*words, cwd=tmp_path, env=env)
    assert finished.returncode == expected.returncode
    assert sorted(finished.stdout.splitlines()) == sorted(expected.stdout.splitlines())
    assert finished.stderr == expected.stderr
    assert "OF_THIS_TEST" in finished.stdout and "from a process of its own" in finished.stdout


def test_paths_are_those_of_the_test_where_it_has_changed_the_folder(run_script, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text("import os; print(os.getcwd())")
    monkeypatch.chdir(tmp_path)
    assert run_script("script.py").stdout == f"{tmp_path}\n"


def test_the_toy_backbone_is_known_there(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from fastreid.modeling.backbones.build import BACKBONE_REGISTRY\n"
        "print(BACKBONE_REGISTRY.get('build_toy_backbone').__name__)"
    )
    assert run_script(script).stdout == "build_toy_backbone\n"


def test_a_scripts_own_class_comes_back_from_its_processes(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "class Own:\n    pass\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(type(pool.apply(Own)) is Own)"
    )
    finished = run_script(script)
    assert finished.stdout == "True\n", finished.stderr


def test_torch_is_there_before_the_script_asks_for_it(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('torch' in sys.modules, 'pytest' in sys.modules)")
    assert run_script(script).stdout == "True False\n"


def test_an_error_has_its_traceback(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import pathlib\npathlib.Path('a').write_text('b')\nraise ValueError('wrong')")
    finished = run_script(script, cwd=tmp_path)
    assert finished.returncode == 1 and finished.stderr.endswith("ValueError: wrong\n")
    assert (tmp_path / "a").exists()


def test_one_that_does_not_end_is_killed(run_script, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, time\nprint('begun', flush=True)\ntime.sleep(60)")
    with pytest.raises(subprocess.TimeoutExpired) as expired:
        run_script(script, timeout=1)
    assert expired.value.stdout == b"begun\n"
