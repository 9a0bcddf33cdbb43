"""CONTRIBUTING.md and the docs match the repository: rooms of the map, terms, import layers, paths, links."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import click
import pytest

import nemo_embed_dask
from nemo_embed_dask.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nemo_embed_dask"
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# A path starts in the root of the repository or in the package.
PATH = re.compile(
    r"(?<![\w/.*:-])((?:[\w-]+/)*[\w.*-]+\.(?:py|md|sh|ipynb|yml|toml|png)|(?:[\w-]+/)+)(?![\w/])"
)
# An address of this project's site or of a file of its repository.
ADDRESS = re.compile(
    r"https://(?:(?P<site>nemo-embed-dask\.github\.io/nemo-embed-dask/)"
    r"|github\.com/nemo-embed-dask/nemo-embed-dask/(?:blob|tree)/main/"
    r"|raw\.githubusercontent\.com/nemo-embed-dask/nemo-embed-dask/main/)(?P<path>[\w./-]*)"
)
TOP_FOLDERS = {"nemo_embed_dask", "tests", "benchmarks", "docs", "examples"}
# A file in the root of the repository, by its usual spelling.
ROOT_FILE = re.compile(r"[A-Z_]{4,}\.md|pyproject\.toml|mkdocs\.yml|environment\.yml|noxfile\.py")
# A log keeps the names that modules had on the date of an entry.
FORMER = {"LOG.md": {"runtimes/linear.py"}}
FOLDERS_OF_CODE = (PACKAGE, ROOT / "benchmarks", ROOT / "examples", ROOT / ".github")
SOURCES = [
    *sorted(
        path
        for folder in FOLDERS_OF_CODE
        for ending in ("py", "sh", "yml", "md")
        for path in folder.rglob(f"*.{ending}")
    ),
    ROOT / "pyproject.toml",
    ROOT / "environment.yml",
]
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def code_block_after(text: str, line: str) -> str:
    """Return the content of the first code block after a line."""
    return text.partition(line)[2].split("```")[1].partition("\n")[2]


def rooms_of_the_map() -> set[str]:
    """Return the rooms in the map of CONTRIBUTING.md as paths inside the package."""
    rooms, folders = set(), [""]
    for line in code_block_after(GUIDE, "<!-- map:").splitlines()[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [folders[depth - 1] + name]
        rooms.add(folders[depth])
    return rooms


def rooms_of_the_package() -> set[str]:
    """Return the modules in the root of the package, and all its folders."""
    modules = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("*/__init__.py")}
    return modules | folders - {"./"}


def test_the_map_has_exactly_the_rooms_of_the_package():
    assert rooms_of_the_map() == rooms_of_the_package()


def test_there_are_at_most_15_terms():
    rows = GUIDE.partition("<!-- terms -->\n")[2].partition("\n\n")[0].splitlines()[2:]
    terms = [row.split("|")[1].strip() for row in rows]
    assert 0 < len(terms) <= 15
    assert len(terms) == len(set(terms))


def test_the_layers_are_those_of_the_import_linter():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    package, jobs = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = code_block_after(GUIDE, "## Import layers").splitlines()
    layers = [re.split(r"\s{4,}", line)[0].split() for line in lines]
    assert layers == [layer.strip("()").split(" | ") for layer in package]
    assert [layer.split(", ") for layer in lines[1].split("    ")[-1].strip().split(" > ")] == [
        layer.split(" | ") for layer in jobs
    ]


def paths_in(page: Path) -> set[str]:
    """Return the paths of the repository that a file names, in text, code and links."""
    text = page.read_text(encoding="utf-8").replace(code_block_after(GUIDE, "<!-- map:"), "")
    found = {path.removeprefix("../") for path in PATH.findall(text)}
    return {
        path for path in found if path.partition("/")[0] in TOP_FOLDERS | ROOMS or ROOT_FILE.fullmatch(path)
    }


def missing_paths(page: Path) -> set[str]:
    """Return the paths that a file names, and that neither the repository nor the package has."""
    return {
        path
        for path in paths_in(page) - FORMER.get(page.name, set())
        if not any(any(folder.glob(path.rstrip("/"))) for folder in (ROOT, PACKAGE))
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_the_repository_exists(page):
    assert not missing_paths(page)


def test_every_path_in_docstrings_comments_and_the_log_exists():
    missing = {str(file.relative_to(ROOT)): paths for file in SOURCES if (paths := missing_paths(file))}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_exists(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = {link for link in links if "://" not in link and not (page.parent / link).exists()}
    assert not missing


def missing_addresses(text: str) -> set[str]:
    """Return the addresses of this project in a text that no page or file has."""
    missing = set()
    for match in ADDRESS.finditer(text):
        path = match["path"].strip("/")
        pages = [ROOT / f"docs/{path}.md", ROOT / "docs" / path / "index.md"]
        if not any(page.exists() for page in (pages if match["site"] else [ROOT / path])):
            missing.add(match[0])
    return missing


@pytest.mark.parametrize("page", [*PAGES, ROOT / "pyproject.toml"], ids=lambda page: page.name)
def test_every_address_of_this_project_exists(page):
    assert not missing_addresses(page.read_text(encoding="utf-8"))


def test_missing_addresses_are_found():
    site, files = (
        "https://nemo-embed-dask.github.io/nemo-embed-dask/",
        "https://github.com/nemo-embed-dask/nemo-embed-dask/",
    )
    right = f"[a]({site}) {site}guide/jobs/ {site}reference/ {files}blob/main/README.md"
    assert missing_addresses(f"{right} {site}guide/job/ {files}blob/main/READ.md") == {
        f"{site}guide/job/",
        f"{files}blob/main/READ.md",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_are_valid_and_import_public_names(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "nemo_embed_dask":
                assert {alias.name for alias in node.names} <= {*nemo_embed_dask.__all__, "crossfit"}


def flags_of(command: click.Command) -> set[str]:
    """Return the flags of a command and of its subcommands."""
    found = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}
    for part in getattr(command, "commands", {}).values():
        found |= flags_of(part)
    return found


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda page: page.name)
def test_every_flag_of_the_command_exists(page):
    """Flags in lines that call nemo-embed."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    calls = re.findall(r"nemo-embed (.*)", text)
    flags = {flag for call in calls for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", call)}
    assert flags <= flags_of(main) | {"--version", "--help"}


def test_paths_are_found_in_text():
    text = "see `tests/test_engine.py`, nemo_embed_dask/frames/cudf*.py; [a](docs/guide/jobs.md) or `tests/gpu/`, not a/b"
    assert set(PATH.findall(text)) == {
        "tests/test_engine.py",
        "nemo_embed_dask/frames/cudf*.py",
        "docs/guide/jobs.md",
        "tests/gpu/",
    }
