"""The switch by which the suite runs over cuDF, with Arrow-backed pandas in cuDF's place."""

import pandas as pd
import pyarrow as pa
import pytest

from nemo_embed_dask import EmbeddingCreatorStage, RowError, embed

from . import over
from .tiny import TEXT


def to_arrow(series):
    return series.astype(pd.ArrowDtype(pa.string())) if pd.api.types.is_string_dtype(series.dtype) else series


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setattr(over, "COUNTS", dict.fromkeys(over.COUNTS, 0))
    columns, results = [], []
    away = over.install(lambda s: columns.append(to_arrow(s)) or columns[-1], lambda s: results.append(s) or s)
    yield columns, results
    away()


def test_every_task_gets_the_other_library_s_column(tiny, seen):
    frame = pd.DataFrame({"text": [*TEXT, None]}, index=[*range(len(TEXT), -1, -1)])
    knobs = {"model_identifier": str(tiny("bert")), "autocast": False}
    out = embed(frame, n_tokens_field="n", **knobs)
    for stage in EmbeddingCreatorStage(**knobs).decompose():
        frame = stage(frame)
    columns, results = seen
    assert [column.name for column in columns] == ["text", "text", "input_ids"]
    assert [result.name for result in results] == ["embeddings", "n", "input_ids", "embeddings"]
    assert columns[0].dtype == pd.ArrowDtype(pa.string())
    assert out.columns.tolist() == ["text", "embeddings", "n"]
    assert out.embeddings.isna().tolist() == [False] * len(TEXT) + [True]
    assert over.COUNTS == {"over cuDF": 3, "left to pandas": 0}


def test_what_cannot_be_held_stays_with_pandas(tiny, monkeypatch):
    monkeypatch.setattr(over, "COUNTS", dict.fromkeys(over.COUNTS, 0))
    poisoned = pd.DataFrame({"text": pd.Series(["a", "\ud800"], dtype=object)})
    away = over.install(over.to_cudf, None)
    try:
        with pytest.raises(RowError, match="row 1"):
            embed(poisoned, model_identifier=str(tiny("bert")))
        embed(pd.DataFrame({"text": ["a"]}), model_identifier=str(tiny("bert")), embedding_dtype="float16")
    finally:
        away()
    assert over.COUNTS == {"over cuDF": 0, "left to pandas": 2}
