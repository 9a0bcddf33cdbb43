"""PEFT adapters: merged into weights they give peft's own vectors, or they raise an error."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nemo_embed_dask.checks.reference import reference
from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.settings import Settings

from ..helpers.cards import TEXTS
from ..helpers.versions import needs

peft = pytest.importorskip("peft")

IDS = torch.arange(5, 25)[None]
TARGETS = ["query", "value"]
LORA = {"r": 4, "target_modules": TARGETS}
KINDS = {
    "LoRA": peft.LoraConfig(**LORA),
    "DoRA": peft.LoraConfig(**LORA, use_dora=True),
    "rsLoRA": peft.LoraConfig(**LORA, use_rslora=True),
    "LoRA with biases": peft.LoraConfig(**LORA, bias="all"),
    "LoRA with a bias of its own": peft.LoraConfig(**LORA, lora_bias=True),
    "modules_to_save": peft.LoraConfig(**LORA, modules_to_save=["LayerNorm"]),
    "tokens": peft.LoraConfig(**LORA, trainable_token_indices=[1, 5, 7]),
    "patterns": peft.LoraConfig(
        **LORA,
        rank_pattern={"layer.0.attention.self.query": 2},
        alpha_pattern={"layer.1.attention.self.query": 32},
    ),
    "embeddings": peft.LoraConfig(r=4, target_modules=["word_embeddings"]),
    "PiSSA": peft.LoraConfig(**LORA, init_lora_weights="pissa"),
    "LoHa": peft.LoHaConfig(**LORA),
    "LoKr": peft.LoKrConfig(**LORA),
    "IA3": peft.IA3Config(target_modules=[*TARGETS, "output.dense"], feedforward_modules=["output.dense"]),
    "OFT": peft.OFTConfig(oft_block_size=4, target_modules=TARGETS),
    "VeRA": peft.VeraConfig(**LORA),
    "LayerNorm": peft.LNTuningConfig(target_modules=["LayerNorm"]),
}
VERA = needs("peft", "0.21", "0.18 writes weights of VeRA under other names, and they are refused")
UNMERGEABLE = {
    "prompt": peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4),
    "prefix": peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4),
    "p-tuning": peft.PromptEncoderConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=4, encoder_hidden_size=16
    ),
}


def train(base, target, config, model_class=transformers.AutoModel):
    """Write an adapter with random weights, and return the adapted model."""
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(model_class.from_pretrained(base), config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) / 10)
        adapted.save_pretrained(target)
    return adapted.eval()


def states(model):
    with torch.inference_mode():
        return model(input_ids=IDS)[0]


def assert_same(got, expected):
    torch.testing.assert_close(got, expected, atol=3e-5, rtol=3e-5)


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("lora")
    train(tiny("bert"), path, KINDS["LoRA"])
    return path


def edited(adapter, target, change=None, **options):
    """Return a copy of an adapter with other weights and other options."""
    shutil.copytree(adapter, target)
    config = target / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **options}))
    if change is not None:
        file = target / "adapter_model.safetensors"
        weights = load_file(file)
        save_file(change(weights), file)
    return target


def test_an_adapter_is_merged_at_load(tiny, tmp_path):
    model = train(tiny("bert"), tmp_path, KINDS["LoRA"])
    settings = Settings(ModelRef(str(tiny("bert"))), pooling="cls", autocast=False, adapter=str(tmp_path))
    got = embed_texts(TEXTS, settings).matrix
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("bert"))
    with torch.inference_mode():
        rows = [
            model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0, 0]
            for text in TEXTS
        ]
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got, reference(TEXTS, settings), atol=1e-5)
    without = embed_texts(TEXTS, Settings(ModelRef(str(tiny("bert"))), pooling="cls", autocast=False)).matrix
    assert not np.allclose(got, without, atol=1e-2)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=VERA) if kind == "VeRA" else kind for kind in KINDS],
)
def test_each_kind_that_can_be_merged(kind, tiny, tmp_path):
    expected = states(train(tiny("bert"), tmp_path, KINDS[kind]))
    assert_same(states(load_weights(tiny("bert"), torch.float32, tmp_path)), expected)
    assert not torch.allclose(states(load_weights(tiny("bert"), torch.float32)), expected, atol=1e-1)


@pytest.mark.parametrize("kind", UNMERGEABLE)
def test_error_for_a_kind_that_cannot_be_merged(kind, tiny, tmp_path):
    train(tiny("bert"), tmp_path, UNMERGEABLE[kind])
    with pytest.raises(ModelError, match="cannot be merged into weights"):
        load_weights(tiny("bert"), torch.float32, tmp_path)


@pytest.mark.parametrize(
    ("kind", "model_class", "options"),
    [
        ("bert", transformers.AutoModel, {"target_modules": TARGETS, "layer_replication": [[0, 2], [1, 2]]}),
        (
            "qwen3",
            transformers.AutoModelForCausalLM,
            {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "alora_invocation_tokens": [7, 8]},
        ),
    ],
)
def test_error_for_an_adapter_that_is_another_one_once_merged(kind, model_class, options, tiny, tmp_path):
    train(tiny(kind), tmp_path, peft.LoraConfig(r=4, **options), model_class)
    with pytest.raises(ModelError, match="adapter="):
        load_weights(tiny(kind), torch.float32, tmp_path)


@pytest.mark.parametrize(
    ("kind", "head", "targets", "options"),
    [
        ("bert", "BertForMaskedLM", ["query", "dense"], {}),
        ("bert", "BertForSequenceClassification", TARGETS, {"task_type": "SEQ_CLS"}),
        ("qwen3", "Qwen3ForCausalLM", ["q_proj", "v_proj"], {"task_type": "CAUSAL_LM"}),
        ("llama", "LlamaForSequenceClassification", ["q_proj"], {"modules_to_save": ["score"]}),
        ("t5", "T5ForConditionalGeneration", ["q", "v"], {"task_type": "SEQ_2_SEQ_LM"}),
    ],
)
def test_an_adapter_that_was_trained_on_a_model_with_a_head(kind, head, targets, options, tiny, tmp_path):
    model_class = getattr(transformers, head)
    model = model_class.from_pretrained(tiny(kind))
    model.save_pretrained(tmp_path / "whole")
    config = peft.LoraConfig(r=4, target_modules=targets, **options)
    whole = train(tmp_path / "whole", tmp_path / "adapter", config, model_class).base_model.model
    expected = states(whole.get_encoder() if kind == "t5" else whole.base_model)
    assert_same(states(load_weights(tiny(kind), torch.float32, tmp_path / "adapter")), expected)


def test_error_for_scales_by_the_names_of_a_model_with_a_head(tiny, tmp_path):
    config = peft.LoraConfig(**LORA, alpha_pattern={"bert.encoder.layer.0.attention.self.query": 64})
    train(tiny("bert"), tmp_path, config, transformers.BertForMaskedLM)
    with pytest.raises(ModelError, match="alpha_pattern"):
        load_weights(tiny("bert"), torch.float32, tmp_path)


FIRST = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
CHANGES = {
    "missing": lambda weights: {name: weights[name] for name in weights if name != FIRST},
    "unexpected": lambda weights: {**weights, FIRST.replace("layer.0", "layer.7"): weights[FIRST].clone()},
    "renamed": lambda weights: {name.replace("model.encoder", "model.enc"): weights[name] for name in weights},
    "another prefix": lambda weights: {name.replace("model.model", "model.net"): weights[name] for name in weights},
    "another width": lambda weights: {name: torch.cat([weight, weight], -1) for name, weight in weights.items()},
    "NaN": lambda weights: {name: weight * float("nan") for name, weight in weights.items()},
    "none": lambda weights: {},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_error_for_weights_that_do_not_fit(change, lora, tiny, tmp_path):
    path = edited(lora, tmp_path / "changed", CHANGES[change])
    with pytest.raises(ModelError, match=r"adapter='.*changed'"):
        load_weights(tiny("bert"), torch.float32, path)


@pytest.mark.parametrize(
    "options",
    [
        {"r": 8}, {"r": "4"}, {"r": None}, {"r": -1}, {"lora_alpha": "16"}, {"lora_alpha": None},
        {"peft_type": "UNKNOWN"}, {"peft_type": None}, {"peft_type": "LOHA"}, {"peft_type": "IA3"},
        {"peft_type": "PREFIX_TUNING"}, {"target_modules": ["key"]}, {"target_modules": ["unknown"]},
        {"target_modules": 3}, {"use_dora": True}, {"bias": "all"}, {"bias": "some"},
        {"modules_to_save": ["LayerNorm"]}, {"layers_to_transform": [0], "layers_pattern": "layer"},
        {"new_option": True}, {"megatron_config": {"a": 1}}, {"rank_pattern": {"query": 2}},
    ],
    ids=str,
)  # fmt: skip
def test_error_for_options_that_do_not_fit(options, lora, tiny, tmp_path):
    path = edited(lora, tmp_path / "changed", **options)
    with pytest.raises(ModelError, match=r"adapter='.*changed'|changed/adapter_config\.json"):
        load_weights(tiny("bert"), torch.float32, path)


def test_options_of_a_newer_peft_that_are_off(lora, tiny, tmp_path):
    path = edited(lora, tmp_path / "changed", new_option=False, another=None)
    expected = states(load_weights(tiny("bert"), torch.float32, lora))
    assert torch.equal(states(load_weights(tiny("bert"), torch.float32, path)), expected)


@pytest.mark.parametrize("kind", ["roberta", "electra", "distilbert", "qwen3", "deeper", "wider"])
def test_error_for_an_adapter_of_another_model(kind, lora, tiny, tmp_path):
    config = transformers.AutoConfig.from_pretrained(tiny("bert"))
    if kind in ("deeper", "wider"):
        change = {"num_hidden_layers": 3} if kind == "deeper" else {"hidden_size": 64}
        other = transformers.BertModel(transformers.BertConfig(**{**config.to_dict(), **change}))
        other.save_pretrained(tmp_path)
    base = tmp_path if kind in ("deeper", "wider") else tiny(kind)
    with pytest.raises(ModelError, match="adapter="):
        load_weights(base, torch.float32, lora)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"[]", b"\x00" * 64], ids=str)
def test_error_for_lost_and_damaged_files(name, content, lora, tiny, tmp_path):
    file = edited(lora, tmp_path / "changed") / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ModelError, match=r"changed"):
        load_weights(tiny("bert"), torch.float32, tmp_path / "changed")


def test_warning_for_an_adapter_that_was_trained_on_custom_code(lora, tiny, tmp_path):
    path = edited(lora, tmp_path / "changed", auto_mapping={"parent_library": "own.modeling"})
    with pytest.warns(UserWarning, match=r"custom code \(own\.modeling\)"):
        load_weights(tiny("bert"), torch.float32, path)


def test_error_for_a_directory_without_an_adapter(tiny, tmp_path):
    settings = Settings(ModelRef(str(tiny("bert"))), adapter=str(tmp_path))
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        embed_texts(["a"], settings)
