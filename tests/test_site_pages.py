"""The documentation's site: how links of the repository become the site's. ``make docs`` builds it and is strict."""

import importlib.util
import re
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is in the dev extra")


@pytest.fixture(scope="module")
def site_pages():
    spec = importlib.util.spec_from_file_location("site_pages", "docs/site_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Page:
    def __init__(self, src_uri):
        self.file = self
        self.src_uri = src_uri


@pytest.mark.parametrize(
    ("page", "given", "expected"),
    [
        ("a.md", "[x](../README.md#part)", "[x](index.md#part)"),
        ("recipes/a.md", "[x](../../README.md)", "[x](../index.md)"),
        ("recipes/a.md", "[x](../evaluation.md#measured)", "[x](../evaluation.md#measured)"),
        ("a.md", "see [`x.py`](../benchmarks/x.py).", "see `x.py`."),
        ("a.md", "![p](regions.png) [y](https://example.org)", "![p](regions.png) [y](https://example.org)"),
    ],
)
def test_links_of_a_page(site_pages, page, given, expected):
    assert site_pages.on_page_markdown(given, Page(page), None, None) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[x](docs/scaling.md#interruptions)", "[x](scaling.md#interruptions)"),
        ("![x](docs/regions.png)", "![x](regions.png)"),
        ("[keys](projects/MGRe/mgre/config/keys.py)", "keys"),
        ("[below](#part)", "[below](#part)"),
    ],
)
def test_links_of_the_readme(site_pages, given, expected):
    assert site_pages.LINK.sub(site_pages._from_readme, given) == expected


def test_every_page_is_in_the_navigation():
    nav = set(re.findall(r": (\S+\.md)$", Path("mkdocs.yml").read_text(), re.MULTILINE))
    assert nav - {"index.md"} == {path.relative_to("docs").as_posix() for path in Path("docs").glob("**/*.md")}
