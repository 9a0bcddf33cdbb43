"""Run the tests and the checks in environments of their own: ``pip install "nox[uv]"``, then ``nox -s NAME``.

``nox --list`` shows the sessions; what follows ``--`` is passed to pytest or to mkdocs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import nox
from packaging.requirements import Requirement

NAME, PYTHONS = "nemo-embed-dask", ["3.11", "3.12", "3.13"]
# What depends on the versions of the libraries, and takes little time.
SHORT = (
    "tests/frames",
    "tests/stages/test_creator.py",
    "tests/stages/test_mapping.py",
    "tests/jobs/schema",
    "tests/jobs/test_run.py",
    "tests/models/test_weights.py",
    "tests/tokens/test_loading.py",
    "tests/runtimes/test_packed_attention.py",
)

# uv finds old versions that fit together in seconds; pip takes minutes.
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", f"tests-{PYTHONS[0]}"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests with the newest versions."""
    session.install("-e", ".[test]")
    _run_pytest(session, *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run all tests with the newest versions and the newest Python: another name for the last of `tests`."""
    session.notify(f"tests-{PYTHONS[-1]}", session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run all tests with the lowest versions that pyproject.toml allows."""
    _install_lowest(session, *_lower_bounds())
    _run_pytest(session, *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest_short(session: nox.Session) -> None:
    """Run some tests with the lowest versions of all but torch, whose wheel CI already has."""
    bounds = [bound for bound in _lower_bounds() if not bound.startswith("torch==")]
    _install_lowest(session, "torch==2.13.0", *bounds)
    _run_pytest(session, "-n", "2", "--dist", "loadfile", *(session.posargs or SHORT))


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Run the linters and the type checker."""
    session.install("-e", ".[test]")
    for command in ("ruff check .", "ruff format --check .", "mypy", "lint-imports"):
        session.run(*command.split())


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


def _run_pytest(session: nox.Session, *arguments: str) -> None:
    session.run("python", "-m", "pytest", "-q", *arguments)


def _install_lowest(session: nox.Session, *bounds: str) -> None:
    """Install the package and these versions; a bound that another library's bound contradicts is an error."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    constraints.write_text("\n".join(bounds))
    session.install("-c", str(constraints), "-e", ".[test]")


def _lower_bounds() -> Iterator[str]:
    """Yield a constraint for every lower bound of the package and its extras; tools for tests have none."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {extra for line in extras["test"] for extra in Requirement(line).extras if line.startswith(NAME)}
    for group in (project["dependencies"], *(extras[name] for name in sorted(named - {"docs"}))):
        for requirement in map(Requirement, group):
            for specifier in requirement.specifier:
                if specifier.operator in {">=", "=="}:
                    yield f"{requirement.name}=={specifier.version}"
