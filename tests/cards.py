"""Tiny models in sentence-transformers' layout: every combination of modules that models in the wild have."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from pathlib import Path

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
]
ACTIVATIONS = {"tanh": torch.nn.Tanh, "none": torch.nn.Identity}


def build(source: Path, target: Path, *, pooling, dense=None, normalize=False, include_prompt=True, **config):
    """A directory that sentence-transformers itself wrote, around a tiny transformer."""
    transformer = st_models.Transformer(str(source))
    width = transformer.get_embedding_dimension()
    modules = [transformer, st_models.Pooling(width, pooling, include_prompt=include_prompt)]
    torch.manual_seed(1)
    if dense:
        concatenated = 1 if isinstance(pooling, str) else len(pooling)
        modules.append(
            st_models.Dense(
                width * concatenated,
                24,
                bias=dense == "tanh",
                activation_function=ACTIVATIONS[dense](),
            )
        )
    if normalize:
        modules.append(st_models.Normalize())
    SentenceTransformer(modules=modules, device="cpu", **config).save_pretrained(str(target))
    return target


def reference(path: Path, texts, side="right", **options):
    """What sentence-transformers makes of texts, in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    model.tokenizer.padding_side = side
    return model.encode(list(texts), show_progress_bar=False, **options)


def rewrite(path: Path, target: Path, **files):
    """A copy of a model directory with other JSON files: a dict of changes, or a value that replaces."""
    shutil.copytree(path, target)
    for name, content in files.items():
        file = target / (name.replace("__", "/") + ".json")
        old = json.loads(file.read_text()) if file.is_file() and isinstance(content, dict) else {}
        file.write_text(json.dumps({**old, **content} if isinstance(content, dict) else content))
    return target


# Combinations in the wild, each for the kinds of model that have it.
POOLINGS = ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", ("cls", "mean", "max")]
HEADS = list(itertools.product([None, "tanh", "none"], [False, True]))
