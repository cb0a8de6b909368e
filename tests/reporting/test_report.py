"""The report as a file, by a parser of HTML, and in a browser where there is one."""

import dataclasses
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mgre.evaluation.calibration import Calibration, Rate
from mgre.reporting.report import NUM_WORST, render, write_report
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HARMFUL = "<script>alert(1)<&script>\"'{{ 7 * 7 }}.png"
BREAKOUT = '"><img src=x onerror=alert(1)>.png'
# Elements without an end, and those of the plots.
VOID = {"meta", "img", "br", "path", "polyline"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text; an element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " "  # cells stand apart
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def words(text: str) -> str:
    return " ".join(text.split())


def test_what_stands_in_it(small_evaluation, subject):
    evaluation = small_evaluation(rerank=True)
    page = Page(render(evaluation, subject))
    text = words(page.text)
    for figures in evaluation.metrics.values():
        for name in ("mAP", "Rank-1", "mINP"):
            assert f"{figures[name]:.1f}" in text
    assert "model.pth on Drawn" in text and "96 \N{MULTIPLICATION SIGN} 48 pixels" in text
    assert "query 4 4 2" in text and "gallery 16 4 2" in text
    assert "head 0.50" in text and "METRIC: cosine" in text
    assert "No calibration is of these features" in text
    sections = [attributes["id"] for attributes in page.all("section")]
    assert sections == ["figures", "data", "plots", "cameras", "regions", "worst", "setup"]
    assert len(page.all("svg")) == 2
    assert len(page.all("img")) == 4 * 2 * (1 + 10)  # of 4 queries, 2 lists with the query and 10 images
    assert all(attributes["src"].startswith("data:image/jpeg;base64,") for attributes in page.all("img"))


def test_it_loads_nothing_and_runs_nothing(small_evaluation, subject):
    text = render(small_evaluation(rerank=True), subject)
    page = Page(text)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object", "form", "a", "base"})
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "http://" not in text and "https://" not in text and "url(" not in text
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.fixture
def harmful(small_evaluation, subject):
    """An evaluation and its subject with names that would do harm if they were not escaped."""
    evaluation = small_evaluation(query_names=[HARMFUL, BREAKOUT, "c.png", "d.png"])
    evaluation = dataclasses.replace(evaluation, name="<b>Drawn</b>", overlaps={"IoU/<i>head</i>": 0.5})
    record = dataclasses.replace(subject.record, licence=HARMFUL, architecture="</style><script>", trained_on=["<i>"])
    return evaluation, dataclasses.replace(
        subject, model=BREAKOUT, config="</pre><script>alert(2)</script>", record=record, remarks=(HARMFUL,)
    )


def test_names_are_escaped(harmful):
    page = Page(render(*harmful))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "i"})
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(HARMFUL) == 3  # the query, the licence and the remark
    assert f"{BREAKOUT} on <b>Drawn</b>" in page.text
    assert f"query {HARMFUL}" in [attributes["alt"] for attributes in page.all("img")]


def test_a_name_whose_bytes_are_no_text(small_evaluation, subject, tmp_path):
    names = [os.fsdecode(b"a\xff.png"), "b\u202egnp.png", "c.png", "d.png"]
    write_report(tmp_path / "report.html", small_evaluation(query_names=names), subject)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a\\udcff.png" in text and "b\\u202egnp.png" in text


def test_thresholds_of_a_calibration_are_marked(small_evaluation, subject):
    rate = Rate(0.1, 0.0, 0.2)
    counts = {"num_identities": 9, "num_cameras": 2, "num_images": 40, "num_matches": 30, "num_non_matches": 300}
    calibration = Calibration(
        **{"dataset": "DrawnVal", "seen_in_training": False, "fingerprint": "", **counts},
        **{"scores": [0.4], "false_match": [rate], "false_non_match": [rate]},
        thresholds=[(0.01, 0.4), (0.001, 0.52)],
    )
    record = dataclasses.replace(subject.record, calibration=calibration.to_dict())
    subject = dataclasses.replace(subject, record=record)
    page = Page(render(small_evaluation(), subject))
    assert "calibration on DrawnVal: 0.400 (false-match rate 1 %), 0.520 (false-match rate 0.1 %)" in words(page.text)
    assert sum(attributes.get("class") == "mark" for attributes in page.all("path")) == 2
    # They are cosines: there are none of another metric.
    other = Page(render(small_evaluation(), dataclasses.replace(subject, metric="euclidean")))
    assert "false-match rate" not in other.text and "squared Euclidean distance" in other.text


def test_a_sparse_evaluation(make_evaluation, subject):
    """One camera pair has no match, queries have none, regions none; a query has more images than its gallery."""
    evaluation = make_evaluation([[0.1, 0.2], [0.3, 0.1]], [1, 7], [1, 2], [0, 0], [1, 2])
    text = words(Page(render(dataclasses.replace(evaluation, overlaps={}), subject)).text)
    assert "1 of the queries have no match" in text and "1 of the gallery images are of people" in text
    assert "Not measured" in text and "first match at rank 1" in text


def test_many_cameras_have_no_table_of_pairs(make_evaluation, subject):
    number = 30
    evaluation = make_evaluation(
        np.eye(number), range(number), range(number), [0] * number, range(1, number + 1), query_names=None
    )
    page = Page(render(evaluation, subject))
    assert "There are 30 cameras" in page.text
    assert len(page.all("article")) == NUM_WORST


def test_a_large_report_is_below_five_megabytes(make_evaluation, subject, tmp_path):
    """Pictures of noise, which are the largest: ten queries with all their images different, plain and re-ranked."""
    rng = np.random.default_rng(0)
    distances = rng.uniform(size=(10, 200))
    pids = np.arange(10)
    labels = pids, np.repeat(pids, 20), [0] * 10, [1] * 200
    evaluation = make_evaluation(distances, *labels, reranked=rng.uniform(size=(10, 200)))
    for path in evaluation.query_paths + evaluation.gallery_paths:
        Image.fromarray(rng.integers(0, 256, (128, 64, 3), dtype=np.uint8)).save(path)
    path = tmp_path / "new folder" / "report.html"
    write_report(path, evaluation, subject)
    assert 500_000 < path.stat().st_size < 5_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium")
def test_in_a_browser(harmful, tmp_path):
    """Chromium shows it without an error, with its tables and pictures, and nothing of a name has run."""
    evaluation, subject = harmful
    write_report(tmp_path / "report.html", evaluation, subject)
    picture = tmp_path / "picture.png"
    dom, log = browse(tmp_path, tmp_path / "report.html", "--dump-dom")
    assert errors_in(log) == []
    page = Page(dom)
    assert len(page.all("table")) == 5 and len(page.all("svg")) == 2 and not page.all("script")
    assert len(page.all("img")) == 4 * 11

    browse(tmp_path, tmp_path / "report.html", f"--screenshot={picture}", "--window-size=1366,3200")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int).reshape(-1, 3)
    for color, least in (((200, 0, 200), 10_000), ((0, 120, 200), 100_000)):  # queries and gallery images
        assert (np.abs(pixels - color).max(axis=1) < 8).sum() > least


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's package chromium")
def test_an_error_in_a_browser_would_be_seen(tmp_path):
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html>{policy}<img src='http://127.0.0.1:9/x.png'>")
    _, log = browse(tmp_path, tmp_path / "page.html", "--dump-dom")
    assert errors_in(log)


def browse(tmp_path: Path, page: Path, *options: str) -> tuple[str, str]:
    """What Chromium writes to its two streams."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def errors_in(log: str) -> list[str]:
    """The lines that the page's console has got."""
    return [line for line in log.splitlines() if re.search(r":CONSOLE[:(]", line)]
