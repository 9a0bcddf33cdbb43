"""Read ``modules.json``, which lists the modules of a sentence-transformers model, each with its folder."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from ..errors import ModelError
from .json_files import JsonObject, load_json, read_json
from .names import model_file, model_name

# Modules that may follow the pooling. Dropout does nothing at inference.
LAYERS = ("Dense", "LayerNorm", "Normalize")
IGNORED = ("Dropout",)
# A table of token vectors, in place of a transformer and its pooling.
STATIC = "StaticEmbedding"
# The pooling of logits, which follows a transformer with its language model's head; and an older name of that.
SPLADE = "SpladePooling"
_OLD_NAMES = {"MLMTransformer": "Transformer"}
_MODULES = ("Transformer", "Pooling", *LAYERS, *IGNORED, STATIC, SPLADE)
# Models whose Transformer is code of their own, and a repository that has the same weights without it.
_WITHOUT_CODE = {"jina-embeddings-v3": "jinaai/jina-embeddings-v3-hf"}


def read_modules(path: Path) -> list[tuple[str, str]]:
    """Return the model's modules in order, as (kind, folder).

    Without ``modules.json`` the transformer is the only one, or the table of a static model of model2vec.
    """
    file = path / "modules.json"
    listed = load_json(file)
    if listed is None:
        is_static = read_json(path / "config.json").get("model_type") == "model2vec"
        return [(STATIC if is_static else "Transformer", "")]
    if not listed or not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ModelError(f"{model_file(file)} is not a list of modules; fetch the model again")
    modules = [_read_module(path, JsonObject(file, entry)) for entry in listed]
    # sentence-transformers keeps one module per name, in the order of the list; it does not use idx.
    if len({str(entry["name"]) for entry in listed}) < len(listed):
        raise ModelError(f"{model_file(file)} has two modules of the same name; give each its own")
    if modules[0][0] not in ("Transformer", STATIC):
        raise unsupported(path, modules[0][0], f"the first module must be the Transformer or {STATIC}")
    if STATIC in [kind for kind, _ in modules[1:]]:
        raise unsupported(path, STATIC, "it must be the first module")
    return modules


def _read_module(path: Path, entry: JsonObject) -> tuple[str, str]:
    entry.require("name", "type", "path")
    module, folder = entry.text("type") or "", entry.text("path") or ""
    kind = module.rpartition(".")[2]
    kind = _OLD_NAMES.get(kind, kind)
    if kind not in _MODULES or not module.startswith("sentence_transformers."):
        raise unsupported(path, module, "it is not one of sentence-transformers' modules for text")
    outside = PureWindowsPath(folder)
    if outside.anchor or ".." in outside.parts or "\0" in folder:
        raise ModelError(
            f"{model_file(entry.path)} names the folder {folder!r}, which is outside of the model; correct it"
        )
    return kind, folder


def unsupported(path: Path, module: str, why: str) -> ModelError:
    """Return the error for a model with a module that this package cannot run."""
    name = model_name(path)
    same = _WITHOUT_CODE.get(name.rpartition("/")[2])
    advice = (
        f"use {same!r}, which has the same weights" if same else f"use a model made of {', '.join(_MODULES)}"
    )
    return ModelError(
        f"model {name!r} has the module {module!r}, which is not supported ({why}) and cannot be left out "
        f"without changing the vectors; {advice}"
    )
