"""Sources that contain the target, in every spelling: what a job wrote is never its input."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemo_embed_dask.errors import JobError
from nemo_embed_dask.jobs.files.inputs import find_inputs
from nemo_embed_dask.jobs.files.target import Target

from .test_search import make


def names(source: str | Path, target: str | Path) -> list[str]:
    return [Path(file.address).name for file in find_inputs([str(source)], Target(str(target)), {})[0]]


@pytest.mark.parametrize("spelled", [
    "{0}/in", "{0}/in/", "{0}//in", "{0}/in/../in", "{0}/./in", "file://{0}/in", "{0}/link", "{0}/link/", "{0}/up/in", "in",
    "./in/", "link", "local://{0}/in",
])  # fmt: skip
def test_the_target_is_refused_as_source_in_every_spelling(spelled, tmp_path, monkeypatch):
    make(tmp_path / "in" / "a.parquet")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "up").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    for source, target in (
        (spelled.format(tmp_path), str(tmp_path / "in")),
        (str(tmp_path / "in"), spelled.format(tmp_path)),
    ):
        with pytest.raises(JobError, match="both source and target"):
            find_inputs([source], Target(target), {})


@pytest.mark.parametrize(
    "target", ["{0}/in/out", "{0}/link/out", "{0}/in/sub/../out/", "{0}/outlink", "file://{0}/in/out"]
)
@pytest.mark.parametrize("source", ["{0}/in", "{0}/link", "{0}/in/*", "{0}/link/*", "{0}/in/**/*.parquet"])
def test_a_target_in_the_source_is_left_out(source, target, tmp_path):
    make(tmp_path / "in" / "a.parquet")
    make(tmp_path / "in" / "out" / "part.parquet")
    make(tmp_path / "in" / "out2" / "b.parquet")
    (tmp_path / "in" / "to-part.parquet").symlink_to("out/part.parquet")
    (tmp_path / "in" / "to-out").symlink_to("out")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "outlink").symlink_to("in/out")
    assert names(source.format(tmp_path), target.format(tmp_path)) == ["a.parquet", "b.parquet"]


def test_a_source_in_the_target_is_refused(tmp_path):
    make(tmp_path / "out" / "part.parquet")
    with pytest.raises(JobError, match="that the job itself wrote to the target"):
        names(tmp_path / "out" / "part.parquet", tmp_path / "out")
    with pytest.raises(JobError, match="that the job itself wrote to the target"):
        names(tmp_path / "out" / "*.parquet", tmp_path / "out")
    with pytest.raises(JobError, match="has no input"):
        names(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(JobError, match="has no input"):
        names(tmp_path / "empty", tmp_path / "out")
