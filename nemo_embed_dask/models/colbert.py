"""Read the files of a late interaction model (ColBERT), which has a vector for every token of a text.

Three layouts are known: that of sentence-transformers' MultiVectorEncoder, PyLate's, and Stanford's.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ModelError
from .json_files import JsonObject, read_json
from .modules import IGNORED, unsupported
from .names import model_name
from .routers import Task
from .sentence_transformers import Layer, read_module_config, read_transformer

# Stanford's settings, beside the weights.
METADATA = "artifact.metadata"
_STANFORD = "HF_ColBERT"
# PyLate's settings in config_sentence_transformers.json. With any of them, queries are expanded by default.
_PREFIXES = {"query": "query_prefix", "document": "document_prefix"}
PYLATE_KEYS = {
    *_PREFIXES.values(),
    "query_length",
    "document_length",
    "skiplist_words",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
}


@dataclass(frozen=True)
class ColBERT:
    """What a late interaction model does with a text and with its token states.

    ``layers``: the modules that every token state passes. ``skip_words``: tokens that are left out of the
    vectors. ``prompts``: prompts by name, "document" and "query" always. ``markers``: those prompts whose first
    word, such as "[unused1]", is one token for the model. ``max_length``: most tokens per row, if it is stated.
    """

    layers: tuple[Layer, ...]
    skip_words: tuple[str, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict, repr=False)
    markers: tuple[str, ...] = ()
    max_length: int | None = None


def read_colbert(path: Path, modules: list[tuple[str, str]], options: JsonObject, task: Task) -> ColBERT | None:
    """Read what makes a model a late interaction model; None if it is of another kind.

    Parameters
    ----------
    path : Path
        The model's directory.
    modules : list of (str, str)
        Kind and folder of its modules.
    options : JsonObject
        The content of ``config_sentence_transformers.json``.
    task : str
        Whether the texts are documents or queries.

    Raises
    ------
    ModelError
        A module cannot be run, or the texts are queries that the model pads with mask tokens.
    """
    kind = options.get("model_type")
    if modules == [("Transformer", "")] and is_stanford(path):  # mxbai-colbert-large-v1 has a modules.json
        return _read_stanford(path, task)
    if not (path / "modules.json").is_file():
        return None
    if kind not in ("MultiVectorEncoder", "ColBERT") and not _is_old_pylate(modules, options):
        return None
    return _read_modules(path, modules, options, task)


def is_stanford(folder: Path) -> bool:
    """Return whether Stanford's library wrote the model in a folder."""
    named = _STANFORD in read_json(folder / "config.json").list_of_text("architectures")
    return named or (folder / METADATA).is_file()


def _is_old_pylate(modules: list[tuple[str, str]], options: JsonObject) -> bool:
    """Return whether a version of PyLate wrote the model that did not write its type."""
    has_type = options.get("model_type", "SentenceTransformer") != "SentenceTransformer"
    return _PREFIXES["document"] in options and not has_type and "Pooling" not in [kind for kind, _ in modules]


def _read_modules(path: Path, modules: list[tuple[str, str]], options: JsonObject, task: Task) -> ColBERT:
    """Read a model with a ``modules.json``, by sentence-transformers or PyLate."""
    if modules[0][0] != "Transformer":
        raise unsupported(path, modules[0][0], "a late interaction model needs a Transformer")
    settings = read_transformer(path / modules[0][1])
    if task == "query" and _expands_queries(settings, options):
        raise _no_queries(path)
    used = [(kind, path / folder) for kind, folder in modules[1:] if kind not in IGNORED]
    layers = [_read_layer(path, kind, folder) for kind, folder in used if kind != "MultiVectorMask"]
    masks = [_read_mask(path, folder) for kind, folder in used if kind == "MultiVectorMask"]
    if options.get("model_type") != "MultiVectorEncoder":  # PyLate does these two without a module for it
        masks.append(({"document"}, _words(options)))
        layers.append(Layer("Normalize", path, JsonObject(options.path, {})))
    prompts, markers = _read_prompts(options)
    return ColBERT(
        layers=tuple(layers),
        skip_words=tuple(word for tasks, words in masks if task in tasks for word in words),
        prompts=prompts,
        markers=markers,
        max_length=settings.count(f"{task}_length") or options.count(f"{task}_length"),
    )


def _expands_queries(settings: JsonObject, options: JsonObject) -> bool:
    for file in (settings, options):
        if "query_expansion" in file:
            return file["query_expansion"] is not None
    return not PYLATE_KEYS.isdisjoint(options) and options.get("do_query_expansion") is not False


def _read_layer(path: Path, kind: str, folder: Path) -> Layer:
    """Read a Dense or a Normalize, which must take and give token states."""
    if kind not in ("Dense", "Normalize"):
        raise unsupported(path, kind, "its vectors are not those of tokens")
    config = read_module_config(path, kind, folder)
    default = "token_embeddings" if kind == "Dense" else "sentence_embedding"
    source = config.get("module_input_name", default)
    target = config.get("module_output_name") or source
    if (source, target) != ("token_embeddings", "token_embeddings"):
        raise unsupported(path, kind, f"its module_input_name is {source!r} and its output {target!r}")
    return Layer(kind, folder, config)


def _read_mask(path: Path, folder: Path) -> tuple[set[str], tuple[str, ...]]:
    """Return the tasks that a MultiVectorMask is for, and the tokens that it leaves out."""
    config = read_module_config(path, "MultiVectorMask", folder)
    if config.get("keep_only_token_ids"):
        raise unsupported(path, "MultiVectorMask", "its keep_only_token_ids are those of images")
    if config.get("skiplist_tasks") is None:
        config["skiplist_tasks"] = ["document"]
    elif isinstance(config["skiplist_tasks"], str):
        config["skiplist_tasks"] = [config["skiplist_tasks"]]
    return {*config.list_of_text("skiplist_tasks")}, tuple(config.list_of_text("skiplist_words"))


def _words(options: JsonObject) -> tuple[str, ...]:
    given = options.get("skiplist_words")
    return tuple(string.punctuation if given is None else options.list_of_text("skiplist_words"))


def _read_prompts(options: JsonObject) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the prompts by name, and the markers before them."""
    saved = options.section("prompts")
    prompts = {"query": "", "document": ""} | {name: text for name, text in saved.items() if text is not None}
    markers = {role: options.text(key) or "" for role, key in _PREFIXES.items() if key in options}
    for role, marker in markers.items():
        prompts[role] = marker + (saved.text(role) or "").removeprefix(marker)
    return prompts, tuple(markers.values())


def _read_stanford(folder: Path, task: Task) -> ColBERT:
    """Read a model by Stanford's library, whose projection is among the weights of the transformer."""
    if task == "query":
        raise _no_queries(folder)
    metadata = read_json(folder / METADATA)
    query, document = metadata.text("query_token_id"), metadata.text("doc_token_id")
    prompts = {"query": f"{query or '[unused0]'} ", "document": f"{document or '[unused1]'} "}
    return ColBERT(
        layers=(Layer("Projection", folder, metadata), Layer("Normalize", folder, metadata)),
        skip_words=tuple(string.punctuation) if metadata.flag("mask_punctuation", True) else (),
        prompts=prompts,
        markers=tuple(prompts.values()),
        max_length=metadata.count("doc_maxlen"),
    )


def _no_queries(path: Path) -> ModelError:
    return ModelError(
        f"model {model_name(path)!r} pads its queries with mask tokens (query expansion), which is not "
        "supported: embed queries with sentence-transformers (MultiVectorEncoder.encode_query), and documents "
        "here, without prompt_name='query'"
    )
