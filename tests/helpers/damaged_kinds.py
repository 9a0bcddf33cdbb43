"""Tiny models in the layouts that test_damaged_models.py damages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling, Transformer

from .tiny import make_tiny

KINDS = ["bert", "roberta", "xlm-roberta", "t5", "qwen3", "shards", "old", "adapter"]


def make(kind: str, root: Path) -> Path:
    """Make an undamaged model in sentence-transformers' layout; for "adapter" a base model and an adapter."""
    path = root / kind
    if kind == "adapter":
        return make_adapter(make("base", root), path)
    source = make_tiny("bert" if kind in ("base", "shards", "old") else kind, root / "sources" / kind)
    if kind == "old":
        return make_old_layout(source, path)
    torch.manual_seed(1)
    modules = [Transformer(str(source)), Pooling(32, "lasttoken" if kind == "qwen3" else "mean")]
    if kind in ("bert", "t5"):
        modules += [Dense(32, 24), LayerNorm(24)]
    prompts = {"query": "query: ", "doc": "title: none | text: "}
    model = SentenceTransformer(
        modules=[*modules, Normalize()], device="cpu", prompts=prompts, default_prompt_name="doc"
    )
    model.save_pretrained(str(path), create_model_card=False)
    if kind == "shards":
        (path / "model.safetensors").unlink()
        transformers.AutoModel.from_pretrained(source).save_pretrained(path, max_shard_size="40KB")
    return path


def make_old_layout(source: Path, path: Path) -> Path:
    """Make a directory as sentence-transformers 2 and transformers 4 wrote it."""
    shutil.copytree(source, path / "0_Transformer")
    kinds = {"0": "Transformer", "1": "Pooling", "2": "Normalize"}
    modules = [
        {"idx": int(k), "name": k, "path": f"{k}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for k, kind in kinds.items()
    ]
    (path / "2_Normalize").mkdir()
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]["vocab"]
    (path / "0_Transformer" / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    flags = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("CLS", "MASK", "PAD", "SEP", "UNK")}
    files = {
        "modules": modules,
        "config_sentence_transformers": {"__version__": {"sentence_transformers": "2.2.2"}},
        "1_Pooling/config": {"word_embedding_dimension": 32, **flags},
        "0_Transformer/sentence_bert_config": {"max_seq_length": 40, "do_lower_case": False},
        "0_Transformer/special_tokens_map": special,
        "0_Transformer/tokenizer_config": {
            "do_lower_case": True, "model_max_length": 64, "tokenizer_class": "BertTokenizer", **special
        },
    }  # fmt: skip
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def make_adapter(base: Path, path: Path) -> Path:
    torch.manual_seed(3)
    model = transformers.AutoModel.from_pretrained(base)
    config = peft.LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    peft.get_peft_model(model, config).save_pretrained(path)
    return path
