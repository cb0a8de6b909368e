"""Hooks of mkdocs: the README is the site's start page, and links are turned from the repository's to the site's."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^]]*)]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as index.md."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=LINK.sub(_from_readme, text)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn the links of a page in docs/ to the README and to other files of the repository."""
    return LINK.sub(lambda link: _from_docs(link, page.file.src_uri.count("/")), markdown)


def _from_readme(link: re.Match[str]) -> str:
    target = link[3]
    if target.startswith("docs/"):
        return f"{link[1]}[{link[2]}]({target.removeprefix('docs/')})"
    return link[0] if re.match(r"https?:|#", target) else _named(link)


def _from_docs(link: re.Match[str], depth: int) -> str:
    up = "../" * (depth + 1)
    target = link[3]
    if not target.startswith(up):
        return link[0]
    target = target.removeprefix(up)
    if target.split("#")[0] == "README.md":
        return f"{link[1]}[{link[2]}]({'../' * depth}index.md{target.removeprefix('README.md')})"
    return _named(link)


def _named(link: re.Match[str]) -> str:
    """A file of the repository that is no page: its name, without a link."""
    return link[2]
