"""Tiny models in sentence-transformers' layout: every combination of modules that models in the wild have."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st_models

# Real text, four scripts, an empty one, and one far over every tiny model's limit.
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "人人生而自由，在尊严和权利上一律平等。",
    "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.",
    "",
    "All human beings are born free and equal in dignity and rights. " * 12,
    "a",
    "  blanks before, \tbetween\n and behind  ",
]
# Widths of the Dense layers, and their activation (with a bias, where it has one): LaBSE and distiluse have
# tanh, T5 and many others none, EmbeddingGemma two layers.
DENSE = {None: (), "tanh": (24,), "none": (24,), "none twice": (48, 24)}


def assemble(transformer, *, pooling, dense=None, normalize=False, include_prompt=True, **config):
    """sentence-transformers' model around a transformer of its own."""
    width = transformer.get_embedding_dimension()
    modules = [transformer, st_models.Pooling(width, pooling, include_prompt=include_prompt)]
    torch.manual_seed(1)
    width *= 1 if isinstance(pooling, str) else len(pooling)
    activation = torch.nn.Tanh if dense == "tanh" else torch.nn.Identity
    for wanted in DENSE[dense]:
        modules.append(st_models.Dense(width, wanted, bias=dense == "tanh", activation_function=activation()))
        width = wanted
    if normalize:
        modules.append(st_models.Normalize())
    return SentenceTransformer(modules=modules, device="cpu", **config)


def build(source: Path, target: Path, **head):
    """A directory that sentence-transformers itself wrote, around a tiny transformer."""
    assemble(st_models.Transformer(str(source)), **head).save_pretrained(str(target))
    return target


def load(path: Path, *, trust_remote_code: bool = False):
    """A directory as sentence-transformers loads it, in float32 whatever its files say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(
            str(path), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32},
            trust_remote_code=trust_remote_code,
        )  # fmt: skip


def reference(path: Path, texts, side="right", **options):
    """What sentence-transformers makes of texts, in float32."""
    model = load(path)
    model.tokenizer.padding_side = side
    return model.encode(list(texts), show_progress_bar=False, **options)


def alone(path: Path, texts):
    """As `reference`, each text by itself."""
    model = load(path)
    return np.concatenate([model.encode([text], show_progress_bar=False) for text in texts])


def rewrite(path: Path, target: Path, **files):
    """A copy of a model directory with other JSON files: a dict of changes, or a value that replaces."""
    shutil.copytree(path, target)
    for name, content in files.items():
        file = target / (name.replace("__", "/") + ".json")
        old = json.loads(file.read_text()) if file.is_file() and isinstance(content, dict) else {}
        file.write_text(json.dumps({**old, **content} if isinstance(content, dict) else content))
    return target


POOLINGS = ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", ("cls", "mean", "max")]
# What models in the wild combine: the poolings and the Dense layers of each kind, every one of them with and
# without Normalize, with a prompt that is pooled or left out, named, by default, or none.
WILD = {
    "bert": (["mean", "cls", "max", "mean_sqrt_len_tokens", ("cls", "mean", "max")], [None, "tanh", "none"]),
    "roberta": (["mean", "cls", "max"], [None, "tanh", "none"]),
    "xlm-roberta": (["mean", "cls"], [None, "tanh", "none"]),
    "mpnet": (["mean", "cls"], [None, "tanh", "none"]),
    "modernbert": (["mean", "cls"], [None, "tanh", "none"]),
    "t5": (["mean"], [None, "none", "tanh"]),
    "qwen3": (["lasttoken", "mean", "weightedmean"], [None, "none", "none twice"]),
}
