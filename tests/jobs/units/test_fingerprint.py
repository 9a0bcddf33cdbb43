"""Fingerprints: every field of the stage but those that do not decide a vector; hashes of what is loaded."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, make_dataclass, replace

import pyarrow as pa
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, ModelError, device
from nemo_embed_dask.engine.digests import model_digests
from nemo_embed_dask.jobs.units import fingerprint as fp
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.number_types import Calibration
from nemo_embed_dask.options import option_of
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.vectors import quantization as storage

COLUMNS = pa.schema([("text", pa.string())])


def mark(stage):
    return fp.fingerprint(stage, {"weights": "w"}, COLUMNS, 10)


OTHER = {"text_field": "body", "max_chars": 9, "max_seq_length": 7, "embedding_pooling": "cls",
         "revision": "abc", "embedding_field": "e"}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_decides_a_vector_differs(name):
    found = fp.differences(mark(EmbeddingCreatorStage()), mark(EmbeddingCreatorStage(**{name: OTHER[name]})))
    assert len(found) == 1 and found[0].startswith(f"settings.{name}: ")


KEEPS_VECTORS = {
    "use_sentence_transformer",  # the pooling says it
   "hf_token", "cache_dir", "overwrite", "on_error", "model_inference_batch_size", "sort_by_length",
                 "padding_side", "share_equal_texts", "tokenizer", "compile",
                 "transformers_init_kwargs"}  # fmt: skip
BY_CONTENT = {"calibration", "adapter", "autocast", "model_identifier", "trust_remote_code", "code_revision"}


def test_every_other_parameter_is_in_it():
    settings = mark(EmbeddingCreatorStage())["settings"]
    every = {item.name for item in fields(EmbeddingCreatorStage)}
    assert settings.keys() == every - KEEPS_VECTORS - BY_CONTENT | {"calibration"}
    assert {
        item.name for item in fields(EmbeddingCreatorStage) if option_of(item).keeps_vectors
    } == KEEPS_VECTORS
    assert {item.name for item in fields(EmbeddingCreatorStage) if option_of(item).by_content} == BY_CONTENT


def test_its_bytes_are_those_of_the_first_version():
    """A job that was started by that version can be continued."""
    stage = EmbeddingCreatorStage(long_documents="mean", overlap=3, extra_embeddings=("small:8:binary",))
    whole = mark(stage) | {"nemo_embed_dask": "0.1.0"}
    assert json.dumps(whole) == FIRST_VERSION


FIRST_VERSION = (
    '{"model": {"name": "sentence-transformers/all-MiniLM-L6-v2", "weights": "w"}, "settings": {"text_field": "text", '
    '"embedding_field": "embeddings", "max_chars": null, "max_seq_length": null, "embedding_pooling": "mean_pooling", '
    '"revision": null, "normalize": null, "prompt": null, "prompt_name": null, "truncate_dim": null, '
    '"embedding_dtype": "float32", "extra_embeddings": ["small:8:binary"], "long_documents": "mean", "overlap": 3, '
    '"n_tokens_field": null, "truncated_field": null, "runtime": "torch", "calibration": null}, "columns": '
    '{"text": "string"}, "rows_per_part": 10, "layout": 2, "nemo_embed_dask": "0.1.0"}'
)


def test_a_field_that_a_stage_gains_is_part_of_it():
    more = make_dataclass(
        "More", [("prompt", str, "")], bases=(EmbeddingCreatorStage,), frozen=True, kw_only=True
    )
    assert fp.differences(mark(more()), mark(replace(more(), prompt="query: ")))


def test_secrets_are_not_in_it():
    assert "hf_x" not in str(mark(EmbeddingCreatorStage(hf_token="hf_x")))


def test_digests_see_weights_and_tokenizer_apart(tiny, tmp_path):
    first = digests(tiny("bert"))
    moved = shutil.copytree(tiny("bert"), tmp_path / "moved")
    assert digests(moved) == first
    other = shutil.copytree(tiny("bert"), tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    second = digests(other)
    assert second["weights"] == first["weights"] and second != first


def test_a_directory_in_the_cache_is_named_after_its_repository(tmp_path):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    assert mark(EmbeddingCreatorStage(model_identifier=str(snapshot)))["model"]["name"] == "some/model"
    assert mark(EmbeddingCreatorStage(model_identifier=str(tmp_path)))["model"]["name"] == tmp_path.name


def test_files_that_are_not_read_do_not_count(tiny, tmp_path):
    """Programs differ in which of them they download."""
    more = shutil.copytree(tiny("bert"), tmp_path / "more")
    (more / "onnx").mkdir()
    (more / "onnx" / "config.json").write_text("{}")
    (more / "model.fp16.safetensors").write_text("not read beside model.safetensors")
    assert digests(more) == digests(tiny("bert"))
    config = json.loads((more / "config.json").read_text())
    (more / "config.json").write_text(json.dumps({**config, "transformers_weights": "model.fp16.safetensors"}))
    assert digests(more)["weights"] != digests(tiny("bert"))["weights"]


def digests(path, **more):
    return model_digests(Settings(ModelRef(str(path)), **more))


def test_the_number_type_counts_and_not_how_it_was_asked_for(tiny, monkeypatch):
    model = tiny("bert")
    assert digests(model, autocast=False)["computes_in"] == "float32"
    monkeypatch.setattr(device, "_has_bf16", lambda _: True)
    assert (
        digests(model)["computes_in"] == "bfloat16"
        and digests(model, autocast=False)["computes_in"] == "float32"
    )
    monkeypatch.setattr(device, "_has_bf16", lambda _: False)
    assert digests(model) == digests(model, autocast=False), "float32 is float32, whoever wanted it"
    assert mark(EmbeddingCreatorStage()) == mark(EmbeddingCreatorStage(autocast=False))


def test_an_adapter_counts_by_its_content(tiny, tmp_path):
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for folder, content in ((one, b"a"), (same, b"a"), (other, b"b")):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(content)
    model = tiny("bert")
    assert digests(model, adapter=str(one)) == digests(model, adapter=str(same)) != digests(model)
    assert digests(model, adapter=str(one))["adapter"] != digests(model, adapter=str(other))["adapter"]
    assert mark(EmbeddingCreatorStage(adapter=str(one))) == mark(EmbeddingCreatorStage(adapter=str(same)))
    with pytest.raises(ModelError, match="not a directory with an adapter"):
        digests(model, adapter=str(tmp_path / "none"))


def test_a_calibration_counts_by_its_content(tmp_path):
    def stage(name, low):
        calibration = Calibration((((low,), (1.0,)),), ())
        storage.save_calibration(tmp_path / name, calibration, rows=5, model="m")
        return EmbeddingCreatorStage(embedding_dtype="int8", calibration=str(tmp_path / name))

    first = mark(stage("a.json", 0.0))
    assert first == mark(stage("b.json", 0.0))
    assert [said.split(":")[0] for said in fp.differences(first, mark(stage("a.json", 0.5)))] == [
        "settings.calibration"
    ]
