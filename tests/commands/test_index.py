"""``mgre index``: from features files to results."""

import csv
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mgre_cli.index import main

PAGE = Path("docs/gallery.md").resolve()


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[..., str]:
    """Write a features file into the present folder, which is empty, and give its name."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, count: int = 6, seed: int = 0, **arrays) -> str:
        features = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
        content = {
            "features": features,
            "paths": np.array([f"crops/{name}-{i}.jpg" for i in range(count)]),
            "cameras": np.array([f"cam{i % 2}" for i in range(count)]),
            "times": np.array([f"2026-11-27T09:{10 + i}" for i in range(count)]),
            "metadata": np.array([json.dumps({"coat": ["red", "blue"][i // 2 % 2]}) for i in range(count)]),
            "fingerprint": np.array("abc"),
            "record": np.array("{}"),
        }
        np.savez(f"{name}.npz", **{key: value for key, value in (content | arrays).items() if value is not None})
        return f"{name}.npz"

    return written


@pytest.fixture
def index(write, capsys) -> str:
    assert main(["build", "people", write("a")]) == 0
    capsys.readouterr()
    return "people"


def test_all_actions(write, capsys):
    def run(*words: str) -> str:
        assert main([*words]) == 0
        return capsys.readouterr().out

    assert run("build", "people", write("a")) == "added 6 (ids 1 to 6), 6 in people\n"
    assert run("add", "people", write("b", 3, seed=1), "--ids-from", "name") == (
        "added 3 (ids b-0.jpg to b-2.jpg), 9 in people\n"
    )
    found = run("search", "people", "b.npz", "--count", "2")
    assert [line.split()[:3] for line in found.split("\n\n")[1].splitlines()[3:4]] == [["1", "b-1.jpg", "0.0000"]]
    assert "crops/b-1.jpg" in found
    listed = run("list", "people", "--where", "coat=red", "--camera", "cam1", "--since", "2026-11-27T09:12")
    assert [line.split()[0] for line in listed.splitlines()[3:]] == ["6"]
    assert listed.startswith("people: 9 entries of 8 numbers, model abc\n")
    assert run("remove", "people", "2", "b-1.jpg") == "removed 2, 7 remain in people\n"
    assert run("check", "people") == "people: 7 entries, 2 removed\n"
    assert len(run("list", "people", "--limit", "4").splitlines()) == 3 + 4
    assert run("list", "people", "--camera", "none").endswith("abc\nnothing found\n")
    assert run("search", "people", "--id", "1", "--camera", "none") == "1\nnothing found\n"


def test_ids_that_look_like_numbers_stay_as_they_are(write, capsys):
    write("a", 2, ids=np.array(["007", "1e3"]), cameras=np.array(["01", "2.0"]))
    assert main(["build", "people", "a.npz"]) == 0
    assert main(["search", "people", "--id", "007"]) == 0
    assert [line.split()[1:4:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["007", "01"],
        ["1e3", "2.0"],
    ]


def test_results_in_files(index, write, capsys):
    assert main(["search", "people", "--id", "3", "--id", "1", "--other-cameras", "--output", "found.json"]) == 0
    assert capsys.readouterr().out == "2 queries, 6 results: found.json\n"
    with open("found.json") as file:
        found = json.load(file)
    assert [answer["query"] for answer in found] == ["3", "1"]
    features = np.load("a.npz")["features"].astype(float)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit[2]
    others = sorted((1, 3, 5), key=lambda i: -cosines[i])
    assert [result["id"] for result in found[0]["results"]] == [str(i + 1) for i in others]
    first = found[0]["results"][0]
    assert first["cosine"] == pytest.approx(cosines[others[0]]) and first["distance"] == 1 - first["cosine"]
    assert (first["rank"], first["camera"], first["path"]) == (1, "cam1", f"crops/a-{others[0]}.jpg")
    assert first["metadata"]["coat"] in ("red", "blue") and first["time"].startswith("2026-11-27T09:1")

    options = ["--count", "4", "--rerank", "--first", "5", "--output", "found.csv"]
    assert main(["search", "people", write("q", 2, seed=5), *options]) == 0
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == list("1234") * 2
    assert json.loads(rows[0]["metadata"])["coat"] in ("red", "blue")


def test_names_cannot_speak_to_the_terminal(write, capsys):
    bad = "\x1b[2Jx\n"
    write("a", 2, paths=np.array([bad, "b"]), cameras=np.array([bad, "b"]))
    assert main(["build", "people", "a.npz"]) == 0
    for words in (["list", "people"], ["search", "people", "a.npz"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown and r"\x1b[2Jx\n" in shown


def test_cameras_times_and_ids_by_option(write, capsys):
    write("a", 3, cameras=None, times=None, metadata=None)
    options = ["--camera", "gate", "--time", "2026-11-27", "--ids-from", "path"]
    assert main(["build", "people", "a.npz", *options]) == 0
    assert main(["search", "people", "a.npz", "--other-cameras", "--query-camera", "gate", "--output", "r.json"]) == 0
    with open("r.json") as file:
        assert [answer["results"] for answer in json.load(file)] == [[], [], []]
    assert main(["list", "people"]) == 0
    assert capsys.readouterr().out.count("crops/a-1.jpg  gate      2026-11-27") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "people", "a.npz"], "'people' is an index already: add to it"),
        (["build", "new", "empty.npz"], "there is nothing to build an index of"),
        (["build", "new", "none.npz"], "'none.npz' cannot be read"),
        (["build", "new", "a.npz", "a.npz"], "name one features file, or with --model"),
        (["search", "people", "../a.JPG"], "'../a.JPG' is no features file: to take images, add --model"),
        (["build", "new", "people"], "'people' is no features file: to take images, add --model"),
        (["build", "new", "a.npz", "--time", "noon"], None),
        (["add", "people", "other.npz"], "has vectors of model abc, and these are of other"),
        (["add", "people", "wide.npz"], r"are an array \(6, 9\)"),
        (["add", "people", "a.npz", "--ids-from", "name"], None),
        (["add", "none", "a.npz"], "'none' is no index"),
        (["remove", "people", "7"], "has the id '7'"),
        (["search", "people"], "name the queries"),
        (["search", "people", "a.npz", "--id", "1"], "name the queries"),
        (["search", "people", "--id", "nobody"], "no entry of index 'people' has the id 'nobody'"),
        (["search", "people", "nobody.npz"], "'nobody.npz' cannot be read"),
        (["search", "people", "bare.npz", "--other-cameras"], "needs the queries' cameras.*add --query-camera"),
        (["search", "people", "a.npz", "--where", "red"], "--where 'red' is no name with a value"),
        (["search", "people", "a.npz", "--since", "noon"], "'noon' is no time"),
        (["search", "people", "a.npz", "--output", "r.txt"], "ends in neither .json nor .csv"),
        (["search", "people", "a.npz", "--output", "a.npz/r.csv"], "cannot be written"),
    ],
)
def test_wrong_use_is_one_line(index, write, capsys, words, message):
    write("empty", 0)
    write("other", fingerprint=np.array("other"))
    write("wide", features=np.ones((6, 9), dtype=np.float32))
    write("bare", cameras=None)
    before = sorted(os.listdir())
    status = main(words)
    shown = capsys.readouterr()
    if message is None:  # what the file says counts, and ids that are free are taken
        assert status == 0
        return
    assert status == 1 and shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert re.search(message, shown.err)
    assert sorted(os.listdir()) == before
    assert main(["check", "people"]) == 0
    assert capsys.readouterr().out == "people: 6 entries, 0 removed\n"


def test_the_page_s_commands_and_code_run(write, capsys):
    page = PAGE.read_text()
    commands, code = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL).group(1) for kind in ("sh", "python"))
    for name, seed in (("features", 0), ("more", 1), ("queries", 2)):
        write(name, 30, seed)
    for command in commands.splitlines():
        tool, *words = shlex.split(command, comments=True)
        assert tool == "tools/index.py"
        assert main(words) == 0
    assert capsys.readouterr().out.endswith("removed 2, 58 remain in people\npeople: 58 entries, 2 removed\n")

    features = np.random.default_rng(0).standard_normal((5, 2048)).astype(np.float32)
    model = SimpleNamespace(fingerprint="abc", record=SimpleNamespace(to_json=lambda: "{}"))
    said = {"cameras": ["gate", "a", "gate", "a", "a"], "metadata": [{"coat": "red"}] * 5}
    exec(code, {"model": model, "features": features, "queries": features[:1], **said})
    assert re.fullmatch(r"\[\('1', [\d.e-]+\), \('3', [\d.]+\)\]\n", capsys.readouterr().out)


def test_check_says_what_is_wrong(index, capsys):
    (name,) = (name for name in os.listdir("people") if name.startswith("vectors-"))
    with open(f"people/{name}", "r+b") as file:
        file.write(b"\1\2\3\4")
    assert main(["check", "people"]) == 1
    shown = capsys.readouterr().out
    assert "problem: the vectors of 1 entries have changed on the disk (1)" in shown


def test_images_by_a_model(write, write_image, monkeypatch, capsys, tmp_path):
    """The model is a stand-in: the features are numbers from the images' sizes."""

    class Model:
        fingerprint = "abc"
        record = SimpleNamespace(to_json=lambda: '{"a": 1}')

        def embed(self, images):
            return np.array([[*image.size, 1] for image in images], dtype=np.float32).reshape(-1, 3)

    loaded = []

    def load(path, **options):
        loaded.append((path, options))
        return Model()

    monkeypatch.setattr(sys.modules["mgre.inference"], "load", load)
    for number, name in enumerate(("crops/a.jpg", "crops/more/bb.png", "one.jpg"), start=1):
        write_image(tmp_path / name, (10 * number, 40))
    (tmp_path / "crops/text.txt").touch()
    assert main(["build", "people", "crops", "one.jpg", "--model", "m.pth"]) == 0
    assert main(["search", "people", "one.jpg", "--model", "m.pth", "--count", "1", "--output", "r.json"]) == 0
    with open("r.json") as file:
        assert [answer["results"][0]["path"] for answer in json.load(file)] == ["one.jpg"]
    assert main(["list", "people"]) == 0
    assert "crops/more/bb.png" in capsys.readouterr().out
    (tmp_path / "void").mkdir()
    assert main(["add", "people", "void", "--model", "m.pth"]) == 1
    assert "folder 'void' has no images" in capsys.readouterr().err
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    assert main(["add", "people", "broken.jpg", "--model", "m.pth"]) == 1
    assert "none of the 1 images can be read" in capsys.readouterr().err
    assert main(["add", "people", "broken.jpg", "one.jpg", "--model", "m.pth"]) == 3
    shown = capsys.readouterr()
    assert "added 1 (ids 4 to 4), 4 in people" in shown.out and "left out: " in shown.err and "broken.jpg" in shown.err
    assert loaded[-1] == ("m.pth", {"config_file": "", "overrides": [], "device": "auto"})
    words = ["add", "people", "one.jpg", "--model", "m.pth", "--config-file", "mine.yml", "--device", "cpu"]
    assert main(words) == 0
    assert loaded[-1] == ("m.pth", {"config_file": "mine.yml", "overrides": [], "device": "cpu"})


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_query_s_name_that_is_no_text_loses_no_results(index, write, kind):
    queries = write("q", 1, paths=np.array(["crop\udcff.jpg"]))
    assert main(["search", index, queries, "--count", "1", "--output", f"found.{kind}"]) == 0
    assert r"crop\udcff.jpg" in Path(f"found.{kind}").read_text()
