"""The sizes of a model's tables, compared with where the model itself fails."""

from __future__ import annotations

import pytest
import torch
import transformers

from nemo_embed_dask.runtimes import tables

from ..helpers.architectures import tiny_model
from ..helpers.versions import TRANSFORMERS, needs
from .test_probe import dynamic, longrope, make

# Tables with rows before the first token's, of another name, and as tensors; and models without one.
KINDS = (
    "Bert",
    "Roberta",
    "OPT",
    "GPT2",
    "OpenAIGPT",
    "GPTJ",
    "CTRL",
    "MPNet",
    "XLM",
    "LayoutLM",
    "Esm",
    "DebertaV2",
)
_NOMIC = pytest.param("NomicBert", marks=needs("transformers", TRANSFORMERS, "older ones give it a table"))
WITHOUT = ("Llama", "T5", "XLNet", "Bloom", _NOMIC, "Mamba", "XGLM")


def run(model, length, token=7):
    with torch.inference_mode():
        return model(input_ids=torch.full((1, length), token))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_row_is_the_one_after_which_the_model_fails(kind):
    model = tiny_model(getattr(transformers, f"{kind}Config"))
    longest = tables.position_count(model)
    assert longest is not None
    run(model, longest)
    with pytest.raises((IndexError, RuntimeError)):
        run(model, longest + 1)


@pytest.mark.parametrize("kind", WITHOUT)
def test_models_without_a_table_run_any_row(kind):
    model = tiny_model(getattr(transformers, f"{kind}Config"))
    if (longest := tables.position_count(model)) is not None:
        pytest.fail(f"{longest} positions")
    run(model, 140)


@pytest.mark.parametrize("kind", ["Bert", "Llama", "T5", "GPT2", "Albert"])
def test_the_last_token_id_is_the_one_after_which_the_model_fails(kind):
    model = tiny_model(getattr(transformers, f"{kind}Config"))
    vocabulary = tables.vocabulary_size(model)
    run(model, 3, vocabulary - 1)
    with pytest.raises(IndexError):
        run(model, 3, vocabulary)


def test_the_table_counts_and_not_the_configuration():
    model = tiny_model(transformers.BertConfig)
    model.resize_token_embeddings(40)
    model.config.vocab_size = 96
    assert tables.vocabulary_size(model) == 40


@pytest.mark.parametrize("config", [longrope(), dynamic()])
def test_rope_limits_of_models_and_of_their_configurations(config):
    assert tables.rope_limit(make(config)) == 16
    assert tables.configured_rope_limit(config.to_dict()) == 16
    old = {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 16}
    assert tables.configured_rope_limit(old) == 16


def test_lengths_that_a_configuration_names():
    config = {
        "sliding_window": 8,
        "hidden_size": 32,
        "text": {"attention_window": [6, 6]},
        "chunk_size_feed": 0,
    }
    assert tables.named_lengths(config) == [8, 6, 6]
    assert set(tables.length_hints(config)) >= {3, 4, 6, 8, 12, 16, 24, 32}
