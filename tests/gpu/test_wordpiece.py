"""Compare the ids of cuDF's WordPiece on a GPU with those of Hugging Face."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from nemo_embed_dask import TokenizerStage, embed, engine, to_matrix
from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.engine import compute
from nemo_embed_dask.engine.batches import run_batches
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens import cudf as module
from nemo_embed_dask.tokens.cudf import PROBES, tokenize_column, wordpiece_of
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_texts
from nemo_embed_dask.tokens.wordpiece import may_differ

from ..conftest import CORPORA
from ..helpers.nvtext import OnHost, code_points, ids_of
from ..tokens.test_cudf import MIXED
from ..tokens.test_wordpiece import SAFE
from .device import cosines, waiting_is_an_error

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
    assert (found.ids.to_host().values == expected.ids.values).all()
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
    assert (found.ids.to_host().values == expected.ids.values).all()
    assert (found.valid == expected.valid).all()


def test_every_safe_character_is_read_as_the_stand_in_reads_it(library, wordpiece):
    """What the proofs without a card stand on: the compiled kernel does what `tests.helpers.nvtext` does."""
    mixed = [text[:10_000] for text in MIXED if text]
    texts = [f"a{char}b {char} {char}{char}" for char in SAFE] + mixed + [*PROBES]
    ids, doubt = module._tokenize_heads(library.make_column(texts), library, wordpiece)
    assert doubt.tolist() == may_differ(*code_points(texts), wordpiece.specials).tolist()
    ids = ids.to_host()
    for i, text in enumerate(texts):
        if not doubt[i]:
            assert ids.row(i).tolist() == ids_of(text, wordpiece), repr(text[:80])


def test_random_texts_of_safe_characters(minilm, library):
    rng = np.random.default_rng(0)
    alphabet = np.array([*SAFE, *(" " * 20_000)])
    texts = ["".join(rng.choice(alphabet, rng.integers(0, 400))) for _ in range(20_000)]
    compare(texts, library, model=ModelRef(str(minilm)))


def test_every_call_of_cudf_gives_what_the_stand_in_gives(library, wordpiece, texts):
    """Characters, lengths, normalized texts, ids, distinct texts: call by call."""
    texts = [*texts, "", " ", *MIXED[:8], *texts[:5]]
    texts = [text for text in texts if text is not None]
    ours, theirs = OnHost(), library
    a, b = (ops.make_column(texts) for ops in (ours, theirs))
    assert ours.packed_chars(a).tolist() == theirs.packed_chars(b).tolist()
    assert ours.int_tensor(a.str.len()).tolist() == theirs.int_tensor(b.str.len()).tolist()
    for change in (
        lambda column: column.str.slice(0, 7),
        lambda column: column.str.slice_replace(0, 0, "query: "),
        lambda column: column.str.lstrip(" "),
        lambda column: column.iloc[2:9],
        lambda column: column.iloc[np.array([4, 1])],
    ):
        assert ours.read_texts(change(a)) == theirs.read_texts(change(b))
    (codes, distinct), (found_codes, found_distinct) = ours.factorize(a), theirs.factorize(b)
    assert a.nunique() == b.nunique() == len(distinct)
    kept, found = ours.read_texts(distinct), theirs.read_texts(found_distinct)
    assert [kept[i] for i in codes] == [found[i] for i in found_codes] == texts
    safe = ~module._tokenize_heads(a, ours, wordpiece)[1]
    a, b = a[safe].reset_index(drop=True), b.iloc[np.flatnonzero(safe)]
    words = ours.normalize(a, wordpiece).str.lstrip(" ")
    assert words.str.split().tolist() == [
        text.split() for text in theirs.read_texts(theirs.normalize(b, wordpiece))
    ]
    ids, offsets = ours.tokenize(words, wordpiece)
    found_ids, found_offsets = theirs.tokenize(theirs.normalize(b, wordpiece).str.lstrip(" "), wordpiece)
    assert (ids.tolist(), offsets.tolist()) == (found_ids.tolist(), found_offsets.tolist())


@pytest.mark.parametrize("few", [[" "], ["", " "], [" a b c"], ["\t", None, " "]])
def test_a_partition_that_starts_with_a_blank(minilm, library, few):
    """libcudf would write beyond its memory; see `tests.helpers.nvtext.check_room_for_words`."""
    compare(few, library, model=ModelRef(str(minilm)))


@pytest.mark.parametrize("autocast", [True, False])
def test_ids_never_visit_the_host(minilm, library, texts, monkeypatch, autocast):
    """The loop over batches takes ids from the GPU's memory, and does not wait for the GPU.

    The texts are one slab: torch's detector of waits is for all threads, and the one that tokenizes waits.
    """
    import cudf

    def without_waiting(write, ids, valid, stats, run):
        assert isinstance(ids, DeviceRagged)
        assert ids.values.is_cuda
        slabs.append(len(ids))
        if run.model.runtime.pads:  # transformers asks the device whether the mask of a padded batch is full
            return run_batches(write, ids, valid, stats, run)
        with waiting_is_an_error():
            return run_batches(write, ids, valid, stats, run)

    slabs, config = [], Settings(ModelRef(str(minilm)), autocast=autocast, max_seq_length=64)
    texts = [*texts[:1000], None, *texts[:50]]
    series = cudf.Series(texts, dtype="str")
    engine.embed_column(series, library, config)  # loads kernels, and checks the tokenizer
    monkeypatch.setattr(compute, "run_batches", without_waiting)
    monkeypatch.setattr(DeviceRagged, "to_host", lambda self: pytest.fail("ids were sent to the host"))
    found = engine.embed_column(series, library, config)
    monkeypatch.undo()
    expected = engine.embed_texts(texts, config)
    assert len(slabs) == 1
    assert (found.valid == expected.valid).all()
    assert (found.n_tokens == expected.n_tokens).all()
    assert found.stats.shared == expected.stats.shared > 0
    assert cosines(found.matrix, expected.matrix)[found.valid].min() > 0.9999


def test_the_stages_give_the_same_tokens_and_vectors(minilm, texts):
    import cudf

    frame = cudf.DataFrame({"text": cudf.Series([*texts, None], dtype="str")})
    a, b = (frame.pipe(TokenizerStage(str(minilm), tokenizer=how)).input_ids for how in ("cudf", "huggingface"))
    assert a.to_arrow().to_pylist() == b.to_arrow().to_pylist()
    knobs = {"model_identifier": str(minilm), "autocast": False}
    a, b = (embed(frame, tokenizer=how, **knobs).embeddings.dropna() for how in ("cudf", "huggingface"))
    assert torch.nn.functional.cosine_similarity(to_matrix(a), to_matrix(b), dim=1).min() > 0.99999
