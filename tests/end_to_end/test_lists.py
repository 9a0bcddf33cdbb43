"""Token vectors and weighted tokens instead of one vector per row: frames, Dask, jobs, errors.

That the values are those of ColBERT and SPLADE models is tested in `test_colbert` and `test_splade`.
"""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from nemo_embed_dask import (
    EmbeddingCreatorStage,
    TokenizerStage,
    calibrate,
    embed,
    embed_parquet,
    plan,
    verify,
)
from nemo_embed_dask.errors import ColumnError, ConfigError, RowError
from nemo_embed_dask.vectors.token_head import TokenHead

from ..helpers.cards import TEXTS

FLOATS = "list<item: list<item: float>>[pyarrow]"


@pytest.fixture(scope="module")
def frame():
    texts = [TEXTS[0], None, *TEXTS[1:], TEXTS[0], TEXTS[0]]
    return pd.DataFrame({"text": pd.array(texts, "string"), "id": range(len(texts))}, index=range(5, 16))


@pytest.fixture(scope="module")
def expected(tiny, frame):
    """The token states of each text by plain transformers, one text at a time, scaled to unit length."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny("bert")), AutoModel.from_pretrained(tiny("bert"))

    def states(text):
        with torch.inference_mode():
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
            return torch.nn.functional.normalize(model(**inputs).last_hidden_state[0], dim=1).numpy()

    return [None if pd.isna(text) else states(text) for text in frame.text]


def options_of(tiny, **changes):
    return {
        "model_identifier": str(tiny("bert")),
        "autocast": False,
        "embedding_pooling": "none",
        "max_seq_length": 32,
        **changes,
    }


def check(column, expected):
    rows = column.tolist()
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        if wanted is None:
            assert row is pd.NA or row is None
        else:
            np.testing.assert_allclose(np.stack(row), wanted, atol=1e-5)


def test_token_vectors_are_those_of_each_text_alone(tiny, frame, expected):
    out = embed(frame, n_tokens_field="n", truncated_field="cut", **options_of(tiny))
    assert out.embeddings.dtype == FLOATS
    assert out.index.equals(frame.index)
    assert [*out] == ["text", "id", "embeddings", "n", "cut"]
    assert out.n.tolist() == [0 if rows is None else len(rows) for rows in expected]
    check(out.embeddings, expected)


@pytest.mark.parametrize("share", [True, False])
def test_dask_has_the_same_values_and_types(share, tiny, frame, expected, tmp_path):
    lazy = embed(dd.from_pandas(frame, npartitions=3), share_equal_texts=share, **options_of(tiny))
    assert lazy.dtypes.embeddings == FLOATS
    out = lazy.compute()
    assert out.dtypes.equals(lazy.dtypes)
    check(out.embeddings, expected)
    lazy.to_parquet(tmp_path / "vectors")
    check(pq.read_table(tmp_path / "vectors")["embeddings"].to_pandas(), expected)
    back = pd.read_parquet(tmp_path / "vectors")
    assert back.embeddings.dtype == FLOATS
    shuffled = dd.from_pandas(out, npartitions=2).shuffle("id").compute()
    check(shuffled.sort_values("id").embeddings, expected)


def test_the_two_stages_give_the_same(tiny, frame, expected):
    first, second = EmbeddingCreatorStage(**options_of(tiny)).decompose()
    assert isinstance(first, TokenizerStage)
    check(second(first(frame)).embeddings, expected)


def test_half_precision_and_fewer_dimensions(tiny, frame, expected):
    out = embed(frame, truncate_dim=8, embedding_dtype="float16", **options_of(tiny))
    assert out.embeddings.dtype == "list<item: list<item: halffloat>>[pyarrow]"
    for row, wanted in zip(out.embeddings.tolist(), expected, strict=True):
        if wanted is not None:
            short = wanted[:, :8] / np.linalg.norm(wanted[:, :8], axis=1, keepdims=True)
            np.testing.assert_allclose(np.stack(row), short, atol=1e-3)
    plain = embed(frame, normalize=False, truncate_dim=8, **options_of(tiny)).embeddings
    assert np.linalg.norm(np.stack(plain.iloc[0]), axis=1).std() > 0.01


def test_one_row_per_window(tiny, frame):
    options = options_of(tiny, max_seq_length=16, n_tokens_field="n", long_documents="explode")
    out = embed(frame, **options)
    assert len(out) > len(frame)
    assert [0 if row is pd.NA else len(row) for row in out.embeddings] == out.n.tolist()


def test_jobs_write_the_same_lists(tiny, frame, expected, tmp_path):
    frame.to_parquet(tmp_path / "in.parquet")
    report = embed_parquet(
        EmbeddingCreatorStage(**options_of(tiny)), tmp_path / "in.parquet", tmp_path / "out", rows_per_part=4
    )
    table = pq.read_table(tmp_path / "out")
    assert table.schema.field("embeddings").type == pa.list_(
        pa.field("element", pa.list_(pa.field("element", pa.float32())))
    )
    assert report.total.rows == len(frame)
    check(table["embeddings"].to_pandas(), expected)


def test_rows_that_fail_have_no_list(tiny, frame, monkeypatch):
    call = TokenHead.__call__

    def damaged(self, states, offsets, ids, **options):
        lists = call(self, states, offsets, ids, **options)
        lists.columns[""][: lists.offsets[1]] = torch.nan
        return lists

    monkeypatch.setattr(TokenHead, "__call__", damaged)
    alone = options_of(tiny, model_inference_batch_size=1)
    with pytest.raises(RowError, match="NaN or infinite"):
        embed(frame, **alone)
    out = embed(frame.iloc[:4], on_error="null", share_equal_texts=False, **alone)
    assert out.embeddings.isna().all()


def test_float16_that_overflows_fails_the_row(tiny, frame, monkeypatch):
    call = TokenHead.__call__

    def large(self, *args, **options):
        lists = call(self, *args, **options)
        lists.columns[""][lists.offsets[1] - 1] = 1e6
        return lists

    monkeypatch.setattr(TokenHead, "__call__", large)
    options = options_of(tiny, model_inference_batch_size=1, embedding_dtype="float16")
    with pytest.raises(RowError, match="float16 cannot hold"):
        embed(frame.iloc[:1], **options)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("long_documents", {"long_documents": "mean"}),
        ("embedding_dtype", {"embedding_dtype": "int8"}),
        ("extra_embeddings", {"extra_embeddings": ("small:8:float32",)}),
        ("truncate_dim", {"embedding_pooling": "splade", "truncate_dim": 8}),
        ("normalize", {"embedding_pooling": "splade", "normalize": True}),
    ],
)
def test_what_lists_cannot_have_is_refused(name, changes, tiny):
    with pytest.raises(ConfigError, match=f"gives a list per row and not one vector, so {name}"):
        EmbeddingCreatorStage(**options_of(tiny, **changes))


def test_checks_say_what_they_can_compare(tiny, frame, tmp_path):
    stage = EmbeddingCreatorStage(**options_of(tiny))
    with pytest.raises(ConfigError, match="verify compares one vector per text"):
        verify(stage, ["a"])
    with pytest.raises(ConfigError, match="calibrate needs one vector per text"):
        calibrate(stage, ["a", "b"], tmp_path / "ranges.json")


def test_a_plan_counts_the_values_of_lists(tiny):
    texts = pd.DataFrame({"text": ["one two three four five six seven"] * 60})
    stage = EmbeddingCreatorStage(**options_of(tiny))
    found = plan(stage, texts, seconds=0, sample_rows=50)
    tokens = len(embed(texts.iloc[:1], **options_of(tiny)).embeddings.iloc[0])
    assert found.output == {"float32": 60 * tokens * 32 * 4, "float16": 60 * tokens * 32 * 2}


def test_names_of_weighted_tokens_must_be_free(tiny, frame):
    taken = frame.assign(embeddings_ids=1)
    with pytest.raises(ColumnError, match="'embeddings_ids' already"):
        embed(taken, **options_of(tiny, embedding_pooling="splade"))
