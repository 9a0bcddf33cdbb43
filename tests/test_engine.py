from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.engine import embed_texts, embed_tokens, load_runtime
from nemo_embed_dask.errors import RowError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.rows import Tokenized
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.stats import Stats
from nemo_embed_dask.tokens.texts import tokenize_texts

from .helpers.strategies import texts
from .helpers.tiny import TEXT

KINDS = {"bert": "mean_pooling", "roberta": "cls", "qwen3": "last_token"}


@pytest.fixture(scope="module")
def setups(tiny):
    return {
        kind: Settings(ModelRef(str(tiny(kind))), pooling=pooling, autocast=False)
        for kind, pooling in KINDS.items()
    }


def change(settings_, **changes):
    return Settings(**{**vars(settings_), **changes})


def same(a, b, tolerance=1e-6):
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)
    return not len(a) or float(cosine.min()) >= 1 - tolerance


@pytest.mark.parametrize("kind", KINDS)
@given(
    batch=st.lists(texts, max_size=8), rows=st.integers(1, 4), sort=st.booleans(),
    side=st.sampled_from(["left", "right"]), window=st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=25)
def test_a_row_s_vector_is_its_own(setups, kind, batch, rows, sort, side, window):
    """Whatever the batch, the window, the order and the padding side."""
    alone = [embed_texts([text], setups[kind]) for text in batch]
    knobs = change(setups[kind], model_inference_batch_size=rows, sort_by_length=sort, padding_side=side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SLAB_ROWS", {"cpu": window})
        together = embed_texts(batch, knobs)
    assert together.valid.tolist() == [one.valid[0] for one in alone]
    kept = np.flatnonzero(together.valid)
    assert same(
        together.matrix[kept],
        torch.cat([alone[i].matrix for i in kept]) if len(kept) else together.matrix[kept],
    )


def test_vectors_are_float32_of_unit_length(setups):
    out = embed_texts(TEXT, setups["bert"])
    assert out.matrix.dtype == torch.float32
    torch.testing.assert_close(out.matrix.norm(dim=1).cpu(), torch.ones(len(TEXT)))


def test_nulls_empty_strings_and_nothing(setups):
    out = embed_texts([None, "", "a", None], setups["bert"])
    assert out.valid.tolist() == [False, True, True, False]
    assert (out.matrix[[0, 3]] == 0).all()
    assert (out.stats.rows, out.stats.nulls) == (4, 2)
    assert embed_texts([], setups["bert"]).matrix.shape == (0, 32)
    assert embed_texts([None], setups["bert"]).valid.tolist() == [False]


def test_a_text_of_no_tokens_at_all_has_no_vector(tiny):
    """A decoder without special tokens makes nothing of an empty string: a null is honest, NaN is not."""
    from nemo_embed_dask.tokens.huggingface import Tokenizer

    from .helpers.tiny import make_tokenizer

    backend = make_tokenizer("decoder").backend_tokenizer
    from tokenizers import processors

    backend.post_processor = processors.ByteLevel()
    assert Tokenizer(backend).encode(["", "a"], 8).ids.lengths.tolist() == [0, 1]


def test_tokens_embed_to_the_same_vectors(setups):
    batch = [*TEXT, None, ""]
    tokens = tokenize_texts(batch, setups["roberta"])
    direct = embed_texts(batch, setups["roberta"])
    through = embed_tokens(tokens, setups["roberta"])
    assert through.valid.tolist() == direct.valid.tolist()
    assert same(through.matrix[through.valid], direct.matrix[direct.valid])


def test_statistics_count_what_was_done(setups):
    batch = [*TEXT, None, "word " * 200]
    stats = embed_texts(batch, setups["bert"]).stats
    tokens = tokenize_texts(batch, setups["bert"])
    assert stats.rows == len(batch)
    assert stats.nulls == 1
    assert stats.tokens == len(tokens.ids.values) <= stats.padded
    assert stats.truncated == 1
    assert (stats.padding_waste > 0) == engine.load_runtime(setups["bert"]).pads  # a card pads in float32
    assert stats.batches >= 1
    total = Stats()
    total += stats
    total += stats
    assert total.tokens == 2 * stats.tokens


def test_max_chars_and_max_seq_length(setups):
    short = change(setups["bert"], max_chars=5)
    assert same(embed_texts(["hello world"], short).matrix, embed_texts(["hello"], setups["bert"]).matrix)
    assert tokenize_texts(["word " * 99], change(setups["bert"], max_seq_length=9)).ids.lengths.tolist() == [9]


POISON = ["good", "bad \ud800 surrogate", "fine", 17]


def test_a_poisoned_row_is_named(setups):
    with pytest.raises(RowError, match=r"row 1 and 1 more rows: not valid text: a lone surrogate") as caught:
        embed_texts(POISON, setups["bert"])
    assert caught.value.rows == (1, 3)
    assert "on_error='null'" in str(caught.value)


def test_no_thread_is_left_after_an_error(setups, monkeypatch):
    """The garbage collector would end the thread, and could wait for it forever."""
    monkeypatch.setattr(engine, "SLAB_ROWS", {"cpu": 1})
    with pytest.raises(RowError) as caught:
        embed_texts([*POISON] * 3, setups["bert"])
    assert caught.value.rows == (1,)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tokenize")]


def test_a_poisoned_row_is_named_by_its_place_in_the_partition(setups, monkeypatch):
    monkeypatch.setattr(engine, "SLAB_ROWS", {"cpu": 2})
    with pytest.raises(RowError, match="row 5:"):
        embed_texts(["a", "b", "c", "d", "e", "\udfff"], setups["bert"])


def test_a_poisoned_row_costs_that_row(setups):
    out = embed_texts(POISON, change(setups["bert"], on_error="null"))
    assert out.valid.tolist() == [True, False, True, False]
    assert set(out.failures) == {1, 3}
    assert same(out.matrix[[0, 2]], embed_texts(["good", "fine"], setups["bert"]).matrix)


@pytest.fixture
def spoilt(setups):
    """The model with one token whose embedding is NaN: a row that holds it has no finite vector."""
    runtime = engine.load_runtime(setups["bert"])
    token = tokenize_texts(["z"], setups["bert"]).ids.values[1]
    weight = runtime.model.embeddings.word_embeddings.weight
    before = weight[token].clone()
    with torch.no_grad():
        weight[token] = float("nan")
    yield "z"
    with torch.no_grad():
        weight[token] = before


BEYOND = {
    "an id beyond the table": (lambda ids: [*ids, 9_999], "token id 9999 is not among the model's"),
    "a negative id": (lambda ids: [-1, *ids], "token id -1 is not among the model's"),
    "more tokens than positions": (lambda ids: ids * 40, "tokens are more than the model's limit of 64"),
}


@pytest.mark.parametrize("case", BEYOND)
def test_a_row_beyond_the_model_s_tables_fails_before_the_model_sees_it(setups, case, monkeypatch):
    spoil, message = BEYOND[case]
    rows = [tokenize_texts([text], setups["bert"]).ids.row(0).tolist() for text in ("one", "two", "three")]
    rows[1] = spoil(rows[1])
    tokens = Tokenized.from_ids(Ragged.from_rows(rows), np.ones(3, np.bool_))
    with pytest.raises(RowError, match=f"row 1: .*{message}") as caught:
        embed_tokens(tokens, setups["bert"])
    assert caught.value.rows == (1,)
    out = embed_tokens(tokens, change(setups["bert"], on_error="null"))
    assert out.valid.tolist() == [True, False, True]
    assert same(out.matrix[[0, 2]], embed_texts(["one", "three"], setups["bert"]).matrix)
    assert out.stats.batches == 1


def test_windows_of_a_text_beyond_the_table_fail_with_their_text(setups, monkeypatch):
    runtime = engine.load_runtime(setups["bert"])
    last = tokenize_texts(["z"], setups["bert"]).ids.values[1]
    monkeypatch.setattr(runtime, "vocabulary", int(last))
    texts = ["a", "a " * 80 + "z", "b"]
    for policy in ("explode", "mean"):
        asked = change(setups["bert"], on_error="null", long_documents=policy)
        assert set(embed_texts(texts, asked).failures) == {1}


def test_vectors_that_are_not_finite_are_named(setups, spoilt):
    with pytest.raises(RowError, match="row 2: the model gave NaN"):
        embed_texts(["a", "b", spoilt, "d"], setups["bert"])
    out = embed_texts(["a", "b", spoilt, "d"], change(setups["bert"], on_error="null"))
    assert out.valid.tolist() == [True, True, False, True]
    assert same(out.matrix[out.valid], embed_texts(["a", "b", "d"], setups["bert"]).matrix)


class Tight:
    """A real runtime on a device whose memory holds ``room`` tokens."""

    def __init__(self, runtime, room):
        self._runtime, self.room, self.pads, self.budget = runtime, room, runtime.pads, 10_000
        self.dimension, self.device, self.seen = runtime.dimension, runtime.device, []
        self.vocabulary, self.max_length = runtime.vocabulary, runtime.max_length
        self.number_type, self.load_wider = runtime.number_type, runtime.load_wider

    def states(self, ids):
        self.seen.append(len(ids.values))
        if len(ids.values) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._runtime.states(ids)


def test_out_of_memory_halves_and_is_remembered(setups, monkeypatch):
    batch = [f"{text} {i}" for i, text in enumerate(TEXT * 8)]
    expected = embed_texts(batch, setups["bert"]).matrix
    tight = Tight(engine.load_runtime(setups["bert"]), room=100)
    monkeypatch.setattr(runtimes, "load", lambda *_, **__: tight)
    out = embed_texts(batch, setups["bert"])
    assert same(out.matrix, expected)
    assert out.stats.ooms > 0
    assert tight.budget <= 200
    tight.seen.clear()
    again = embed_texts(batch, setups["bert"])
    assert again.stats.ooms <= 1
    assert same(again.matrix, expected)


def test_a_row_too_large_for_memory_is_named(setups, monkeypatch):
    tight = Tight(load_runtime(setups["bert"]), room=5)
    monkeypatch.setattr(runtimes, "load", lambda *_, **__: tight)
    with pytest.raises(RowError, match="do not fit in memory"):
        embed_texts(["a", "a much longer text than that"], setups["bert"])


def test_long_partitions_are_tokenized_ahead_in_windows(setups, monkeypatch):
    monkeypatch.setattr(engine, "SLAB_ROWS", {"cpu": 3})
    out = embed_texts(TEXT * 4, setups["qwen3"])
    monkeypatch.undo()
    assert same(out.matrix, embed_texts(TEXT * 4, setups["qwen3"]).matrix)


_GROWTH = """
import sys
import numpy as np
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

rng = np.random.default_rng(0)
for _ in range(8):
    embed_texts([" ".join(map(str, rng.integers(0, 99, n))) for n in rng.integers(1, 40, 1500)],
                Settings(ModelRef(sys.argv[1]), share_equal_texts=False))
    print(held())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read the way Linux shows it")
def test_memory_does_not_grow_with_the_batches_that_have_run(tiny):
    """Hardly two batches have rows of the same lengths, and oneDNN compiles for every shape that it meets."""
    run = subprocess.run(
        [sys.executable, "-c", _GROWTH, str(tiny("bert"))], capture_output=True, text=True, check=True
    )
    held = [int(line) for line in run.stdout.split()]
    assert held[-1] - held[-4] < 40e6, held


def test_time_in_the_model_leaves_out_waiting_for_other_partitions(setups):
    asked = change(setups["roberta"], share_equal_texts=False)
    embed_texts(TEXT, asked)
    start = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        outs = list(pool.map(lambda _: embed_texts(TEXT * 400, asked), range(4)))
    passed, times = time.perf_counter() - start, [out.stats.model_s for out in outs]
    assert min(times) > 0
    # On a GPU the threads wait for their results at the same time.
    assert (sum(times) if engine.load_runtime(asked).device.type == "cpu" else max(times)) <= passed
