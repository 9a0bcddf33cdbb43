"""What a directory says of itself, in the layouts of sentence-transformers 2 to 6."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest

from nemo_embed_dask.cards import find_prompt, length_limit, read_card
from nemo_embed_dask.errors import ConfigError, ModelError
from nemo_embed_dask.layouts import POOLINGS

from .cards import build, rewrite

FLAGS = [flag for _, _, flag in POOLINGS]
OLD = "sentence_transformers.models."


def modules(*kinds, prefix=OLD):
    folders = ["" if k == 0 else f"{k}_{kind}" for k, kind in enumerate(kinds)]
    return [
        {"idx": k, "name": str(k), "path": folder, "type": kind if "." in kind else prefix + kind}
        for k, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]


def old_layout(source, target, pooling, *kinds, **files):
    """As version 2 wrote it: flags, and modules under ``models``."""
    (source.parent / "flags").mkdir(exist_ok=True)
    shutil.copytree(source, target)
    (target / "1_Pooling").mkdir()
    (target / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (target / "modules.json").write_text(json.dumps(modules("Transformer", "Pooling", *kinds)))
    for name, content in files.items():
        (target / f"{name}.json").write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("chosen", [*itertools.combinations(range(6), 1), (0, 2), (0, 1, 2), ()], ids=str)
def test_pooling_flags_of_older_versions(chosen, tiny, tmp_path):
    flags = {flag: k in chosen for k, flag in enumerate(FLAGS)}
    card = read_card(old_layout(tiny("bert"), tmp_path / "m", {"word_embedding_dimension": 32, **flags}))
    assert card.pooling == ("+".join(POOLINGS[k][0] for k in chosen) or "mean_pooling")
    assert card.declared
    assert card.include_prompt


def test_minilm_s_card(minilm):
    card = read_card(minilm)
    assert (card.pooling, [layer.kind for layer in card.layers]) == ("mean_pooling", ["Normalize"])


def test_the_newest_layout_with_all_it_can_say(tiny, tmp_path):
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
    assert (card.truncate_dim, card.similarity) == (8, "dot")


def test_a_transformer_in_a_folder_of_its_own(tiny, tmp_path):
    (tmp_path / "m").mkdir()
    shutil.copytree(tiny("bert"), tmp_path / "m" / "0_Transformer")
    listed = modules("Transformer")
    listed[0]["path"] = "0_Transformer"
    (tmp_path / "m" / "modules.json").write_text(json.dumps(listed))
    assert read_card(tmp_path / "m").path == tmp_path / "m" / "0_Transformer"


def test_a_directory_without_modules_is_read_as_sentence_transformers_does(tiny, tmp_path):
    assert read_card(tiny("bert")).pooling == "mean_pooling"
    causal = rewrite(tiny("qwen3"), tmp_path / "m", config={"architectures": ["Qwen3ForCausalLM"]})
    assert read_card(causal).pooling == "last_token"
    assert not read_card(causal).declared


@pytest.mark.parametrize(
    "kinds",
    [("CNN",), ("WordWeights", "Pooling"), ("my_code.Head",), ("Dense", "Pooling"), ("Pooling", "Pooling")],
    ids=str,
)
def test_unknown_modules_raise_and_are_named(kinds, tiny, tmp_path):
    path = rewrite(tiny("bert"), tmp_path / "m", modules=modules("Transformer", *kinds))
    with pytest.raises(ModelError, match=kinds[0]):
        read_card(path)


@pytest.mark.parametrize(
    "said",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"image": {}}},
        {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
    ],
    ids=str,
)
def test_transformers_that_do_something_else_raise(said, tiny, tmp_path):
    with pytest.raises(ModelError, match="'Transformer'"):
        read_card(rewrite(tiny("bert"), tmp_path / "m", sentence_bert_config=said))


def test_unknown_pooling_and_layers_on_tokens_raise(tiny, tmp_path):
    good = build(tiny("bert"), tmp_path / "m", pooling="mean", dense="tanh")
    with pytest.raises(ModelError, match="median"):
        read_card(rewrite(good, tmp_path / "a", **{"1_Pooling__config": {"pooling_mode": "median"}}))
    with pytest.raises(ModelError, match=r"Dense.*token_embeddings"):
        read_card(
            rewrite(good, tmp_path / "b", **{"2_Dense__config": {"module_input_name": "token_embeddings"}})
        )


def test_older_names_of_the_transformer_s_file(tiny, tmp_path):
    path = old_layout(tiny("bert"), tmp_path / "m", {}, sentence_distilbert_config={"max_seq_length": 19})
    assert read_card(path).max_seq_length == 19


def test_a_model_without_a_limit_asks_for_one(tiny, tmp_path):
    endless = rewrite(tiny("t5"), tmp_path / "m", tokenizer_config={"model_max_length": int(1e30)})
    card = read_card(endless)
    assert length_limit(card, 40) == 40
    with pytest.raises(ModelError, match="pass max_seq_length"):
        length_limit(card, None)


def test_prompts(tiny, tmp_path):
    said = {"prompts": {"query": "q: ", "doc": "d: "}, "default_prompt_name": "doc"}
    card = read_card(rewrite(tiny("bert"), tmp_path / "m", config_sentence_transformers=said))
    assert find_prompt(card, None, None) == "d: "
    assert find_prompt(card, None, "query") == "q: "
    assert find_prompt(card, "", "query") == ""
    with pytest.raises(ConfigError, match=r"\['doc', 'query'\]"):
        find_prompt(card, None, "passage")
    assert find_prompt(read_card(tiny("bert")), None, None) == ""
