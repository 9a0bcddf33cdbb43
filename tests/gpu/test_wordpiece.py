"""Compare the ids of cuDF's WordPiece on a GPU with those of Hugging Face."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from nemo_embed_dask import TokenizerStage, embed, to_matrix
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.cudf import PROBES, tokenize_column, wordpiece_of
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_texts
from nemo_embed_dask.tokens.wordpiece import may_differ

from ..conftest import CORPORA
from ..helpers.nvtext import OnHost, code_points, ids_of
from ..tokens.test_cudf import MIXED
from ..tokens.test_wordpiece import SAFE

pytestmark = pytest.mark.rapids


@pytest.fixture(scope="module")
def library():
    from nemo_embed_dask.frames import cudf_wordpiece

    return cudf_wordpiece


@pytest.fixture(scope="module")
def wordpiece(minilm):
    return wordpiece_of(find_reader(Settings(ModelRef(str(minilm)))).tokenizer)


def compare(texts, library, **knobs):
    """Every row's ids, lengths, flags; the seconds that each took."""
    import cudf

    settings = Settings(**knobs)
    series = cudf.Series(texts, dtype="str")
    tokenize_column(series.iloc[:10], library, find_reader(settings), settings)
    start = time.perf_counter()
    found = tokenize_column(series, library, find_reader(settings), settings)
    middle = time.perf_counter()
    expected = tokenize_texts(texts, settings)
    end = time.perf_counter()
    assert found.ids.offsets.tolist() == expected.ids.offsets.tolist()
    assert (found.ids.values == expected.ids.values).all()
    assert (found.valid == expected.valid).all()
    assert (found.truncated == expected.truncated).all()
    return middle - start, end - middle


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_row_of_every_corpus_has_hugging_face_s_ids(minilm, data_dir, library, corpus):
    texts = pd.read_parquet(data_dir / f"{corpus}.parquet").text.tolist()
    for limit in (256, 32):
        ours, theirs = compare(texts, library, model=ModelRef(str(minilm)), max_seq_length=limit)
        print(f"{corpus}, limit {limit}: {len(texts)} rows; cuDF {ours:.2f} s, Hugging Face {theirs:.2f} s")


@pytest.mark.parametrize("knobs", [{}, {"prompt": "query: "}, {"max_chars": 7}, {"max_seq_length": 3}])
def test_rows_of_every_kind(minilm, library, knobs):
    compare(MIXED, library, model=ModelRef(str(minilm)), **knobs)
    for few in ([], [None], [""], [None, ""], ["\U0001f600"]):
        compare(few, library, model=ModelRef(str(minilm)), **knobs)


def test_arrow_backed_columns(minilm, library):
    """As `to_backend` leaves them."""
    import cudf
    import pyarrow as pa

    series = cudf.from_pandas(pd.Series(MIXED, dtype=pd.ArrowDtype(pa.string())))
    settings = Settings(ModelRef(str(minilm)))
    found, expected = (
        tokenize_column(series, library, find_reader(settings), settings),
        tokenize_texts(MIXED, settings),
    )
    assert (found.ids.values == expected.ids.values).all()
    assert (found.valid == expected.valid).all()


def test_every_safe_character_is_read_as_the_stand_in_reads_it(library, wordpiece):
    """What the proofs without a card stand on: the compiled kernel does what `tests.helpers.nvtext` does."""
    texts = [f"a{char}b {char} {char}{char}" for char in SAFE] + [text for text in MIXED if text] + [*PROBES]
    column = library.make_column(texts)
    ids, doubt = library.tokenize_heads(column, wordpiece, 10_000)
    assert doubt.tolist() == may_differ(*code_points([t[:10_000] for t in texts]), wordpiece.specials).tolist()
    for i, text in enumerate(texts):
        if not doubt[i]:
            assert ids.row(i).tolist() == ids_of(text[:10_000], wordpiece), repr(text[:80])


def test_random_texts_of_safe_characters(minilm, library):
    rng = np.random.default_rng(0)
    alphabet = np.array([*SAFE, *(" " * 20_000)])
    texts = ["".join(rng.choice(alphabet, rng.integers(0, 400))) for _ in range(20_000)]
    compare(texts, library, model=ModelRef(str(minilm)))


def test_rows_left_to_hugging_face_are_those_of_the_stand_in(library, wordpiece, texts):
    column = pd.Series(texts, dtype="str")
    expected = OnHost().tokenize_heads(column, wordpiece, 5000)
    found = library.tokenize_heads(library.make_column(texts), wordpiece, 5000)
    assert (found[1] == expected[1]).all()
    assert library.char_counts(library.make_column(texts)).tolist() == [len(text) for text in texts]


def test_the_stages_give_the_same_tokens_and_vectors(minilm, texts):
    import cudf

    frame = cudf.DataFrame({"text": cudf.Series([*texts, None], dtype="str")})
    a, b = (frame.pipe(TokenizerStage(str(minilm), tokenizer=how)).input_ids for how in ("cudf", "huggingface"))
    assert a.to_arrow().to_pylist() == b.to_arrow().to_pylist()
    knobs = {"model_identifier": str(minilm), "autocast": False}
    a, b = (embed(frame, tokenizer=how, **knobs).embeddings.dropna() for how in ("cudf", "huggingface"))
    assert torch.nn.functional.cosine_similarity(to_matrix(a), to_matrix(b), dim=1).min() > 0.99999
