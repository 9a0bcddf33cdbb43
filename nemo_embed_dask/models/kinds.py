"""Refuse directories that hold something other than an embedding model, and report custom code."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..errors import ModelError, type_and_message
from .colbert import METADATA, PYLATE_KEYS
from .json_files import JsonObject, read_json
from .modules import SPLADE
from .names import model_name
from .renamed import type_in_transformers

# Endings of the names of classes with a head, whose models were trained for another purpose than embeddings.
_HEADS = (
    "SequenceClassification",
    "TokenClassification",
    "QuestionAnswering",
    "MultipleChoice",
    "Regression",
    "Reranker",
)
# The pooling for lists that each of sentence-transformers' and PyLate's other kinds was made for.
_LIST_POOLINGS = {"ColBERT": "none", "MultiVectorEncoder": "none", "SparseEncoder": "splade"}


def check_files(path: Path) -> None:
    """Raise ModelError if the folder of a transformer has an adapter beside it."""
    if (path / "adapter_config.json").is_file() and (path / "config.json").is_file():
        raise ModelError(
            f"{model_name(path)!r} holds a PEFT adapter beside a model, and programs differ in which of them "
            f"they load: move adapter_config.json and adapter_model.safetensors from {path} to another "
            "directory, and pass it as adapter= if they are to be used"
        )


def find_other_kind(path: Path, config: JsonObject, options: JsonObject) -> str:
    """Return what the model was made for, such as "a CrossEncoder"; empty if its files do not say otherwise.

    Parameters
    ----------
    path : Path
        The model's directory.
    config : JsonObject
        The content of ``config.json``.
    options : JsonObject
        The content of ``config_sentence_transformers.json``.
    """
    kind = options.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        return f"a {kind!s:.80}" if isinstance(kind, str) else f"of the unknown kind {kind!r:.80}"
    if (path / "modules.json").is_file():
        return ""
    classes = config.list_of_text("architectures")
    for_lists = [name for name in classes if "colbert" in name.lower() or "splade" in name.lower()]
    # gte-multilingual-base lists a class without a head and one with a head.
    is_plain = any(name.endswith("Model") for name in classes)
    found = for_lists or [name for name in classes if name.endswith(_HEADS) and not is_plain]
    if found:
        return f"a {found[0]}"
    pooling = find_list_pooling(path, config, options)
    return {"none": "a ColBERT model", "splade": "a SPLADE model"}.get(pooling, "")


def find_list_pooling(path: Path, config: JsonObject, options: JsonObject) -> str:
    """Return the pooling for lists that a model was made for, "none" or "splade"; empty for other models.

    It is also known if ``modules.json`` is missing, and with it the model's modules. Parameters are those of
    `find_other_kind`.
    """
    kind = options.get("model_type")
    if isinstance(kind, str) and kind in _LIST_POOLINGS:
        return _LIST_POOLINGS[kind]
    if (path / "modules.json").is_file():
        return ""
    has_class = any("colbert" in name.lower() for name in config.list_of_text("architectures"))
    if has_class or (path / METADATA).is_file() or not PYLATE_KEYS.isdisjoint(options):
        return "none"
    return "splade" if any(path.glob(f"*{SPLADE}")) else ""


def default_pooling(config: JsonObject) -> str:
    """Return the pooling of a model without modules.

    It is that of sentence-transformers, which depends on whether the model generates text, or that for lists
    which the name of its class speaks of.
    """
    architecture = next(iter(config.list_of_text("architectures")), "")
    if "splade" in architecture.lower():
        return "splade"
    is_causal = architecture.endswith("ForCausalLM") and config.flag("is_causal", True)
    return "last_token" if is_causal else "mean_pooling"


def warn_of_custom_code(path: Path, config: JsonObject, tokenizer: JsonObject) -> None:
    """Warn of code in the model's directory, which is not run without ``trust_remote_code``.

    Raises
    ------
    ModelError
        The model generates text, so that its own code probably changes what a token attends to.
    """
    _refuse_decoders_with_code(path, config)
    custom = []
    if "AutoModel" in config.section("auto_map"):
        custom.append("model")
    is_list = isinstance(tokenizer.get("auto_map"), list)  # older files have a list of classes
    if is_list or "AutoTokenizer" in tokenizer.section("auto_map"):
        custom.append("tokenizer")
    for kind in custom:
        warnings.warn(
            f"model {model_name(path)!r} has custom {kind} code, which is not run; transformers' own "
            f"{type_in_transformers(config)!r} is used instead. Compare some vectors with those of its "
            "authors, or, if you trust the code, pass trust_remote_code=True",
            stacklevel=6,
        )


def _refuse_decoders_with_code(path: Path, config: JsonObject) -> None:
    """Refuse a decoder whose own code makes token states, unless its files say what a token attends to.

    The code of gte-Qwen2 and stella_en_1.5B_v5 lets tokens attend to those after them, and their files do not
    say so.
    """
    architecture = next(iter(config.list_of_text("architectures")), "")
    has_code = "AutoModel" in config.section("auto_map")
    if has_code and architecture.endswith("ForCausalLM") and "is_causal" not in config:
        raise ModelError(
            f"model {model_name(path)!r} has custom code for a {architecture}, and config.json does not say "
            "whether tokens attend to those after them (is_causal): without the code its vectors may be wrong. "
            "If you trust the code, pass trust_remote_code=True; or, if you know it, add is_causal to the file"
        )


def load_failure(error: BaseException, config_file: Path | None = None) -> str:
    """Return why a library cannot load a model: ``config_file`` names custom code, or the error's message."""
    if config_file is not None and "auto_map" in read_json(config_file):
        return f"{config_file.name} names code in the model's directory"
    return type_and_message(error, 300).partition(". ")[0].rstrip(" .")
