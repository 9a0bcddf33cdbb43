"""From token states to the vectors of tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import ModelCard, read_card
from nemo_embed_dask.models.colbert import ColBERT
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.vectors.token_head import TokenHead, skip_ids

from ..helpers.colberts import multi_vector

CPU = torch.device("cpu")
IDS = Ragged.from_rows([[1, 7, 8, 2], [1, 2], [7, 7], [1, 9, 9, 9, 2]])
STATES = torch.randn(len(IDS.values), 32, generator=torch.Generator().manual_seed(0))
NONE = np.empty(0, np.int64)


def plain(path, **options):
    options = {"normalize": False, "skip_ids": NONE, **options}
    return TokenHead(ModelCard(path, 64), 32, CPU, **options)


def test_without_layers_every_state_is_a_vector(tmp_path):
    lists = plain(tmp_path)(STATES, torch.from_numpy(IDS.offsets), IDS)
    assert torch.equal(lists.columns[""], STATES)
    assert lists.offsets.tolist() == IDS.offsets.tolist()


@pytest.mark.parametrize(("normalize", "lengths_are_one"), [(None, True), (True, True), (False, False)])
def test_vectors_of_other_models_have_unit_length_unless_asked(normalize, lengths_are_one, tmp_path):
    head = plain(tmp_path, normalize=normalize)
    lengths = head(STATES, torch.from_numpy(IDS.offsets), IDS).columns[""].norm(dim=1)
    assert torch.allclose(lengths, torch.ones(len(lengths))) == head.normalize == lengths_are_one


def test_skipped_tokens_have_no_vector_and_rows_can_be_empty(tmp_path):
    lists = plain(tmp_path, skip_ids=np.array([7, 9]))(STATES, torch.from_numpy(IDS.offsets), IDS)
    assert lists.offsets.tolist() == [0, 3, 5, 5, 7]
    assert torch.equal(lists.columns[""], STATES[[0, 2, 3, 4, 5, 8, 12]])


def test_tokens_of_the_prompt_are_left_out_but_a_row_keeps_its_last_token(tmp_path):
    head = plain(tmp_path, skip_ids=np.array([8]))
    lists = head(STATES, torch.from_numpy(IDS.offsets), IDS, prompt_tokens=2)
    assert lists.offsets.tolist() == [0, 1, 2, 3, 6]
    assert torch.equal(lists.columns[""], STATES[[3, 5, 7, 10, 11, 12]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_run_on_every_token_in_float32(dtype, tiny, tmp_path):
    card = read_card(multi_vector(tiny("bert"), tmp_path / "m"))
    head = TokenHead(card, 32, CPU, normalize=None, skip_ids=NONE)
    states = STATES.to(dtype)
    found = head(states, torch.from_numpy(IDS.offsets), IDS).columns[""]
    one = torch.cat(
        [head(row[None], torch.tensor([0, 1]), Ragged.from_rows([[5]])).columns[""] for row in states]
    )
    assert head.dimension == head.default_dim == found.shape[1] == 8
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one, atol=1e-6, rtol=0)


def test_error_for_states_of_another_width(tiny, tmp_path):
    card = read_card(multi_vector(tiny("bert"), tmp_path / "m"))
    with pytest.raises(ModelError, match="a layer of 'm' cannot take the vectors"):
        TokenHead(card, 24, CPU, normalize=None, skip_ids=NONE)


def test_words_that_are_no_token_are_not_skipped(tmp_path):
    card = replace(ModelCard(tmp_path, 64), colbert=ColBERT((), skip_words=("!", "[UNK]", "many words")))
    assert skip_ids(card, {"!": 4, "[UNK]": 1, "a": 2}.get).tolist() == [4, 1]
    assert skip_ids(ModelCard(tmp_path, 64), {}.get).tolist() == []
