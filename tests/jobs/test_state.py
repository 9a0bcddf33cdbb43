"""Job results, error messages and exit codes do not depend on the progress display."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from nemo_embed_dask.cli.main import main
from nemo_embed_dask.errors import TargetError
from nemo_embed_dask.jobs import run
from nemo_embed_dask.jobs.report import REPORT
from nemo_embed_dask.jobs.units import work

from ..helpers import faults

TIMES = {"seconds", "tokenize_s", "model_s", "total_s", "read", "tokenize", "model", "write", "limit"}
RATES = {"documents_per_s", "tokens_per_s"}


class NoDisplay:
    """Has the methods of the display; they show nothing and count nothing."""

    def __init__(self, *_):
        """Take what the real display takes."""

    def warn_if_slow(self, *_):
        return nullcontext()

    def ignore(self, *_):
        """Do nothing."""

    info = warn = begin = tick = finished = end = ignore


def no_cluster(parameters, *_):
    """Run the job in this process, where its units can be made to fail."""
    for name in ("scheduler", "scheduler_file", "workers", "threads", "memory_limit"):
        parameters.pop(name)
    return nullcontext()


def without_times(figures):
    """A report without what differs from run to run."""
    if not isinstance(figures, dict):
        return figures
    return {name: without_times(value) for name, value in figures.items() if name not in TIMES | RATES}


@pytest.fixture(params=["all files are good", "one file is damaged", "the target fails after two parts"])
def ending(request, tmp_path, monkeypatch):
    """An input folder, and the exit code of a job over it."""
    folder = faults.write_inputs(tmp_path / "in", files=3)
    if request.param == "one file is damaged":
        (folder / "in-01.parquet").write_bytes(b"no Parquet")
        return folder, 1
    if request.param == "all files are good":
        return folder, 0
    embed_unit, calls = work.embed_unit, []

    def fail_after_two(unit, *more):
        calls.append(unit)
        if len(calls) % 3 == 0:
            raise TargetError("out cannot be written (disk full); free some space")
        return embed_unit(unit, *more)

    monkeypatch.setattr(work, "embed_unit", fail_after_two)
    return folder, 3


def test_report_and_exit_code_are_the_same_with_and_without_a_display(ending, tiny, tmp_path, monkeypatch):
    folder, code = ending
    flags = [str(folder), str(tmp_path / "out"), "--model-identifier", str(tiny("bert")), "--no-autocast"]
    monkeypatch.setattr("nemo_embed_dask.cli.main.cluster", no_cluster)
    seen = []
    for display in ("on", "off", "replaced"):
        if display == "replaced":
            monkeypatch.setattr(run, "Progress", NoDisplay)
        result = CliRunner().invoke(main, [*flags, *(["--quiet"] if display == "off" else [])])
        report = tmp_path / "out" / REPORT
        error = [line for line in result.stderr.splitlines() if line.startswith("nemo-embed: ")]
        figures = without_times(json.loads(report.read_text())) if report.exists() else None
        seen.append((result.exit_code, error, figures))
        (tmp_path / "out").rename(tmp_path / display)
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == code
    if code == 3:
        assert "2 of 3 parts are whole" in seen[0][1][0]
    else:
        assert seen[0][2]["parts_this_run"] == 3 - code
