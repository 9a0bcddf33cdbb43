"""Fingerprints: every field of the stage but those that do not decide a vector; hashes of what is loaded."""

from __future__ import annotations

import shutil
from dataclasses import fields, make_dataclass, replace

import pyarrow as pa
import pytest

from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.jobs import fingerprint as fp
from nemo_embed_dask.models import ModelRef

COLUMNS = pa.schema([("text", pa.string())])


def mark(stage):
    return fp.fingerprint(stage, {"weights": "w"}, COLUMNS, 10)


OTHER = {"text_field": "body", "max_chars": 9, "max_seq_length": 7, "embedding_pooling": "cls", "autocast": False,
         "revision": "abc", "embedding_field": "e"}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_what_decides_a_vector_differs(name):
    found = fp.differences(mark(EmbeddingCreatorStage()), mark(EmbeddingCreatorStage(**{name: OTHER[name]})))
    assert len(found) == 1 and found[0].startswith(f"settings.{name}: ")


def test_every_other_field_is_named_as_harmless():
    known = OTHER.keys() | fp._HOW
    later = {item.name for item in fields(EmbeddingCreatorStage)} - known
    settings = mark(EmbeddingCreatorStage())["settings"]
    assert later <= settings.keys(), "a new field must be part of the fingerprint by itself"


def test_a_field_that_a_stage_gains_is_part_of_it():
    more = make_dataclass(
        "More", [("prompt", str, "")], bases=(EmbeddingCreatorStage,), frozen=True, kw_only=True
    )
    assert fp.differences(mark(more()), mark(replace(more(), prompt="query: ")))


def test_secrets_are_not_in_it():
    assert "hf_x" not in str(mark(EmbeddingCreatorStage(hf_token="hf_x")))


def test_digests_see_weights_and_tokenizer_apart(tiny, tmp_path):
    first = fp.model_digests(ModelRef(str(tiny("bert"))))
    moved = shutil.copytree(tiny("bert"), tmp_path / "moved")
    assert fp.model_digests(ModelRef(str(moved))) == first
    other = shutil.copytree(tiny("bert"), tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    second = fp.model_digests(ModelRef(str(other)))
    assert second["weights"] == first["weights"] and second != first
