"""A calibration is a value: its file is read once, when the stage is created."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dask.base import tokenize
from distributed import Client

import nemo_embed_dask as ned
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, calibrate
from nemo_embed_dask.vectors.quantization import Calibration, load_ranges, save_ranges

from ..helpers import faults
from ..helpers.cards import TEXTS


@pytest.fixture
def file(tiny, tmp_path, monkeypatch):
    """Return a calibration file by its relative name, for the width of the tiny model."""
    monkeypatch.chdir(tmp_path)
    return calibrate(faults.stage(tiny("bert")), TEXTS * 3, Path("ranges.json"))


@pytest.fixture
def stage(tiny, file):
    return faults.stage(tiny("bert"), embedding_dtype="int8", calibration=str(file))


def test_a_stage_depends_on_the_content_and_not_on_the_path(stage, file):
    for same in (file, file.resolve(), stage.calibration):
        assert replace(stage, calibration=same) == stage
    assert stage.calibration == Calibration(load_ranges(file))
    key, (low, high) = tokenize(stage), stage.calibration.ranges[0]
    file.unlink()
    assert replace(stage, max_chars=5).settings.ranges == stage.settings.ranges
    assert replace(stage, max_chars=5).decompose()[1].calibration == stage.calibration
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert hash(pickle.loads(pickle.dumps(stage))) == hash(stage)
    for lowest, same in ((low, True), ((low[0] - 1, *low[1:]), False)):
        save_ranges("copy.json", ((lowest, high),), rows=3, model="another")
        other = replace(stage, calibration="copy.json")
        assert (other == stage) is (tokenize(other) == key) is same


def test_a_stage_s_repr_does_not_list_the_ranges(stage):
    assert "calibration=Calibration(widths=(32,))" in repr(stage)
    assert len(repr(stage)) < 2000


EMBED = """
import pickle, sys
from pathlib import Path
import numpy as np, pandas as pd
import nemo_embed_dask as ned
stage, texts = pickle.loads(Path(sys.argv[1]).read_bytes())
stage.setup_on_node()
stage.setup()
np.save(sys.argv[2], ned.to_matrix(stage(pd.DataFrame({"text": texts})).embeddings))
"""


def test_a_process_in_another_directory_needs_no_file(stage, file, tmp_path):
    expected = ned.to_matrix(stage(pd.DataFrame({"text": TEXTS})).embeddings)
    assert expected.dtype == np.int8
    (tmp_path / "stage").write_bytes(pickle.dumps((stage, TEXTS)))
    file.unlink()
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", EMBED, str(tmp_path / "stage"), str(tmp_path / "v.npy")], env=faults.environment(),
        cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), expected)


def test_workers_in_another_directory_need_no_file(stage, file, tmp_path):
    """A relative path does not exist in a worker's directory."""
    frame = pd.DataFrame({"text": TEXTS})
    expected = ned.to_matrix(stage(frame).embeddings)
    (tmp_path / "elsewhere").mkdir()
    cluster = faults.Cluster(tmp_path)
    try:
        cluster.start_scheduler()
        cluster.start_worker(cwd=tmp_path / "elsewhere")
        with Client(scheduler_file=str(cluster.file)) as client:
            client.wait_for_workers(1, timeout=60)
            ned.preload(stage, client)
            model = stage.decompose()[1]
            out = model(stage.decompose()[0](dd.from_pandas(frame, npartitions=2))).compute()
    finally:
        cluster.stop()
    np.testing.assert_array_equal(ned.to_matrix(out.embeddings), expected)


def test_the_command_line_takes_a_file(tiny, file, tmp_path):
    source = faults.write_inputs(tmp_path / "in", files=1)
    command = faults.job_command(
        source, "out", tiny("bert"), "--embedding-dtype", "int8", "--workers", "1", "--calibration", str(file)
    )
    process = faults.start(*command)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (
        str(pq.read_schema(next(Path("out").glob("*.parquet"))).field("embeddings").type.value_type) == "int8"
    )


@pytest.mark.parametrize(
    "content",
    ["{", "{}", '{"ranges": [[[0], [1, 2]]]}', '{"ranges": [[[NaN], [1]]]}', '{"ranges": [[[2], [1]]]}'],
)
def test_an_invalid_file_is_refused_when_the_stage_is_created(tmp_path, content):
    (tmp_path / "r.json").write_text(content)
    for wrong in (tmp_path / "r.json", str(tmp_path / "r.json"), tmp_path / "none.json", 7):
        with pytest.raises(ConfigError, match=r"calibration=.*cannot be read"):
            EmbeddingCreatorStage(embedding_dtype="int8", calibration=wrong)
