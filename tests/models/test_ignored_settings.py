"""Settings that transformers ignores: an error if they decide vectors and say something else than the model does."""

from __future__ import annotations

import pytest
import torch

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.weights import load_weights

from ..helpers.cards import rewrite

# What the authors of NomicBert wrote, for the sizes of the tiny model.
NOMIC = {
    "activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "n_embd": 32, "n_head": 4, "n_layer": 2,
    "n_inner": 64, "n_positions": 64, "parallel_block": False, "prenorm": False, "use_rms_norm": False,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None,
}  # fmt: skip


def test_settings_that_say_the_same_are_accepted(tiny, tmp_path):
    ids = torch.arange(5, 25)[None]
    path = rewrite(tiny("nomic_bert"), tmp_path / "m", config=NOMIC)
    with torch.inference_mode():
        expected = load_weights(tiny("nomic_bert"), torch.float32)(input_ids=ids)[0]
        assert torch.equal(load_weights(path, torch.float32)(input_ids=ids)[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"n_head": 8}, {"n_layer": 3}, {"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-5},
        {"rotary_emb_base": 10_000}, {"rotary_emb_fraction": 0.5}, {"rotary_emb_interleaved": True},
        {"rotary_scaling_factor": 2}, {"prenorm": True}, {"use_rms_norm": True}, {"logn_attention_scale": True},
        {"layer_norm_type": "rms_norm"}, {"position_embedding_type": "alibi"},
    ],
    ids=str,
)  # fmt: skip
def test_error_for_settings_that_say_something_else(change, tiny, tmp_path):
    path = rewrite(tiny("nomic_bert"), tmp_path / "m", config={**NOMIC, **change})
    with pytest.raises(ModelError, match=f"{next(iter(change))}=.*ignores"):
        load_weights(path, torch.float32)


@pytest.mark.parametrize("position", ["relative_key", "relative_key_query", "alibi", "rope", 3])
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "albert", "camembert"])
def test_error_for_positions_that_a_class_does_not_have(kind, position, tiny, tmp_path):
    path = rewrite(tiny(kind), tmp_path / "m", config={"position_embedding_type": position})
    with pytest.raises(ModelError, match="position_embedding_type="):
        load_weights(path, torch.float32)


@pytest.mark.parametrize(
    ("kind", "position"),
    [
        ("bert", "absolute"),
        ("bert", None),
        ("modernbert", "absolute"),
        ("gte", "rope"),
        ("nomic_bert", "rotary"),
    ],
)
def test_positions_that_a_model_has_or_never_uses(kind, position, tiny, tmp_path):
    load_weights(
        rewrite(tiny(kind), tmp_path / "m", config={"position_embedding_type": position}), torch.float32
    )


@pytest.mark.parametrize(
    "scaling", [{"type": "ntk", "factor": 8.0}, {"type": "dynamic"}, {"type": 3}, "ntk"], ids=str
)
def test_error_for_rotary_positions_of_an_unknown_kind(scaling, tiny, tmp_path):
    with pytest.raises(ModelError):
        load_weights(rewrite(tiny("gte"), tmp_path / "m", config={"rope_scaling": scaling}), torch.float32)
