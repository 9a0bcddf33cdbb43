"""Refuse directories that hold something other than an embedding model, and report custom code."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..errors import ModelError, type_and_message
from .json_files import JsonObject, read_json
from .names import model_file, model_name


def refuse_other_kinds(path: Path, options: JsonObject) -> None:
    """Raise ModelError for an adapter beside a model, and for a model of another kind, such as a CrossEncoder.

    Parameters
    ----------
    path : Path
        The folder of the transformer.
    options : JsonObject
        The content of ``config_sentence_transformers.json``.
    """
    if (path / "adapter_config.json").is_file() and (path / "config.json").is_file():
        raise ModelError(
            f"{model_name(path)!r} holds a PEFT adapter beside a model, and programs differ in which of them "
            f"they load: move adapter_config.json and adapter_model.safetensors from {path} to another "
            "directory, and pass it as adapter= if they are to be used"
        )
    kind = options.get("model_type", "SentenceTransformer")
    if kind not in ("SentenceTransformer", "SparseEncoder"):
        raise ModelError(
            f"{model_file(options.path)}: 'model_type' is {kind!r:.80}, so the model was not made for "
            "embeddings; use one that was saved as a SentenceTransformer"
        )


def warn_of_custom_code(path: Path, config: JsonObject, tokenizer: JsonObject) -> None:
    """Warn of code in the model's directory, which is never run."""
    custom = []
    if "AutoModel" in config.section("auto_map"):
        custom.append("model")
    is_list = isinstance(tokenizer.get("auto_map"), list)  # older files have a list of classes
    if is_list or "AutoTokenizer" in tokenizer.section("auto_map"):
        custom.append("tokenizer")
    for kind in custom:
        warnings.warn(
            f"model {model_name(path)!r} has custom {kind} code, which is never run; transformers' own "
            f"{config.get('model_type')!r} is used instead. Compare some vectors with those of its authors",
            stacklevel=6,
        )


def load_failure(error: BaseException, config_file: Path | None = None) -> str:
    """Return why a library cannot load a model: ``config_file`` names custom code, or the error's message."""
    if config_file is not None and "auto_map" in read_json(config_file):
        return f"{config_file.name} names code in the model's directory"
    return type_and_message(error, 300).partition(". ")[0].rstrip(" .")
