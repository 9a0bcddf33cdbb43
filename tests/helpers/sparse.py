"""Tiny models that weigh the tokens of their vocabulary, in the layouts that models in the wild have."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoConfig, AutoModelForMaskedLM


def language_model(source: Path, target: Path, **changes) -> Path:
    """A plain masked language model, with the tokenizer of a tiny model and weights of its own."""
    shutil.copytree(source, target)
    torch.manual_seed(5)
    config = AutoConfig.from_pretrained(source)
    for name, value in changes.items():
        setattr(config, name, value)
    model = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias"):  # else zeros, whose loss would not be noticed
                weights.normal_()
    model.save_pretrained(target)
    return target


def splade(source: Path, target: Path, *, strategy="max", activation="relu", **options) -> Path:
    """A model that sentence-transformers itself saved, around a masked language model."""
    modules = [Transformer(str(source), transformer_task="fill-mask"), SpladePooling(strategy, activation)]
    SparseEncoder(modules=modules, device="cpu", **options).save_pretrained(str(target))
    return target


def as_version_5(path: Path) -> Path:
    """Rewrite a model's files to those that sentence-transformers 5 wrote, as of naver/splade-v3."""
    types = ("models.MLMTransformer.MLMTransformer", "models.SpladePooling.SpladePooling")
    listed = json.loads((path / "modules.json").read_text())
    for module, kind in zip(listed, types, strict=True):
        module["type"] = f"sentence_transformers.sparse_encoder.{kind}"
    (path / "modules.json").write_text(json.dumps(listed))
    settings = {"max_seq_length": 40, "do_lower_case": False}
    (path / "sentence_bert_config.json").write_text(json.dumps(settings))
    pooling = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None}
    (path / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling))
    return path


def reference(path: Path, texts, **options) -> np.ndarray:
    """The weights of sentence-transformers as a dense matrix, in float32 and one text at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SparseEncoder(
            str(path), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32},
            trust_remote_code=False,
        )  # fmt: skip
    options = {"convert_to_sparse_tensor": False, "show_progress_bar": False, **options}
    return np.concatenate([model.encode_document([text], **options).numpy() for text in texts])


def check(found_ids, found_weights, expected: np.ndarray) -> None:
    """Compare lists with a dense matrix to 1e-5, and check their order: largest first, equal weights by id."""
    assert len(found_ids) == len(found_weights) == len(expected)
    for ids, weights, wanted in zip(found_ids, found_weights, expected, strict=True):
        ids, weights = np.asarray(ids, np.int64), np.asarray(weights, np.float32)
        assert (weights > 0).all()
        order = sorted(range(len(ids)), key=lambda place: (-weights[place], ids[place]))
        assert order == list(range(len(ids)))
        dense = np.zeros_like(wanted)
        dense[ids] = weights
        np.testing.assert_allclose(dense, wanted, rtol=1e-5, atol=1e-5 * max(1, wanted.max()))
