"""Fixtures of jobs and their targets."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ...helpers import faults
from ...helpers.jobs import TEXTS, rows_of_job


@pytest.fixture(scope="module")
def model(tiny):
    return tiny("bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return faults.write_inputs(tmp_path_factory.mktemp("parts") / "in", files=2)


@pytest.fixture(scope="module")
def written_job(source, model, tmp_path_factory):
    """Return a complete target and its vectors."""
    target = tmp_path_factory.mktemp("parts") / "out"
    return target, faults.undisturbed(source, target, model)


@pytest.fixture
def target(written_job, tmp_path):
    """Return a copy of the complete target."""
    return shutil.copytree(written_job[0], tmp_path / "out", copy_function=shutil.copy2)


@pytest.fixture(scope="module")
def text_vectors(model, tmp_path_factory):
    """Return the vectors of `TEXTS`."""
    folder = tmp_path_factory.mktemp("plain")
    pq.write_table(pa.table({"text": TEXTS}), folder / "in.parquet")
    return rows_of_job(folder / "in.parquet", folder / "out", model)["embeddings"].to_pylist()
