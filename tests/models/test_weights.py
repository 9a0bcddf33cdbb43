from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.weights import load_weights

from ..helpers.cards import rewrite


def test_errors_for_weights_that_cannot_be_loaded(tiny, tmp_path):
    strange = rewrite(tiny("bert"), tmp_path / "a", config={"model_type": "unheard of"})
    quantized = rewrite(tiny("bert"), tmp_path / "b", config={"quantization_config": {"quant_method": "gptq"}})
    empty = rewrite(tiny("bert"), tmp_path / "c")
    (empty / "model.safetensors").rename(empty / "model.pkl")
    none = r"no safetensors weights and no pytorch_model\.bin"
    for path, why in ((strange, "does not know"), (quantized, "quantized"), (empty, none)):
        with pytest.raises(ModelError, match=why):
            load_weights(path, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_and_shards_are_loaded_in_the_requested_dtype(dtype, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m")
    (path / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(tiny("bert"), dtype=dtype).save_pretrained(
        path, max_shard_size="20KB"
    )
    assert len(list(path.glob("*.safetensors"))) > 2
    exact, got = load_weights(tiny("bert"), torch.float32), load_weights(path, torch.float32)
    for name, weight in got.named_parameters():
        assert torch.equal(weight, exact.get_parameter(name).to(dtype).float()), name
    ids = torch.arange(5, 15)[None]
    assert not torch.equal(exact(input_ids=ids)[0], got(input_ids=ids)[0])


# Values with which a constructor of transformers raises an error of its own type, or which it ignores.
WRONG_VALUES = [
    {"hidden_act": "unknown"}, {"hidden_size": "32"}, {"hidden_size": 64}, {"num_attention_heads": 5},
    {"num_attention_heads": 0}, {"num_attention_heads": None}, {"layer_norm_eps": "small"},
    {"hidden_dropout_prob": 3}, {"vocab_size": 10}, {"max_position_embeddings": 10}, {"pad_token_id": 5000},
    {"layer_types": ["unknown"]}, {"dtype": "unknown"}, {"model_type": ["bert"]}, {"model_type": None},
    {"attn_implementation": "unknown"}, {"tie_word_embeddings": "yes"},
    {"position_embedding_type": "relative_key"}, {"position_embedding_type": "relative_key_query"},
    {"position_embedding_type": "alibi"}, {"position_embedding_type": "rope"}, {"position_embedding_type": 3},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG_VALUES, ids=str)
def test_error_for_a_configuration_that_does_not_fit(change, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "model", config=change)
    with pytest.raises(ModelError, match="model"):
        load_weights(path, torch.float32)


def _rename(path):
    path.rename(path.with_name("weights.safetensors"))


def _remove_a_shard(path):
    model = transformers.AutoModel.from_pretrained(path.parent)
    path.unlink()
    model.save_pretrained(path.parent, max_shard_size="20KB")
    next(path.parent.glob("model-00002-of-*.safetensors")).unlink()


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "not safetensors": lambda path: path.write_bytes(b"<html>" * 100),
    "another name": _rename,
    "a missing shard": _remove_a_shard,
    "another shape": lambda path: _save_with(path, {"embeddings.LayerNorm.bias": torch.zeros(16)}),
    "scalar": lambda path: _save_with(path, {"embeddings.LayerNorm.bias": torch.tensor(0.0)}),
    "a missing weight": lambda path: _save_with(path, {"embeddings.LayerNorm.bias": None}),
    "a missing weight of a pooler in the middle": lambda path: _save_with(
        path, {"encoder.layer.0.output.dense.bias": None, "encoder.pooler.bias": torch.zeros(32)}
    ),
    "config.json a list": lambda path: path.with_name("config.json").write_text("[]"),
    "config.json cut": lambda path: path.with_name("config.json").write_text('{"model_type": "bert"'),
    "config.json binary": lambda path: path.with_name("config.json").write_bytes(b"\xff\xfe"),
}


def _save_with(path, changes):
    weights = {name: weight for name, weight in (load_file(path) | changes).items() if weight is not None}
    save_file(weights, path)


@pytest.mark.parametrize("damage", DAMAGE)
def test_error_for_damaged_files_names_the_model(damage, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "model")
    DAMAGE[damage](path / "model.safetensors")
    with pytest.raises(ModelError, match=r"model 'model' |/model/config\.json "):
        load_weights(path, torch.float32)


def test_running_out_of_memory_is_not_an_error_of_the_model(tiny, monkeypatch):
    def fail(*_arguments, **_options):
        raise MemoryError

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", fail)
    with pytest.raises(MemoryError):
        load_weights(tiny("bert"), torch.float32)


def test_a_model_type_with_two_classes(tmp_path):
    """transformers has two models for the type of Funnel, and its configuration names one."""
    config = transformers.FunnelConfig(
        vocab_size=50, block_sizes=[1, 1], d_model=32, n_head=4, d_head=8, d_inner=64, num_decoder_layers=1
    )
    for model_class in (transformers.FunnelModel, transformers.FunnelBaseModel):
        model_class(config).save_pretrained(tmp_path / model_class.__name__)
        loaded = load_weights(tmp_path / model_class.__name__, torch.float32)
        assert type(loaded) is model_class


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert", "mpnet"])
def test_a_type_that_counts_positions_in_another_way_than_the_class_of_the_weights_is_refused(
    kind, tiny, tmp_path
):
    path = rewrite(tiny("bert"), tmp_path / "m", config={"model_type": kind})
    with pytest.raises(ModelError, match=r"model_type='.*' in its config.json|lacks weights|does not use"):
        load_weights(path, torch.float32)
    same = rewrite(tiny("roberta"), tmp_path / "same", config={"model_type": "xlm-roberta"})
    load_weights(same, torch.float32)
