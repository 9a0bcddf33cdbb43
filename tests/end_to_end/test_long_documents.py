"""Long texts in windows: their characters, their mean, and the same results from one stage and from two."""

from __future__ import annotations

import time
from dataclasses import replace

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import transformers

from nemo_embed_dask import EmbeddingCreatorStage, to_matrix
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_texts

from ..helpers.cards import TEXTS

KINDS = ("bert", "xlm-roberta", "qwen3")
LONG = [None, *TEXTS, "Все люди рождаются свободными. " * 20, "a 人人生而自由 " * 30]


def settings_of(path, **changes):
    return Settings(ModelRef(str(path)), **{"autocast": False, **changes})


@pytest.fixture(scope="module")
def frame():
    index = pd.Index(range(10, 10 + len(LONG)))
    return pd.DataFrame({"text": pd.array(LONG, dtype="string"), "id": range(len(LONG))}, index=index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", [0, 7])
def test_windows_have_the_positions_of_their_characters(kind, overlap, tiny):
    settings = settings_of(tiny(kind), long_documents="explode", overlap=overlap, max_seq_length=24)
    out = embed_texts(LONG, settings)
    origins, whole = out.origins, settings_of(tiny(kind), max_seq_length=24)
    assert np.unique(origins.text_positions).tolist() == list(range(len(LONG)))
    assert not out.valid[0]
    for row, text in enumerate(LONG[1:], 1):
        mine = origins.text_positions == row
        starts, ends = origins.char_start[mine], origins.char_end[mine]
        if overlap == 0:
            assert "".join(text[a:b] for a, b in zip(starts, ends, strict=True)) == text
        assert {i for a, b in zip(starts, ends, strict=True) for i in range(a, b)} == {*range(len(text))}
    first = origins.numbers == 0
    np.testing.assert_allclose(out.matrix[first].cpu(), embed_texts(LONG, whole).matrix.cpu(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_is_weighted_by_the_tokens_of_the_windows(kind, tiny):
    options = {"overlap": 3, "max_seq_length": 20}
    windows = embed_texts(LONG, settings_of(tiny(kind), long_documents="explode", **options))
    reader = find_reader(settings_of(tiny(kind), **options))
    weights = np.maximum(1, windows.n_tokens - reader.n_prefix - reader.n_suffix)
    got = embed_texts(LONG, settings_of(tiny(kind), long_documents="mean", **options))
    for row in range(1, len(LONG)):
        mine = windows.origins.text_positions == row
        expected = (windows.matrix.double().cpu().numpy()[mine] * weights[mine, None]).sum(0) / weights[
            mine
        ].sum()
        np.testing.assert_allclose(got.matrix[row].cpu(), expected / np.linalg.norm(expected), atol=1e-5)
    assert got.valid.tolist() == [False] + [True] * (len(LONG) - 1)
    assert not got.truncated.any()


@pytest.mark.parametrize("mode", ["truncate", "mean", "explode"])
@pytest.mark.parametrize("lazy", [True, False])
def test_one_stage_and_two_stages_give_the_same_columns(mode, lazy, tiny, frame):
    stage = EmbeddingCreatorStage(
        model_identifier=str(tiny("bert")),
        autocast=False,
        long_documents=mode,
        overlap=0 if mode == "truncate" else 2,
        max_seq_length=16,
        prompt="query: ",
        n_tokens_field="n",
        truncated_field="cut",
        extra_embeddings=("small:8:binary",),
        truncate_dim=16,
        embedding_dtype="float16",
    )
    df = dd.from_pandas(frame, npartitions=3) if lazy else frame
    tokenizer, model = stage.decompose()
    one, two = stage(df), model(tokenizer(df))
    if lazy:
        assert one.divisions == df.divisions
        pd.testing.assert_frame_equal(one._meta, one.compute().iloc[:0])
        one, two = one.compute(), two.compute()
    assert set(one.columns) == set(two.columns)
    assert one.small.dropna().map(len).unique().tolist() == [1]
    for name in one.columns:
        if name == "n" and mode == "mean":
            continue
        if name == "embeddings":
            a, b = (to_matrix(part[name].dropna()).astype(np.float32) for part in (one, two))
            np.testing.assert_allclose(a, b, atol=2e-3)
        else:
            pd.testing.assert_series_equal(one[name], two[name])
    assert str(one.embeddings.dtype) == "list<item: halffloat>[pyarrow]"
    if mode == "explode":
        assert one.chunk.max() > 0
        assert (one.id.to_numpy() == frame.id.loc[one.index].to_numpy()).all()
    else:
        assert one.index.equals(frame.index)
        assert one.cut.any() == (mode == "truncate")


SCRIPTS = (
    "All human beings are born free. " * 5
    + "👩‍👩‍👧‍👦 🇩🇪 e\u0301 क्षि Zürich \ufb01ne ½ \u202eabc\u202c "
    + "Все люди рождаются свободными. " * 5
    + "👩‍👩‍👧‍👦"
    + "人人生而自由，在尊严和权利上一律平等。" * 5
    + "يولد جميع الناس أحرارا " * 5
    + "🇩🇪 end"
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", [0, 7, "most"])
@pytest.mark.parametrize("max_chars", [None, 50, 333])
def test_windows_are_those_of_hugging_face(kind, overlap, max_chars, tiny):
    """Compare with its overflowing tokens; for their characters see ``tests/tokens/test_slices.py``."""
    backend = transformers.AutoTokenizer.from_pretrained(tiny(kind))
    room = 24 - len(backend("")["input_ids"])
    overlap = room - 1 if overlap == "most" else overlap
    texts = ["", "one", SCRIPTS, SCRIPTS[100:], "a " * (2 * room - overlap)]
    settings = settings_of(
        tiny(kind), long_documents="explode", overlap=overlap, max_seq_length=24, max_chars=max_chars
    )
    tokens = tokenize_texts(texts, settings)
    for row, text in enumerate(text[:max_chars] for text in texts):
        theirs = backend(
            text,
            truncation=True,
            max_length=24,
            stride=overlap,
            return_overflowing_tokens=True,
        )
        mine = np.flatnonzero(tokens.origins.text_positions == row)
        assert [tokens.ids.row(i).tolist() for i in mine] == theirs["input_ids"]
    with pytest.raises(ConfigError, match="leave no room"):
        embed_texts(texts, replace(settings, overlap=room))


@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_characters_exclude_the_prompt(kind, tiny):
    plain = settings_of(tiny(kind), long_documents="explode", max_seq_length=30)
    prompted = replace(plain, prompt="Représentez 👩: ", overlap=3)
    origins = tokenize_texts([SCRIPTS, "short"], prompted).origins
    for row, text in enumerate([SCRIPTS, "short"]):
        mine = origins.text_positions == row
        slices = [*zip(origins.char_start[mine], origins.char_end[mine], strict=True)]
        assert {i for a, b in slices for i in range(a, b)} == {*range(len(text))}
        assert (slices[0][0], slices[-1][1]) == (0, len(text))
    assert text[origins.char_start[-1] : origins.char_end[-1]] == "short"


def test_the_longest_real_text_is_tokenized_in_seconds(data_dir, minilm):
    """A text of 2 MB is tokenized in linear time: 0.7 s of CPU for "mean", 2.7 s with positions."""
    texts = pd.read_parquet(data_dir / "long_mix.parquet").text
    longest = texts[texts.str.len().idxmax()]
    assert len(longest) > 2e6
    settings = settings_of(minilm, long_documents="explode", overlap=32)
    start = time.process_time()
    out = tokenize_texts([longest], settings)
    whole = tokenize_texts([longest], replace(settings, long_documents="mean"))
    assert time.process_time() - start < 30
    assert (out.origins.char_start[0], out.origins.char_end[-1]) == (0, len(longest))
    assert whole.ids.lengths[0] - 2 == (out.ids.lengths - 2).sum() - 32 * (len(out.ids) - 1)
