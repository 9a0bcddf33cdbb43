"""A calibration is a value: its file is read once, when the stage is created."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import transformers
from dask.base import tokenize
from distributed import Client
from safetensors.torch import load_file, save_file

import nemo_embed_dask as ned
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, calibrate, device, to_matrix
from nemo_embed_dask.vectors.quantization import load_calibration, save_calibration

from ..helpers import faults
from ..helpers.cards import TEXTS, build, rewrite


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
    assert stage.calibration == load_calibration(file)
    key, (low, high) = tokenize(stage), stage.calibration.ranges[0]
    file.unlink()
    assert replace(stage, max_chars=5).settings.ranges == stage.settings.ranges
    assert replace(stage, max_chars=5).decompose()[1].calibration == stage.calibration
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert hash(pickle.loads(pickle.dumps(stage))) == hash(stage)
    for lowest, same in ((low, True), ((low[0] - 1, *low[1:]), False)):
        changed = replace(stage.calibration, ranges=((lowest, high),))
        save_calibration("copy.json", changed, rows=3, model="moved")
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


@pytest.mark.slow
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


OTHER = {
    "weights": {"model_identifier": "other weights"},
    "tokenizer_and_config": {"model_identifier": "other tokenizer"},
    "pooling": {"embedding_pooling": "cls"},
    "normalize": {"normalize": False},
    "prompt": {"prompt": "query: "},
    "adapter": {"adapter": "adapter"},
}


@pytest.fixture
def others(tiny, tmp_path):
    """Return models that differ from the tiny one in their weights, in their tokenizer, and by an adapter."""
    weights = shutil.copytree(tiny("bert"), tmp_path / "other weights") / "model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    tokenizer = shutil.copytree(tiny("bert"), tmp_path / "other tokenizer") / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("64", "63"))
    return tmp_path


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("output", [{"embedding_dtype": "int8"}, {"extra_embeddings": ("q:uint8",)}])
def test_a_calibration_of_other_vectors_is_refused(name, output, stage, others, monkeypatch):
    changes = OTHER[name]
    if name == "adapter":
        adapter_of(stage.model_identifier, others / "adapter")
    other = replace(stage, embedding_dtype="float32", **changes)
    frame = pd.DataFrame({"text": TEXTS})
    expected = to_matrix(other(frame).embeddings)
    wrong = replace(other, **output)
    tokens = wrong.decompose()[0](frame)
    for run in (
        lambda: wrong(frame), wrong.setup, lambda: wrong.decompose()[1](tokens),
        lambda: wrong(dd.from_pandas(frame, npartitions=2)).compute(scheduler="sync"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"stage: {name} was '?[^;]* and is '?[^;]*\. Make one"):
            run()
    np.testing.assert_array_equal(to_matrix(other(frame).embeddings), expected)  # its ranges are not used
    right = replace(wrong, calibration=calibrate(other, TEXTS * 3, "right.json"))
    assert right(frame)[right.embedding_field if "embedding_dtype" in output else "q"].notna().all()


def adapter_of(model, path):
    peft = pytest.importorskip("peft")
    base = transformers.AutoModel.from_pretrained(model)
    peft.get_peft_model(
        base, peft.LoraConfig(target_modules=["query"], init_lora_weights=False)
    ).save_pretrained(path)


def test_all_differences_are_named_with_both_values(stage):
    wrong = replace(stage, embedding_pooling="cls", prompt="query: ")
    match = r"pooling was 'mean_pooling' and is 'cls'; prompt was '' and is 'query: '\. .* calibrate\(stage"
    with pytest.raises(ConfigError, match=match):
        wrong(pd.DataFrame({"text": TEXTS}))


def test_settings_are_compared_by_what_they_do(stage, tmp_path, monkeypatch):
    """A moved copy, the same prompt by name, a pooling in two ways, and another number type are no differences."""
    moved = rewrite(
        build(Path(stage.model_identifier), tmp_path / "st", pooling="mean", normalize=True), tmp_path / "m",
        config_sentence_transformers={"prompts": {"q": "query: "}, "default_prompt_name": None},
    )  # fmt: skip
    first = faults.stage(moved, prompt="query: ")
    file = calibrate(first, TEXTS * 3, tmp_path / "r.json")
    same = replace(
        first, model_identifier=str(shutil.copytree(moved, tmp_path / "moved")), prompt=None, prompt_name="q",
        embedding_pooling="auto", normalize=True, max_chars=30, max_seq_length=20, on_error="null",
        calibration=file, extra_embeddings=("q:int8",),
    )  # fmt: skip
    frame = pd.DataFrame({"text": TEXTS})
    assert same(frame).q.notna().all()
    monkeypatch.setattr(device, "_has_bf16", lambda _: True)
    assert replace(same, autocast=True)(frame).q.notna().all()
    with pytest.raises(ConfigError, match="stage: prompt was 'query: ' and is ''"):
        replace(same, prompt_name=None)(frame)


def test_ranges_of_another_model_would_saturate(stage, others):
    """Why a calibration is compared: without that, half of the values are the first or the last step."""
    wrong = replace(stage, normalize=False, calibration=None)
    made_for = load_calibration(calibrate(wrong, TEXTS * 3, "right.json")).made_for
    forced = replace(wrong, calibration=replace(stage.calibration, made_for=made_for))
    values = to_matrix(forced(pd.DataFrame({"text": TEXTS})).embeddings)
    assert np.isin(values, (-128, 127)).mean() > 0.5
