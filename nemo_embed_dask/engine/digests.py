"""Hashes of a model's files, which tell models apart wherever their files are."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from pathlib import Path

import torch

from ..device import default_device, number_types, type_name
from ..errors import ModelError
from ..models.adapter_files import find_adapter, find_base
from ..models.files import adapter_files, model_files
from ..models.locate import find_model
from ..models.modules import STATIC, all_modules, read_modules, router_folders
from ..models.names import adapter_name
from ..models.remote_code import find_custom_code, hash_custom_code
from ..models.stamps import Stamp, stamp_folder, stamp_model
from ..models.stored_type import stored_type
from ..models.weight_files import weight_files
from ..settings import Settings
from .model import load_runtime


def model_digests(settings: Settings) -> dict[str, str]:
    """Return hashes of the model's files, and the number type of the computation on this machine.

    Returns
    -------
    dict
        ``weights``; ``tokenizer_and_config``; ``base`` if the model is an adapter; ``code`` if its own code
        runs; ``adapter`` if one is given; ``computes_in``: the number type that the model runs in. On a GPU
        the model is loaded to find out.
    """
    path = find_model(settings.model)
    with_export = settings.runtime == "openvino"
    found = dict(_digests(path, stamp_model(path), with_export=with_export))
    base = find_base(settings.model, path)
    if base is not None:
        found["base"] = " ".join(_digests(base, stamp_model(base), with_export=with_export).values())
    code = find_custom_code(settings.model, path)
    if code:
        found["code"] = hash_custom_code(code)
    if settings.adapter is not None:
        adapter = find_adapter(settings.adapter, settings.model, path)
        found["adapter"] = _adapter_hash(adapter, stamp_folder(adapter))
    return found | {"computes_in": _number_type(settings, base or path)}


def _number_type(settings: Settings, path: Path) -> str:
    device = torch.device("cpu") if settings.runtime == "openvino" else default_device()
    kind, folder = read_modules(path, settings.model.task)[0]
    autocast = settings.autocast and kind != STATIC  # which always computes in float32
    types = number_types(device, autocast=autocast, stored=partial(stored_type, path / folder))
    return type_name(types[0]) if len(types) == 1 else load_runtime(settings).number_type


@lru_cache(maxsize=8)
def _digests(path: Path, stamp: Stamp, *, with_export: bool) -> dict[str, str]:
    del stamp  # part of the cache's key
    files = _files(path)
    names = [file.relative_to(path).as_posix() for file in files]
    # Other files, such as onnx/config.json, depend on which program has downloaded the model.
    modules = all_modules(path)
    folders = [folder for _, folder in modules]
    read = [path / name for name in model_files(names, [*folders, *router_folders(path)])]
    others = [file for file in read if file.suffix not in (".safetensors", ".bin")]
    transformers = [path / folder for kind, folder in modules if kind == "Transformer"]
    named = {folder / name for folder in transformers for name in weight_files(folder)}
    weights = sorted(named.intersection(files).union(read).difference(others))
    if with_export:
        weights += [f for f in files if f.parent.name == "openvino" and f.suffix in {".xml", ".bin"}]
    return {"weights": _hash(weights, path), "tokenizer_and_config": _hash(others, path)}


@lru_cache(maxsize=8)
def _adapter_hash(path: Path, stamp: Stamp) -> str:
    del stamp  # part of the cache's key
    # Other files, such as README.md, depend on where the adapter comes from.
    files = [path / name for name in adapter_files(path) if (path / name).is_file()]
    if not files:
        raise ModelError(f"adapter={adapter_name(path)!r} is not a directory with an adapter in it")
    return _hash(files, path)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def _hash(files: list[Path], root: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            whole.update(f"{file.relative_to(root).as_posix()} ".encode())
            whole.update(hashlib.file_digest(handle, "sha256").digest())
    return whole.hexdigest()
