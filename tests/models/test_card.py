"""Model cards; the layouts of their files are tested in test_sentence_transformers.py."""

from __future__ import annotations

import json

import pytest
import torch

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.limits import length_limit
from nemo_embed_dask.vectors.head import Head

from ..helpers.cards import build, rewrite


def test_card_of_minilm(minilm):
    card = read_card(minilm)
    assert (card.pooling, [layer.kind for layer in card.layers]) == ("mean_pooling", ["Normalize"])


def test_newest_layout_with_every_option(tiny, tmp_path):
    path = build(
        tiny("bert"), tmp_path / "m", pooling=("max", "cls"), dense="tanh", normalize=True,
        include_prompt=False, prompts={"query": "q: "}, default_prompt_name="query", truncate_dim=8,
        similarity_fn_name="dot",
    )  # fmt: skip
    card = read_card(path)
    assert card.pooling == "max+cls"
    assert [layer.kind for layer in card.layers] == ["Dense", "Normalize"]
    assert not card.include_prompt
    assert (card.prompts["query"], card.default_prompt) == ("q: ", "query")
    assert card.truncate_dim == 8


def test_a_directory_without_modules_is_read_as_sentence_transformers_does(tiny, tmp_path):
    assert read_card(tiny("bert")).pooling == "mean_pooling"
    causal = rewrite(tiny("qwen3"), tmp_path / "m", config={"architectures": ["Qwen3ForCausalLM"]})
    assert read_card(causal).pooling == "last_token"
    assert not read_card(causal).has_modules


def test_a_model_without_a_token_limit_needs_max_seq_length(tiny, tmp_path):
    endless = rewrite(tiny("t5"), tmp_path / "m", tokenizer_config={"model_max_length": int(1e30)})
    card = read_card(endless)
    assert length_limit(card, 40) == 40
    with pytest.raises(ModelError, match="pass max_seq_length"):
        length_limit(card, None)


def test_chat_templates_are_not_used(tiny, tmp_path):
    """sentence-transformers uses the chat template of a model without modules.json."""
    plain = rewrite(tiny("qwen3"), tmp_path / "m", tokenizer_config={"chat_template": "{{ messages }}"})
    (build(tiny("qwen3"), tmp_path / "n", pooling="lasttoken") / "chat_template.jinja").write_text("x")
    cpu = torch.device("cpu")
    with pytest.raises(ModelError, match="chat template"):
        Head(read_card(plain), 32, cpu, pooling="auto", normalize=None)
    assert Head(read_card(plain), 32, cpu, pooling="mean_pooling", normalize=None).pooling == "mean_pooling"
    assert Head(read_card(tmp_path / "n"), 32, cpu, pooling="auto", normalize=None).pooling == "last_token"


def test_no_position_table(tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"max_position_embeddings": -1})
    assert (read_card(path).max_positions, read_card(path).max_seq_length) == (None, 64)


@pytest.mark.parametrize("value", ["BertModel", [3], {"0": "BertModel"}], ids=str)
def test_error_for_architectures_that_are_not_a_list_of_names(value, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": value}))
    with pytest.raises(ModelError, match=r"config\.json: 'architectures' is"):
        read_card(path)


@pytest.mark.parametrize("value", [None, "1", -1, 65], ids=str)
def test_error_for_a_padding_id_after_which_no_positions_can_start(value, tiny, tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: 'pad_token_id' is"):
        read_card(rewrite(tiny("roberta"), tmp_path / "m", config={"pad_token_id": value}))
