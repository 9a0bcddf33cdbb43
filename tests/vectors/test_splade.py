"""Weighted tokens of token states: against transformers and sentence-transformers' pooling; order, memory, NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForMaskedLM

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.vectors import splade
from nemo_embed_dask.vectors.splade import SpladeHead

from ..helpers.sparse import check, language_model
from ..helpers.sparse import splade as make

LENGTHS = [3, 1, 40, 2, 2, 7]


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (sum(LENGTHS),), generator=generator).numpy()
    return Ragged.from_lengths(ids.astype(np.int32), LENGTHS)


def run(path, rows, *, prompt_tokens=0, change=None):
    """Run the head on the states of plain transformers; return its lists, and the expected dense weights."""
    card = read_card(path)
    model = AutoModelForMaskedLM.from_pretrained(path)
    how = card.splade or splade.Splade()
    pooling = SpladePooling(how.strategy, "relu" if how.logarithms == 1 else "log1p_relu").eval()
    states, expected = [], []
    with torch.inference_mode():
        for row in range(len(rows)):
            ids = torch.from_numpy(rows.row(row).astype(np.int64))[None]
            states.append(model.base_model(ids).last_hidden_state[0])
            logits = model(ids).logits[:, prompt_tokens:]
            features = {"token_embeddings": logits, "attention_mask": torch.ones(logits.shape[:2])}
            expected.append(pooling(features)["sentence_embedding"][0])
    flat = torch.cat(states)
    if change is not None:
        change(flat)
    head = SpladeHead(card, flat.shape[1], torch.device("cpu"))
    lists = head(flat, torch.from_numpy(rows.offsets), rows, prompt_tokens=prompt_tokens)
    return lists, torch.stack(expected).numpy()


def compare(lists, expected):
    ids, weights = lists.columns["_ids"], lists.columns[""]
    assert (ids.dtype, weights.dtype) == (torch.int32, torch.float32)
    cuts = lists.offsets[1:-1]
    check(np.split(ids.numpy(), cuts), np.split(weights.numpy(), cuts), expected)


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "xlm-roberta", "mpnet", "modernbert", "albert", "electra"]
)
@pytest.mark.parametrize(("strategy", "activation"), [("max", "relu"), ("sum", "log1p_relu")])
def test_weights_of_token_states(kind, strategy, activation, tiny, rows, tmp_path):
    source = language_model(tiny(kind), tmp_path / "lm")
    path = make(source, tmp_path / "m", strategy=strategy, activation=activation)
    compare(*run(path, rows))


@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_of_its_own(tied, tiny, rows, tmp_path):
    compare(*run(language_model(tiny("bert"), tmp_path / "lm", tie_word_embeddings=tied), rows))


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_few_logits_at_a_time_give_the_same(strategy, tokens, tiny, rows, tmp_path, monkeypatch):
    path = make(language_model(tiny("bert"), tmp_path / "lm"), tmp_path / "m", strategy=strategy)
    vocabulary = read_card(path).config["vocab_size"]
    monkeypatch.setattr(splade, "_MAX_LOGITS", tokens * vocabulary)
    sizes = []
    forward = splade.load_head(path).__class__.forward

    def counted(self, states):
        sizes.append(len(states))
        return forward(self, states)

    monkeypatch.setattr("nemo_embed_dask.models.splade.LanguageModelHead.forward", counted)
    compare(*run(path, rows))
    assert max(sizes[1:]) <= tokens  # the first is the trial of 8 tokens when it is loaded
    assert sum(sizes[2:]) == sum(LENGTHS)


def test_tokens_of_a_prompt_are_left_out(tiny, tmp_path):
    rows = Ragged.from_lengths(np.arange(20, 40, dtype=np.int32), [5, 8, 7])
    compare(*run(language_model(tiny("bert"), tmp_path / "lm"), rows, prompt_tokens=3))


def test_equal_weights_are_in_the_order_of_ids():
    pooled = torch.tensor([[1.0, 2.0, 0.0, 2.0, -1.0, 1.0], [0.0] * 6, [3.0] * 6])
    found = splade._largest_first(pooled, None)
    assert found.offsets.tolist() == [0, 4, 4, 10]
    assert found.columns["_ids"].tolist() == [1, 3, 0, 5, 0, 1, 2, 3, 4, 5]
    assert splade._largest_first(pooled, 3).columns["_ids"].tolist() == [1, 3, 0, 0, 1, 2]


def test_a_state_that_is_not_a_number_is_not_lost(tiny, rows, tmp_path):
    def damage(states):
        states[0, 0] = torch.nan

    lists, _ = run(language_model(tiny("bert"), tmp_path / "lm"), rows, change=damage)
    assert lists.rows_with(lists.columns[""].isnan()).tolist() == [0]


def test_the_transformer_is_not_kept(tiny, tmp_path):
    path = language_model(tiny("bert"), tmp_path / "lm")
    head = SpladeHead(read_card(path), 32, torch.device("cpu"))
    assert not [name for name, _ in head._head.named_modules() if "encoder" in name or "embeddings" in name]
    assert head.dimension == read_card(path).config["vocab_size"]


def test_models_without_the_head_are_refused(tiny, minilm):
    for path, why in ((minilm, r"cls\.predictions"), (tiny("bert"), "lack the weights"), (tiny("t5"), "'t5'")):
        with pytest.raises(ModelError, match=f"has no masked language model head.*{why}"):
            SpladeHead(read_card(path), 32, torch.device("cpu"))


def test_a_head_that_needs_more_than_states_is_refused(tiny, tmp_path):
    path = language_model(tiny("deberta-v2"), tmp_path / "lm", legacy=False)
    why = (
        "DebertaV2ForMaskedLM cannot be run on token states|cannot be loaded by"  # the latter: transformers 5.0
    )
    with pytest.raises(ModelError, match=why):
        SpladeHead(read_card(path), 32, torch.device("cpu"))
