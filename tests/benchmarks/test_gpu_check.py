"""The tests and scripts for a machine with a GPU, as far as they can be checked without one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.names import wrong_names

ROOT = Path(__file__).resolve().parents[2]
FOR_GPUS = sorted(
    [*ROOT.glob("tests/gpu/*.py"), *ROOT.glob("benchmarks/gpu/*.py"), ROOT / "benchmarks" / "bench_gpu.py"]
)


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_of_ours_exists_and_every_call_fits(path):
    assert wrong_names(path) == []


def test_a_stale_name_and_a_stale_call_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.names.ROOT", tmp_path)
    code = """
        from nemo_embed_dask import engine, nothing
        from nemo_embed_dask.frames import cudf as ops
        from nemo_embed_dask.ragged import Ragged
        engine._gone(1)
        engine.embed_texts([], None, threads=2)
        engine.embed_texts([], None, n_threads=2)
        Ragged.from_rowz([])
        ops.gone(1)
    """
    (tmp_path / "m.py").write_text(re.sub(r"(?m)^ {8}", "", code))
    lines = {int(re.search(r"line (\d+)", line)[1]) for line in wrong_names(tmp_path / "m.py")}
    assert lines == {2, 5, 6, 8, 9}


def test_tests_of_gpus_are_rehearsed_on_the_cpu():
    """They run here with a few short texts and without what only a GPU has, so that they cannot become stale."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "--rehearse",
            "tests/gpu",
            "-p",
            "no:cacheprovider",
        ],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.search(r"(\d+) tests of GPUs passed on the CPU", done.stdout)[1]) >= 20
    assert "not rehearsed: " in done.stdout
