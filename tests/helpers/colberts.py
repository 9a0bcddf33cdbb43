"""Tiny late interaction models in the three layouts that models in the wild have."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from transformers import AutoModel, AutoTokenizer

IDENTITY = "torch.nn.modules.linear.Identity"
# What PyLate 1.3 writes; do_query_expansion is missing in older ones, and model_type in most.
PYLATE = {
    "model_type": "ColBERT",
    "prompts": {},
    "default_prompt_name": None,
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 8,
    "document_length": 24,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list("!.,"),
    "do_query_expansion": False,
}
# As artifact.metadata of colbert-ir/colbertv2.0, which has many more settings for training and indexing.
STANFORD = {
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "query_maxlen": 8,
    "doc_maxlen": 24,
    "mask_punctuation": True,
    "attend_to_mask_tokens": False,
    "dim": 8,
}


def multi_vector(source, target, *, layers=None, prompts=None, default_prompt_name=None, **transformer):
    """A model that sentence-transformers itself saved."""
    torch.manual_seed(2)
    if layers is None:
        dense = Dense(32, 8, bias=False, activation_function=None, module_input_name="token_embeddings")
        mask, normalize = MultiVectorMask(list("!.,")), Normalize("token_embeddings")
        layers = [dense, mask, normalize]
    model = MultiVectorEncoder(
        modules=[Transformer(str(source), **transformer), *layers],
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        device="cpu",
    )
    model.save_pretrained(str(target))
    return target


def pylate(source, target, *, kind="pylate.models.Dense.Dense", residual=False, **options):
    """A model as PyLate saves it: the markers are new tokens, with a blank at their end."""
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    tokenizer.add_tokens(["[Q] ", "[D] "])
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Dense", kind), ("2_Dense", kind)]
    listed = [{"idx": k, "name": str(k), "path": p, "type": t} for k, (p, t) in enumerate(modules)]
    write(target / "modules.json", listed)
    saved = {key: value for key, value in (PYLATE | options).items() if value != "left out"}
    write(target / "config_sentence_transformers.json", saved)
    write(target / "sentence_bert_config.json", {"max_seq_length": 23, "do_lower_case": False})
    for folder, size_in, size_out in (("1_Dense", 32, 16), ("2_Dense", 16, 8)):
        config = {"in_features": size_in, "out_features": size_out, "bias": False, "use_residual": residual}
        write(target / folder / "config.json", config | {"activation_function": IDENTITY})
        names = ["linear", "residual"] if residual else ["linear"]
        weights = {f"{name}.weight": torch.randn(size_out, size_in) for name in names}
        save_file(weights, target / folder / "model.safetensors")
    return target


def stanford(source, target, *, metadata=STANFORD):
    """A model of Stanford's library: the projection is beside the transformer, the markers are in its vocabulary."""
    shutil.copytree(source, target)
    torch.manual_seed(4)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(target / "model.safetensors").items()}
    save_file(weights | {"linear.weight": torch.randn(8, 32)}, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    write(target / "config.json", config | {"architectures": ["HF_ColBERT"]})
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    words = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)[-2:]
    for word, marker in zip(words, ("[unused0]", "[unused1]"), strict=True):
        tokenizer["model"]["vocab"][marker] = tokenizer["model"]["vocab"].pop(word)
    write(target / "tokenizer.json", tokenizer)
    if metadata is not None:
        write(target / "artifact.metadata", metadata)
    return target


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def load(path: Path) -> MultiVectorEncoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MultiVectorEncoder(
            str(path), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32},
            trust_remote_code=False,
        )  # fmt: skip


def reference(path: Path, texts, *, task="document", **options) -> list[np.ndarray]:
    """The token vectors of sentence-transformers, in float32 and one text at a time."""
    model = load(path)
    encode = model.encode_query if task == "query" else model.encode_document
    return [encode([text], convert_to_numpy=True, show_progress_bar=False, **options)[0] for text in texts]
