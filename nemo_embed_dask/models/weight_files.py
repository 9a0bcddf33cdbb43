"""The weight files of a module: safetensors, or pickled files where there are none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .json_files import read_json
from .names import model_name

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"
# Pickled weights are read only where there is none of these.
SAFE_NAMES = (WEIGHTS, f"{WEIGHTS}.index.json")
_PICKLED_NAME = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


def weight_files(folder: Path) -> list[str]:
    """Return the names of a module's weight files.

    They are ``model.safetensors`` or its shards, and without these ``pytorch_model.bin`` or its shards.
    """
    named = read_json(folder / "config.json").get("transformers_weights")
    names = [str(named).removesuffix(".index.json")] if named else [WEIGHTS, PICKLED]
    found = (_file_or_shards(folder, name) for name in names)
    return next((files for files in found if files), names[:1])


def _file_or_shards(folder: Path, name: str) -> list[str]:
    """Return the name of a file, or of the shards that its index lists; empty if there is neither."""
    if is_file(folder / name):
        return [name]
    shards = read_json(folder / f"{name}.index.json").get("weight_map")
    return sorted({*map(str, shards.values())}) if isinstance(shards, dict) else []


def weight_bytes(folder: Path) -> int:
    """Return the size of a module's weight files."""
    return sum((folder / name).stat().st_size for name in weight_files(folder) if is_file(folder / name))


def is_pickled(folder: Path) -> bool:
    """Return whether the weights of a module are read from pickled files."""
    return weight_files(folder)[0].endswith(".bin")


def missing_weights(folder: Path) -> list[str]:
    """Return the weight files that a module's folder lacks."""
    return [name for name in weight_files(folder) if not is_file(folder / name)]


def check_weights(folder: Path) -> None:
    """Raise ModelError if a transformer's folder lacks its configuration or some of its weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model {model_name(folder)!r} has no config.json, which describes the model: fetch the model again"
        )
    missing = missing_weights(folder)
    if not missing:
        return
    files = [file.name for file in folder.iterdir() if file.is_file()]
    found = sorted(name for name in files if name.endswith(".safetensors") or _PICKLED_NAME.fullmatch(name))
    if not found:
        raise ModelError(
            f"model {model_name(folder)!r} has no safetensors weights and no {PICKLED}: fetch the model "
            "again, or ask its authors for safetensors"
        )
    raise ModelError(
        f"model {model_name(folder)!r} lacks the weights {_listed(missing)}; its files of weights are "
        f"{_listed(found)}: fetch the model again, or, if these are all of its weights, save it again with "
        f"transformers as {WEIGHTS}"
    )


def _listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def is_file(file: Path) -> bool:
    """Return whether this is a file; a name that no file can have is none."""
    try:
        return file.is_file()
    except OSError:  # for example a name that is too long
        return False


def are_weights(path: PurePosixPath, present: set[PurePosixPath]) -> bool:
    """Return whether weights are read if these files are present: pickled ones only without safetensors."""
    if path.name == PICKLED_ADAPTER:
        return not any(path.with_name(name) in present for name in (*SAFE_NAMES, PICKLED, ADAPTER_WEIGHTS))
    is_safe = path.suffix == ".safetensors"
    if not is_safe and (
        not _PICKLED_NAME.fullmatch(path.name) or any(path.with_name(name) in present for name in SAFE_NAMES)
    ):
        return False
    # Without the single file all others may be its shards.
    single = path.with_name(WEIGHTS if is_safe else PICKLED)
    return path == single or single not in present
