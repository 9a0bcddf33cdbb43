"""Values in a text column that are not text: each makes its row a bad row, and is never converted to text."""

from __future__ import annotations

import enum
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import nemo_embed_dask as ned
from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, RowError, TokenizerStage, calibrate
from nemo_embed_dask import crossfit as cf
from nemo_embed_dask.checks.verification import verify
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.texts import tokenize_texts

from ..helpers.cards import rewrite


class Strange:
    """A value that raises an error if it is compared, hashed, or asked for its length."""

    def __eq__(self, other):
        raise RuntimeError("not to be compared")

    def __hash__(self):
        raise RuntimeError("not to be hashed")

    def __len__(self):
        raise RuntimeError("not to be measured")


class Named(str):
    def __str__(self):
        return "a name"


class Colour(enum.StrEnum):
    RED = "red"


WRONG = {
    "list of two": ["a", "b"],
    "list of one": ["a"],
    "empty list": [],
    "list of pairs": [("a", "b")],
    "tuple of two": ("a", "b"),
    "tuple of one": ("a",),
    "dict": {"a": "b"},
    "set": {"a"},
    "array of strings": np.array(["a", "b"]),
    "array of one": np.array(["a"]),
    "empty array": np.array([]),
    "array of numbers": np.array([1.0, np.nan]),
    "array without dimensions": np.array("a"),
    "bytes": b"a",
    "int": 7,
    "float": 1.5,
    "infinity": float("inf"),
    "bool": True,
    "decimal": Decimal(1),
    "numpy int": np.int64(3),
    "timestamp": pd.Timestamp("2026-01-01"),
    "type": str,
    "strange": Strange(),
    "series": pd.Series(["a", "b"]),
    "numpy bytes": np.bytes_(b"a"),
}
NULLS = {
    "None": None,
    "nan": float("nan"),
    "numpy nan": np.float32("nan"),
    "NA": pd.NA,
    "NaT": pd.NaT,
    "decimal NaN": Decimal("NaN"),
    "signalling NaN": Decimal("sNaN"),
    "numpy NaT": np.datetime64("NaT", "ns"),
}
TEXTS = {"numpy": (np.str_("red"), "red"), "subclass": (Named("red"), "red"), "enum": (Colour.RED, "red")}
WITH_AND_WITHOUT_DEDUPLICATION = pytest.mark.parametrize("share", [True, False])


def column(values):
    """Return an object column of these values, without conversion."""
    series = pd.Series([None] * len(values), dtype=object, name="text")
    for i, value in enumerate(values):
        series.array[i] = value
    return series


def around(value):
    """Return a list with the value and some texts, of which some are equal."""
    return ["red", "green", None, value, "red", "green", "red"]


def settings_of(tiny, **changes):
    return Settings(ModelRef(str(tiny("bert"))), **{"autocast": False, **changes})


def stage_of(tiny, **changes):
    return EmbeddingCreatorStage(model_identifier=str(tiny("bert")), **{"autocast": False, **changes})


def vectors(made):
    return [None if vector is None else np.asarray(vector) for vector in pa.array(made.array).to_pylist()]


def assert_close(found, expected):
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one is None) == (other is None), i
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-6)


@WITH_AND_WITHOUT_DEDUPLICATION
@pytest.mark.parametrize("kind", WRONG)
def test_a_value_that_is_not_text_makes_its_row_bad(tiny, kind, share):
    expected = vectors(stage_of(tiny)(column(around(None)).to_frame()).embeddings)
    frame = column(around(WRONG[kind])).to_frame()
    out = stage_of(tiny, on_error="null", share_equal_texts=share)(frame)
    assert out.embeddings.isna().tolist() == [False, False, True, True, False, False, False]
    assert_close(vectors(out.embeddings), expected)
    name = type(WRONG[kind]).__name__
    with pytest.raises(
        RowError, match=rf"column 'text', row 3: not a string but a value of type {name}\. .*null"
    ) as caught:
        stage_of(tiny, share_equal_texts=share)(frame)
    assert caught.value.rows == (3,)


@WITH_AND_WITHOUT_DEDUPLICATION
@pytest.mark.parametrize("kind", NULLS)
def test_nulls_of_any_kind_are_not_errors(tiny, kind, share):
    out = stage_of(tiny, share_equal_texts=share)(column(around(NULLS[kind])).to_frame())
    assert out.embeddings.isna().tolist() == [False, False, True, True, False, False, False]


@WITH_AND_WITHOUT_DEDUPLICATION
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("changes", [{}, {"max_chars": 2}, {"prompt": "q: "}, {"long_documents": "mean"}])
def test_strings_of_other_types_are_text(tiny, kind, share, changes):
    given, text = TEXTS[kind]
    expected = vectors(stage_of(tiny, **changes)(column(around(text)).to_frame()).embeddings)
    out = stage_of(tiny, share_equal_texts=share, **changes)(column(around(given)).to_frame())
    assert_close(vectors(out.embeddings), expected)
    found = embed_texts(around(given), settings_of(tiny, share_equal_texts=share, **changes)).matrix
    assert_close(found, embed_texts(around(text), settings_of(tiny, **changes)).matrix)


@WITH_AND_WITHOUT_DEDUPLICATION
@pytest.mark.parametrize("mode", ["truncate", "mean", "explode"])
@pytest.mark.parametrize("changes", [{}, {"max_chars": 3}, {"prompt": "q: "}])
def test_the_engine_reports_every_bad_row(tiny, share, mode, changes):
    """The engine gets all kinds of values at once. For the engine, only None is a null."""
    bad = [*WRONG.values(), "\ud800 is no Unicode", float("nan")]
    texts = [item for value in bad for item in ("red", None, value, "red")]
    rows = tuple(range(2, len(texts), 4))
    settings = settings_of(tiny, share_equal_texts=share, long_documents=mode, on_error="null", **changes)
    out = embed_texts(texts, settings)
    assert tuple(sorted(out.failures)) == rows
    assert out.valid.tolist() == [True, False, False, True] * len(bad)
    assert (out.stats.rows, out.stats.nulls) == (len(texts), len(bad))
    assert_close(out.matrix[out.valid], embed_texts(["red"] * 2 * len(bad), settings).matrix)
    for row, value in zip(rows, bad, strict=True):
        assert ("surrogate" if isinstance(value, str) else type(value).__name__) in out.failures[row]
    tokens = tokenize_texts(texts, settings)
    assert list(tokens.failures) == [*rows]
    with pytest.raises(
        RowError, match=rf"row 2 and {len(bad) - 1} more rows: not a string but a value of type list"
    ):
        embed_texts(texts, settings_of(tiny, share_equal_texts=share, long_documents=mode, **changes))


def test_a_list_of_two_strings_is_not_a_pair_of_texts(tiny):
    """The tokenizers library would return "[CLS] a [SEP] b [SEP]" for it."""
    settings = settings_of(tiny, on_error="null")
    for pair in (["a", "b"], ("a", "b")):
        assert tokenize_texts([pair, "a"], settings).ids.lengths.tolist() == [0, 3]


def test_invalid_unicode_in_string_columns(tiny):
    """Python strings in pandas may contain surrogates, and Arrow strings bytes that are not UTF-8."""
    lone = pd.Series(["red", "\ud800", None], dtype=pd.StringDtype("python"), name="text")
    raw = pa.array([b"red", b"\xff\xfe", None])
    offsets = raw.buffers()
    for series in (
        lone,
        pd.Series(
            pa.Array.from_buffers(pa.string(), 3, offsets), dtype=pd.ArrowDtype(pa.string()), name="text"
        ),
    ):
        out = stage_of(tiny, on_error="null")(series.to_frame())
        assert out.embeddings.isna().tolist() == [False, True, True]
        with pytest.raises(
            RowError, match="column 'text', row 1: not valid text: a lone surrogate or invalid UTF-8"
        ):
            stage_of(tiny)(series.to_frame())


def test_tokenizer_stage_and_crossfit_report_bad_rows(tiny):
    frame = column(["red", ["a", "b"], None]).to_frame()
    name = str(tiny("bert"))
    assert TokenizerStage(name, on_error="null")(frame).input_ids.isna().tolist() == [False, True, True]
    model = cf.SentenceTransformerModel(name)
    reads = cf.op.Tokenizer(model, cols=["text"])
    for pipeline in (reads, cf.op.Sequential(reads, cf.op.Embedder(model))):
        with pytest.raises(RowError, match="row 1: not a string but a value of type list"):
            pipeline(frame)


def test_calibrate_and_verify_accept_only_texts(tiny, tmp_path):
    for wrong in (["a", "b"], 7, b"a"):
        with pytest.raises(RowError, match="row 2: not a string"):
            calibrate(stage_of(tiny), ["red", "green", wrong], tmp_path / "r.json")
        with pytest.raises(ConfigError, match="row 1 holds a value of type"):
            verify(stage_of(tiny), ["red", wrong])
    assert verify(stage_of(tiny), [np.str_("red"), Named("green")], third_opinion=False).passed


def test_verify_reports_a_text_with_invalid_unicode(tiny):
    verdict = verify(stage_of(tiny, embedding_pooling="auto"), ["red", "\ud800", "green"])
    assert (verdict.failed, verdict.passed) == ([1], False)
    assert verdict.minimum > 0.999 and verdict.third_opinion > 0.999
    assert not verify(stage_of(tiny), ["\ud800"]).passed


def test_prompts_are_strings(tiny, tmp_path):
    for wrong in ({"prompt": ["a", "b"]}, {"prompt": 7}, {"prompt_name": ["a"]}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=.* must be a string"):
            stage_of(tiny, **wrong)
    config = {"prompts": {"q": ["a", "b"]}, "default_prompt_name": "q"}
    path = rewrite(tiny("bert"), tmp_path / "m", config_sentence_transformers=config)
    for changes in ({}, {"prompt_name": "q"}):
        with pytest.raises(
            ned.ModelError, match="prompt 'q' of model 'm' is a value of type list, not a string"
        ):
            embed_texts(["a"], Settings(ModelRef(str(path)), **changes))
