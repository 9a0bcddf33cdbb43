"""Weights that the transformer does not use: those of heads are left out, its own are an error."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.weights import load_weights

from ..helpers.cards import rewrite
from ..helpers.tiny import KINDS, MORE
from ..helpers.versions import TRANSFORMERS, needs

IDS = torch.arange(5, 25)[None]
HEADS = ("MaskedLM", "CausalLM", "PreTraining", "ConditionalGeneration", "SequenceClassification",
         "TokenClassification", "QuestionAnswering", "MultipleChoice")  # fmt: skip
# These hold the transformer below "transformer.", where AutoModel does not look for it either.
OTHER_PREFIX = {("llama", "QuestionAnswering"), ("qwen2", "QuestionAnswering"), ("qwen3", "QuestionAnswering")}


def changed(path, target, change):
    """Return a copy of a model whose weights were changed by a function."""
    file = rewrite(path, target) / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return target


def states(model):
    with torch.inference_mode():
        return model(input_ids=IDS)[0]


def heads_of(config):
    """Return the classes of transformers that put a head on a model, by head."""
    stem = type(config).__name__.removesuffix("Config").removesuffix("Text")
    names = {head: [f"{stem}For{head}"] for head in HEADS}
    names["CausalLM"].append(f"{stem}LMHeadModel")
    found = {head: [getattr(transformers, name, None) for name in options] for head, options in names.items()}
    classes = {head: next(filter(None, options), None) for head, options in found.items()}
    needs_images = {"ConditionalGeneration"} if stem in ("Gemma3", "Qwen3_5") else set()
    return {head: cls for head, cls in classes.items() if cls is not None and head not in needs_images}


_GEMMA = needs("transformers", TRANSFORMERS, "older ones save the configuration of Gemma 3 wrongly")


# transformers has no class with a head for EmbeddingGemma 2.
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=_GEMMA if "gemma" in kind else ())
        for kind in (*KINDS, *MORE)
        if kind != "embeddinggemma2"
    ],
)
def test_models_saved_with_any_head_are_loaded(kind, tiny, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny(kind), trust_remote_code=False)
    heads = heads_of(config)
    assert heads
    for head, model_class in heads.items():
        torch.manual_seed(0)
        whole = model_class(deepcopy(config)).eval()  # some classes change their configuration
        whole.save_pretrained(tmp_path / head)
        if (config.model_type, head) in OTHER_PREFIX:
            with pytest.raises(ModelError, match="lacks weights"):
                load_weights(tmp_path / head, torch.float32)
            continue
        # An encoder-decoder has the prefix "transformer" but no such attribute: its encoder is used.
        backbone = whole.get_encoder() if config.is_encoder_decoder else whole.base_model
        expected = states(backbone)
        torch.testing.assert_close(
            states(load_weights(tmp_path / head, torch.float32)), expected, atol=1e-5, rtol=1e-5, msg=head
        )


def test_error_for_weights_of_relative_positions(tiny, tmp_path):
    """BERT in transformers 4 had them; without them, vectors have a cosine of about 0.9 to the right ones."""
    name = "encoder.layer.1.attention.self.distance_embedding.weight"
    path = changed(tiny("bert"), tmp_path / "a", lambda weights: weights.update({name: torch.randn(127, 8)}))
    with pytest.raises(ModelError, match="distance_embedding"):
        load_weights(path, torch.float32)
    whole = transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(tiny("bert")))
    whole.save_pretrained(tmp_path / "b")
    path = changed(
        tmp_path / "b", tmp_path / "c", lambda weights: weights.update({f"bert.{name}": torch.ones(3)})
    )
    with pytest.raises(ModelError, match=r"bert\.encoder\.layer\.1.*distance_embedding"):
        load_weights(path, torch.float32)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "embeddings.factor_projection.weight"), ("bert", "encoder.layer.2.output.dense.weight"),
        ("bert", "rel_pos.bias"), ("bert", "encoder.pooler.weight"), ("roberta", "encoder.layer.0.attn.bias"),
        ("qwen3", "layers.0.self_attn.q_proj.bias"), ("llama", "layers.0.self_attn.q_norm.weight"),
        ("gpt2", "h.0.attn.c_gate.bias"), ("opt", "decoder.layers.2.fc1.weight"), ("t5", "encoder.block.2.weight"),
    ],
    ids=str,
)  # fmt: skip
def test_error_for_left_over_weights_of_the_transformer(kind, name, tiny, tmp_path):
    path = changed(tiny(kind), tmp_path / "m", lambda weights: weights.update({name: torch.ones(4, 4)}))
    with pytest.raises(ModelError, match=name):
        load_weights(path, torch.float32)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"num_hidden_layers": 0}], ids=str)
def test_error_for_layers_that_the_config_leaves_out(change, tiny, tmp_path):
    with pytest.raises(ModelError, match=r"encoder\.layer\.[01]"):
        load_weights(rewrite(tiny("bert"), tmp_path / "m", config=change), torch.float32)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "bert",
            {
                "head.linear.weight": torch.ones(3),
                "embeddings.position_ids": torch.arange(64)[None],
                "pooler.dense.weight": torch.ones(32, 32),
            },
        ),
        (
            "gpt2",
            {"h.0.attn.bias": torch.ones(1, 1, 64, 64).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)},
        ),
        ("gpt_neox", {"layers.0.attention.bias": torch.ones(1, 1, 64, 64)}),
        (
            "llama",
            {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "lm_head.weight": torch.ones(400, 32)},
        ),
        (
            "t5",
            {"decoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(3), "lm_head.weight": torch.ones(3)},
        ),
    ],
    ids=str,
)
def test_tensors_that_older_files_hold_and_models_compute(kind, names, tiny, tmp_path):
    path = changed(tiny(kind), tmp_path / "m", lambda weights: weights.update(names))
    expected = states(load_weights(tiny(kind), torch.float32))
    assert torch.equal(states(load_weights(path, torch.float32)), expected)


def test_left_over_weights_are_found_in_shards(tiny, tmp_path):
    model = transformers.AutoModel.from_pretrained(tiny("bert"))
    model.encoder.layer[1].extra = torch.nn.Linear(4, 4)
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="20KB")
    with pytest.raises(ModelError, match=r"layer\.1\.extra\.bias"):
        load_weights(path, torch.float32)
