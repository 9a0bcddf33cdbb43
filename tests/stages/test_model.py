"""The contract that Curator published for its model stage, and where ours is better."""

from __future__ import annotations

import inspect
from dataclasses import replace

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from nemo_embed_dask import EmbeddingModelStage, RowError, TokenizerStage, to_matrix
from nemo_embed_dask.stages import ATTENTION_MASK_FIELD, INPUT_ID_FIELD, SEQ_ORDER_FIELD

from ..helpers.tiny import TEXT

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
BLOCK = torch.tensor(
    [[[1.0, 0.0], [2.0, 1.0], [3.0, 5.0], [999.0, 999.0]], [[4.0, 1.0], [5.0, 1.0], [6.0, 2.0], [7.0, 3.0]]]
)
EXPECTED = {"mean_pooling": [[2.0, 2.0], [5.5, 1.75]], "last_token": [[3.0, 5.0], [7.0, 3.0]]}


def test_parameters_and_defaults_are_curator_s():
    parameters = inspect.signature(EmbeddingModelStage).parameters
    expected = {
        "model_identifier": inspect.Parameter.empty, "embedding_field": "embeddings", "pooling": "mean_pooling",
        "hf_token": None, "model_inference_batch_size": 1024, "has_seq_order": True, "padding_side": "right",
        "autocast": True,
    }  # fmt: skip
    assert [*parameters][: len(expected)] == [*expected]
    assert {name: parameters[name].default for name in expected} == expected
    stage = EmbeddingModelStage("m", "v", "last_token", None, 7, False, "left", False)
    assert (stage.embedding_field, stage.pooling, stage.padding_side, stage.autocast) == (
        "v",
        "last_token",
        "left",
        False,
    )


@pytest.mark.parametrize("pooling", EXPECTED)
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_on_hand_made_tensors(pooling, side):
    stage = EmbeddingModelStage("test-model", pooling=pooling, padding_side=side)
    block, mask = BLOCK, MASK
    if side == "left":  # the same rows, padded in front
        block, mask = torch.roll(BLOCK, 1, dims=1), torch.roll(MASK, 1, dims=1)
        block[1], mask[1] = BLOCK[1], MASK[1]
    method = stage._mean_pooling if pooling == "mean_pooling" else stage._get_last_token
    expected = torch.nn.functional.normalize(torch.tensor(EXPECTED[pooling]), dim=1)
    for vectors in (method((block,), mask), stage.process_model_output((block,), {ATTENTION_MASK_FIELD: mask})):
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2), atol=1e-5, rtol=0)


def test_without_a_mask_every_cell_is_a_token():
    out = EmbeddingModelStage("m").process_model_output((BLOCK[1:],))
    torch.testing.assert_close(out, torch.nn.functional.normalize(BLOCK[1:].mean(dim=1), dim=1))


def test_collected_batches_become_a_float32_list_column():
    stage = EmbeddingModelStage("m", embedding_field="v")
    collected = stage.collect_outputs([torch.eye(2, dtype=torch.bfloat16), torch.ones(1, 2)])
    frame = stage.create_output_dataframe(pd.DataFrame({"id": [1, 2, 3]}, index=[9, 9, 8]), collected)
    assert frame.v.dtype == pd.ArrowDtype(pa.list_(pa.float32()))
    assert frame.index.tolist() == [9, 9, 8]
    np.testing.assert_array_equal(to_matrix(frame.v), [[1, 0], [0, 1], [1, 1]])


@pytest.fixture(scope="module")
def stages(tiny):
    name = str(tiny("bert"))
    return TokenizerStage(name), EmbeddingModelStage(name, autocast=False)


def test_tokens_travel_ragged_and_are_dropped(stages):
    tokenizer, model = stages
    frame = pd.DataFrame({"text": [*TEXT, None], "id": range(len(TEXT) + 1)})
    tokens = frame.pipe(tokenizer)
    assert tokens[INPUT_ID_FIELD].dtype == pd.ArrowDtype(pa.list_(pa.int32()))
    assert ATTENTION_MASK_FIELD not in tokens
    assert tokens[INPUT_ID_FIELD].isna().tolist() == [False] * len(TEXT) + [True]
    out = tokens.pipe(model)
    assert out.columns.tolist() == ["text", "id", "embeddings"]
    assert out.embeddings.isna().tolist() == [False] * len(TEXT) + [True]


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_curator_s_own_token_frames_are_understood(stages, lazy, side):
    """Padded Python lists, a mask, an order column: same vectors, original order, helper columns gone."""
    tokenizer, model = stages
    frame = pd.DataFrame({"text": TEXT[:4]})
    expected = frame.pipe(tokenizer).pipe(model)
    ids = [list(row) for row in frame.pipe(tokenizer)[INPUT_ID_FIELD]]
    longest, order = max(map(len, ids)), [2, 0, 3, 1]
    pad = (lambda r, f: [*r, *f]) if side == "right" else (lambda r, f: [*f, *r])
    padded = pd.DataFrame(
        {
            "text": [TEXT[i] for i in order],
            INPUT_ID_FIELD: [pad(ids[i], [0] * (longest - len(ids[i]))) for i in order],
            ATTENTION_MASK_FIELD: [pad([1] * len(ids[i]), [0] * (longest - len(ids[i]))) for i in order],
            SEQ_ORDER_FIELD: order,
        }
    )
    if lazy:
        import dask

        with dask.config.set({"dataframe.convert-string": False}):
            out = dd.from_pandas(padded, npartitions=1).pipe(model).compute()
    else:
        out = model.process(padded)
    assert out.columns.tolist() == ["text", "embeddings"]
    assert out.text.tolist() == TEXT[:4]
    np.testing.assert_allclose(to_matrix(out.embeddings), to_matrix(expected.embeddings), atol=1e-6)


@pytest.mark.parametrize(("side", "kept"), [("right", slice(None, 4)), ("left", slice(-4, None))])
def test_max_seq_length_clips_the_named_side(stages, side, kept):
    tokenizer, model = stages
    frame = pd.DataFrame({"text": TEXT}).pipe(tokenizer)
    clipped = EmbeddingModelStage(model.model_identifier, autocast=False, padding_side=side, max_seq_length=4)
    by_hand = frame.assign(**{INPUT_ID_FIELD: [row[kept] for row in frame[INPUT_ID_FIELD]]})
    np.testing.assert_allclose(
        to_matrix(clipped(frame).embeddings), to_matrix(model(by_hand).embeddings), atol=1e-6
    )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_rows_that_are_not_token_ids_are_named_or_null(tiny, share, lazy):
    stage = EmbeddingModelStage(str(tiny("bert")), share_equal_texts=share, autocast=False)
    right = [[2, 5, 3], [2, 6, 3], [2, 5, 3]]
    rows = [*right, np.array([2.5]), None, ["a"], [2**40]]
    frame = pd.DataFrame({INPUT_ID_FIELD: pd.Series(rows, dtype=object)})
    with dask.config.set({"dataframe.convert-string": False}):
        given = dd.from_pandas(frame, npartitions=1) if lazy else frame
    where = "column 'input_ids'" + (", partition 0" if lazy else "")
    with pytest.raises(RowError, match=f"{where}, row 3 and 2 more rows: its token ids include 2.5") as caught:
        compute(stage(given))
    assert caught.value.rows == (3, 5, 6)
    out = compute(replace(stage, on_error="null")(given))
    assert out.embeddings.isna().tolist() == [False] * 3 + [True] * 4
    expected = to_matrix(stage(frame[:3]).embeddings)
    np.testing.assert_allclose(to_matrix(out.embeddings[:3]), expected, atol=1e-6)


def compute(frame):
    return frame.compute(scheduler="sync") if hasattr(frame, "compute") else frame


def test_rows_of_curator_s_columns_that_do_not_fit_are_named_or_null(tiny):
    stage = EmbeddingModelStage(str(tiny("bert")), autocast=False)
    frame = pd.DataFrame(
        {
            INPUT_ID_FIELD: [[2, 5, 3, 0], [2, 6, 3], [2, 5.5, 3, 0], [2, 5, 3, 0]],
            ATTENTION_MASK_FIELD: [[1, 1, 1, 0], [1, 1], [1, 1, 1, 0], [1, 1, 1, 0]],
        }
    )
    with pytest.raises(
        RowError, match="row 1 and 1 more rows: its token ids and its mask differ in length"
    ) as caught:
        stage(frame)
    assert caught.value.rows == (1, 2)
    out = replace(stage, on_error="null")(frame)
    assert out.embeddings.isna().tolist() == [False, True, True, False]
    plain = stage(pd.DataFrame({INPUT_ID_FIELD: [[2, 5, 3]]}))
    np.testing.assert_allclose(to_matrix(out.embeddings[:1]), to_matrix(plain.embeddings), atol=1e-6)
