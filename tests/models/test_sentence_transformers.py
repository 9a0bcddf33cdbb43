"""Files that sentence-transformers 2 to 6 wrote: each layout, and the errors for unsupported content."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.sentence_transformers import POOLING_MODES

from ..end_to_end.test_fidelity import ours
from ..helpers.cards import TEXTS, build, reference, rewrite

FLAGS = [flag for _, _, flag in POOLING_MODES]
KNOWN = ("Transformer", "Pooling", "Dense")
OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def modules(*kinds, first="", types=OLD):
    """Return the content of a modules.json; a kind that contains a dot is used as the type."""
    folders = [first, *(f"{k}_{kind}" for k, kind in enumerate(kinds[1:], 1))]
    types = types if isinstance(types, dict) else {kind: types + kind for kind in kinds}
    return [
        {"idx": k, "name": str(k), "path": folder, "type": kind if "." in kind else types[kind]}
        for k, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]


def flags(*chosen, count=6):
    """Return a pooling's config as older versions wrote it."""
    return {"word_embedding_dimension": 32} | {flag: k in chosen for k, flag in enumerate(FLAGS[:count])}


def old_layout(source, target, pooling, *kinds, **files):
    """Write a directory in the layout of version 2: flags, and modules under ``models``."""
    write = {"modules": modules("Transformer", "Pooling", *kinds), "1_Pooling__config": pooling, **files}
    return laid_out(source, target, write)


def laid_out(source, target, files, home=""):
    """Write a directory with these JSON files, and with weights if one of them describes a Dense layer."""
    shutil.copytree(source, target / home)
    for name, content in files.items():
        file = target / (name.replace("__", "/") + ".json")
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        if name.startswith("2_Dense"):
            torch.manual_seed(0)
            shapes = {"linear.weight": (content["out_features"], content["in_features"])}
            shapes |= {"linear.bias": (content["out_features"],)} if content["bias"] else {}
            save_file({k: torch.randn(v) / 6 for k, v in shapes.items()}, file.with_name("model.safetensors"))
    return target


_DENSE = {"in_features": 32, "out_features": 16, "bias": True,
          "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
_VERSION = {"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.7.0", "pytorch": "1.9.0"}}
_OPTIONS = {
    **_VERSION,
    "prompts": {"query": "query: ", "passage": "passage: "},
    "default_prompt_name": "passage",
}
_SETTINGS = {"max_seq_length": 48, "do_lower_case": False}
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
# name -> (kind of model, folder of the transformer, JSON files). The folder of a Normalize, being empty, is
# lost by git and by the hub.
LAYOUTS = {
    "1, all in folders": ("bert", "0_Transformer", {
        "config": {"__version__": "0.3.9"},
        "modules": modules("Transformer", "Pooling", first="0_Transformer"),
        "0_Transformer__sentence_bert_config": {"max_seq_length": 40, "do_lower_case": True},
        "1_Pooling__config": flags(2, count=4),
    }),
    "1, XLM-R": ("xlm-roberta", "0_Transformer", {
        "modules": modules("Transformer", "Pooling", first="0_Transformer"),
        "0_Transformer__sentence_xlm-roberta_config": {"max_seq_length": 33, "do_lower_case": False},
        "1_Pooling__config": flags(2, count=4),
    }),
    "2, Normalize": ("mpnet", "", {
        "modules": modules("Transformer", "Pooling", "Normalize"),
        "sentence_bert_config": _SETTINGS, "config_sentence_transformers": _VERSION,
        "1_Pooling__config": flags(2, count=4),
    }),
    "2, Dense": ("bert", "", {
        "modules": modules("Transformer", "Pooling", "Dense", "Normalize"),
        "sentence_bert_config": _SETTINGS, "config_sentence_transformers": _VERSION,
        "1_Pooling__config": flags(0, count=4), "2_Dense__config": _DENSE,
    }),
    "2.4, two flags": ("roberta", "", {
        "modules": modules("Transformer", "Pooling"),
        "sentence_bert_config": _SETTINGS, "config_sentence_transformers": {**_VERSION, "prompts": {}},
        "1_Pooling__config": flags(0, 2),
    }),
    "3, prompts": ("bert", "", {
        "modules": modules("Transformer", "Pooling", "Normalize"),
        "sentence_bert_config": _SETTINGS,
        "config_sentence_transformers": {**_OPTIONS, "similarity_fn_name": None},
        "1_Pooling__config": {**flags(2), "include_prompt": False},
    }),
    "4, T5": ("t5", "", {
        "modules": modules("Transformer", "Pooling", "Dense", "Normalize"),
        "sentence_bert_config": {"max_seq_length": 50, "do_lower_case": False},
        "config_sentence_transformers": {**_OPTIONS, "similarity_fn_name": "cosine"},
        "1_Pooling__config": {**flags(2), "include_prompt": True},
        "2_Dense__config": {**_DENSE, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"},
    }),
    "5, decoder": ("qwen3", "", {
        "modules": modules("Transformer", "Pooling", "Normalize"),
        "sentence_bert_config": _SETTINGS,
        "config_sentence_transformers": {
            **_OPTIONS, "model_type": "SentenceTransformer", "similarity_fn_name": "cosine",
            "prompts": {"query": "Instruct: x\nQuery:", "document": ""}, "default_prompt_name": None,
        },
        "1_Pooling__config": {**flags(5), "include_prompt": True},
    }),
    "6": ("modernbert", "", {
        "modules": modules("Transformer", "Pooling", "Dense", "Normalize", types=NEW),
        "sentence_bert_config": {
            "transformer_task": "feature-extraction", "modality_config": {"text": _TEXT},
            "module_output_name": "token_embeddings", "processor_kwargs": {"model_max_length": 45},
        },
        "config_sentence_transformers": {
            **_OPTIONS, "model_type": "SentenceTransformer", "similarity_fn_name": "dot", "truncate_dim": 8,
        },
        "1_Pooling__config": {
            "embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True,
        },
        "2_Dense__config": {**_DENSE, "module_input_name": "sentence_embedding", "module_output_name": None},
    }),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_as_sentence_transformers_reads_it(layout, tiny, tmp_path):
    kind, home, files = LAYOUTS[layout]
    path = laid_out(tiny(kind), tmp_path / "m", files, home)
    for given in ({}, {"prompt": ""}, *([{"prompt_name": "query"}] if "query: " in str(files) else [])):
        expected = reference(path, TEXTS, **given, normalize_embeddings="truncate_dim" in str(files))
        np.testing.assert_allclose(ours(path, TEXTS, **given), expected, atol=1e-5, rtol=1e-5)


def test_layouts_differ(tiny, tmp_path):
    """Every layout gives other vectors than the bare transformer, so the test above can fail."""
    for layout, (kind, home, files) in LAYOUTS.items():
        whole = ours(laid_out(tiny(kind), tmp_path / layout, files, home), TEXTS)
        plain = ours(tiny(kind), TEXTS)
        assert whole.shape != plain.shape or np.abs(whole - plain).max() > 1e-3, layout


@pytest.mark.parametrize("chosen", [*itertools.combinations(range(6), 1), (0, 2), (0, 1, 2), ()], ids=str)
def test_pooling_flags_of_older_versions(chosen, tiny, tmp_path):
    card = read_card(old_layout(tiny("bert"), tmp_path / "m", flags(*chosen)))
    assert card.pooling == ("+".join(POOLING_MODES[k][0] for k in chosen) or "mean_pooling")
    assert card.has_modules
    assert card.include_prompt


def test_older_file_names_of_the_transformer_s_settings(tiny, tmp_path):
    path = old_layout(tiny("bert"), tmp_path / "m", flags(), sentence_distilbert_config={"max_seq_length": 19})
    assert read_card(path).max_seq_length == 19


@pytest.mark.parametrize(
    "kinds",
    [
        ("Transformer", "CNN"), ("Transformer", "WordWeights", "Pooling"), ("Transformer", "my_code.Head"),
        ("Transformer", "Dense", "Pooling"), ("Transformer", "Pooling", "Pooling"),
        ("Transformer", "WeightedLayerPooling", "Pooling"), ("Transformer", "Pooling", "Asym"),
        ("StaticEmbedding", "Pooling"), ("Transformer", "Pooling", "StaticEmbedding"), ("CLIPModel",),
        ("custom_st.Transformer", "Pooling"),
        ("sentence_transformers.sparse_encoder.models.MLMTransformer", "Pooling"),
        ("Transformer", "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"),
    ],
    ids=str,
)  # fmt: skip
def test_unsupported_modules_are_named_in_the_error(kinds, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", modules=modules(*kinds))
    with pytest.raises(ModelError, match=next((k for k in kinds if k not in KNOWN), "Pooling")):
        read_card(path)


@pytest.mark.parametrize(
    "content",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"image": {}}},
        {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
        {"modality_config": {"text": {}, "message": {"format": "flat"}}},
        {"processing_kwargs": {"text": {"max_length": 20}}},
        {"processor_kwargs": {"truncation_side": "left"}},
        {"tokenizer_args": {"add_bos_token": True}},
        {"config_kwargs": {"is_causal": False}},
    ],
    ids=str,
)
def test_unsupported_transformer_settings_raise(content, tiny, tmp_path):
    with pytest.raises(ModelError, match="'Transformer'"):
        read_card(rewrite(tiny("bert"), tmp_path / "m", sentence_bert_config=content))


def test_unknown_pooling_and_layers_on_tokens_raise(tiny, tmp_path):
    good = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    with pytest.raises(ModelError, match="median"):
        read_card(rewrite(good, tmp_path / "a", **{"1_Pooling__config": {"pooling_mode": "median"}}))
    with pytest.raises(ModelError, match=r"Dense.*token_embeddings"):
        read_card(
            rewrite(good, tmp_path / "b", **{"2_Dense__config": {"module_input_name": "token_embeddings"}})
        )
