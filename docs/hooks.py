"""Hooks of mkdocs: links and pictures outside of docs/, and pages that are files outside of docs/.

Links in docs/ and in CONTRIBUTING.md work on GitHub. On the site, a link to a page of the site stays, a picture
is copied to the site, and any other link to a file of the repository leads to GitHub.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = Path(__file__).resolve().parent
# A link or a picture with a relative address: its text, and the address without the part after "#".
LINK = re.compile(r"(!?\[[^]]*\]\()(?![a-z]+:|#|/)([^)#\s]+)")
INCLUDE = re.compile(r"<!-- include: (\S+) -->")
# Files outside of docs/ that the site has, and where.
MOVED = {
    ROOT / "CHANGELOG.md": "project/changelog.md",
    ROOT / "CONTRIBUTING.md": "project/contributing.md",
    ROOT / "benchmarks/results/cpu.png": "pictures/cpu.png",
}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pictures that pages show, and that are outside of docs/."""
    for path, place in MOVED.items():
        if path.suffix == ".png":
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Insert the files that a page includes, and point links to files outside of docs/ to GitHub."""
    source = DOCS / page.file.src_uri

    def include(match: re.Match[str]) -> str:
        file = ROOT / match[1]
        return _move_links(file.read_text(encoding="utf-8"), file, source, config["repo_url"])

    text = _move_links(markdown, source, source, config["repo_url"])
    return INCLUDE.sub(include, text)


def _move_links(text: str, old: Path, new: Path, repo_url: str) -> str:
    """Return a text of the file ``old`` with links that work in the page ``new``."""

    def move(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(old.parent / match[2]))
        if not target.exists():
            return match[0]  # not a link, or a broken one, which mkdocs reports
        if target in MOVED:
            target = DOCS / MOVED[target]
        if target.is_relative_to(DOCS):
            return match[1] + os.path.relpath(target, new.parent)
        kind = "tree" if target.is_dir() else "blob"
        return f"{match[1]}{repo_url}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    return LINK.sub(move, text)
