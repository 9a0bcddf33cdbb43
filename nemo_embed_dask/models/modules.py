"""Read ``modules.json``, which lists the modules of a sentence-transformers model, each with its folder."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from ..errors import ModelError
from .json_files import JsonObject, load_json, read_json
from .names import model_file, model_name
from .routers import ROUTERS, Task, choose_route, read_routes

# Modules that may follow the pooling. Dropout does nothing at inference.
LAYERS = ("Dense", "LayerNorm", "Normalize")
IGNORED = ("Dropout",)
# Of late interaction models: which tokens have a vector; and PyLate's name of a Dense.
_COLBERT_MODULES = ("MultiVectorMask",)
_PYLATE_DENSE = "pylate.models.Dense.Dense"
# A table of token vectors, in place of a transformer and its pooling.
STATIC = "StaticEmbedding"
# The pooling of logits, and an older name of a Transformer that gives them.
SPLADE, LOGITS = "SpladePooling", "MLMTransformer"
_MODULES = ("Transformer", "Pooling", *LAYERS, *IGNORED, STATIC, SPLADE, LOGITS)
# Models whose Transformer is code of their own, and a repository that has the same weights without it.
_WITHOUT_CODE = {"jina-embeddings-v3": "jinaai/jina-embeddings-v3-hf"}


Module = tuple[str, str]  # its kind and its folder


def read_modules(path: Path, task: Task = "document") -> list[Module]:
    """Return the model's modules in order, as (kind, folder); of a Router those that texts of ``task`` take.

    Without ``modules.json`` the transformer is the only one, or the table of a static model of model2vec.
    """
    listed = [
        inner for module, folder in _listed_modules(path) for inner in _on_route(path, module, folder, task)
    ]
    modules = [_check_module(path, module, folder) for module, folder in listed]
    if modules[0][0] == LOGITS and SPLADE in [kind for kind, _ in modules]:
        modules[0] = ("Transformer", modules[0][1])
    if modules[0][0] == LOGITS:
        raise unsupported(path, listed[0][0], f"only a {SPLADE} takes its logits")
    if modules[0][0] not in ("Transformer", STATIC):
        raise unsupported(path, modules[0][0], f"the first module must be the Transformer or {STATIC}")
    if STATIC in [kind for kind, _ in modules[1:]]:
        raise unsupported(path, STATIC, "it must be the first module")
    return modules


def all_modules(path: Path) -> list[Module]:
    """Return the modules of all routes, as (kind, folder), those of the route "document" first.

    Only their folders are checked, because a route that is not used may have modules of any kind.
    """
    modules: list[Module] = []
    for module, folder in _listed_modules(path):
        routes = read_routes(path, folder) if _kind(module) in ROUTERS else {"": [(module, folder)]}
        for route in sorted(routes, key=lambda name: name != "document"):
            modules += [
                (_kind(inner), _check_folder(path, inner_folder)) for inner, inner_folder in routes[route]
            ]
    return list(dict.fromkeys(modules))


def router_folders(path: Path) -> list[str]:
    """Return the folders of Routers, whose configuration must be read to know the other folders."""
    return [folder for module, folder in _listed_modules(path) if _kind(module) in ROUTERS]


def _listed_modules(path: Path) -> list[Module]:
    """Return what ``modules.json`` lists, as (type, folder)."""
    file = path / "modules.json"
    listed = load_json(file)
    if listed is None:
        is_static = read_json(path / "config.json").get("model_type") == "model2vec"
        return [(f"sentence_transformers.{STATIC if is_static else 'Transformer'}", "")]
    if not listed or not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ModelError(f"{model_file(file)} is not a list of modules; fetch the model again")
    # sentence-transformers keeps one module per name, in the order of the list; it does not use idx.
    modules = [_read_module(path, JsonObject(file, entry)) for entry in listed]
    if len({str(entry["name"]) for entry in listed}) < len(listed):
        raise ModelError(f"{model_file(file)} has two modules of the same name; give each its own")
    return modules


def _read_module(path: Path, entry: JsonObject) -> Module:
    entry.require("name", "type", "path")
    return entry.text("type") or "", _check_folder(path, entry.text("path") or "")


def _check_folder(path: Path, folder: str) -> str:
    outside = PureWindowsPath(folder)
    if outside.anchor or ".." in outside.parts or "\0" in folder:
        raise ModelError(
            f"model {model_name(path)!r} names the folder {folder!r} for a module, which is outside of the "
            "model; correct its modules.json"
        )
    return folder


def _on_route(path: Path, module: str, folder: str, task: Task) -> list[Module]:
    """Return a module, or the modules that a Router stands for."""
    if _kind(module) not in ROUTERS:
        return [(module, folder)]
    return read_routes(path, folder)[choose_route(path, folder, task)]


def _check_module(path: Path, module: str, folder: str) -> Module:
    is_known = _kind(module) in _MODULES + _COLBERT_MODULES and module.startswith("sentence_transformers.")
    if not is_known and module != _PYLATE_DENSE:
        why = "it is not one of sentence-transformers' modules for text"
        if module.partition(".")[0] not in ("sentence_transformers", "pylate"):
            why = (
                "it is code of the model, and trust_remote_code=True runs none for modules; if it only loads "
                "the transformer, write sentence_transformers.models.Transformer into a copy of modules.json"
            )
        raise unsupported(path, module, why)
    return _kind(module), _check_folder(path, folder)


def _kind(module: str) -> str:
    return module.rpartition(".")[2]


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
