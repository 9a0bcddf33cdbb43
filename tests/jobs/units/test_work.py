"""Work on units: all parts of a job have the model that the job was planned with."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
import transformers

from nemo_embed_dask import JobError, embed_parquet
from nemo_embed_dask.jobs.units import work
from nemo_embed_dask.stages.tasks import EmbedTask

from ...helpers import faults


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_job_stops_if_its_model_is_saved_again(when, model, source, tmp_path, monkeypatch):
    path = shutil.copytree(model, tmp_path / "model")

    def save_again():
        changed = transformers.AutoModel.from_pretrained(path)
        with torch.no_grad():
            changed.embeddings.word_embeddings.weight.mul_(-1)
        changed.save_pretrained(path)

    if when == "before":
        inner = work.check_unchanged
        monkeypatch.setattr(work, "check_unchanged", lambda *a: (save_again(), inner(*a))[1])
    else:
        embed = EmbedTask.embed
        monkeypatch.setattr(
            EmbedTask, "embed", lambda self, texts: (save_again() if texts else None, embed(self, texts))[1]
        )
    with pytest.raises(JobError, match="changed while the job ran.*run the same command again"):
        embed_parquet(faults.stage(path), str(source), str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_job_continues_if_only_the_times_of_the_model_s_files_change(model, source, tmp_path, monkeypatch):
    path, embed = shutil.copytree(model, tmp_path / "model"), EmbedTask.embed

    def touch_and_embed(self, texts):
        for file in path.iterdir():
            os.utime(file)
        return embed(self, texts)

    monkeypatch.setattr(EmbedTask, "embed", touch_and_embed)
    assert embed_parquet(faults.stage(path), str(source), str(tmp_path / "out")).complete
