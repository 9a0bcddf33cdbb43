"""The code that a model's files name (``auto_map``): its classes, the files that it is made of, their stamp.

Nothing here imports that code.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import ModelError
from .json_files import JsonObject, read_json
from .names import model_file

_REFERENCE = re.compile(r"(?:(?P<repository>[\w.-]+/[\w.-]+)--)?(?P<module>\w+)\.(?P<name>\w+)")


@dataclass(frozen=True)
class Reference:
    """A class that a model's files name.

    ``loader``: the class of transformers that it stands in for, such as "AutoModel". ``module``: its file,
    without ".py". ``repository``: where the file is on the hub; None for the model's own.
    """

    loader: str
    module: str
    name: str
    repository: str | None


def read_references(folder: Path) -> list[Reference]:
    """Return the classes for the model, its configuration and its tokenizer that files in its folder name.

    Raises
    ------
    ModelError
        A name is not one of a class in a module.
    """
    config, tokenizer = (read_json(folder / name) for name in ("config.json", "tokenizer_config.json"))
    named = config.section("auto_map")
    # A configuration without its model would not fit the class of transformers.
    loaders = ("AutoConfig", "AutoModel") if "AutoModel" in named else ()
    found = [_parse(config, loader, named[loader]) for loader in loaders if loader in named]
    own_tokenizer = _tokenizer_reference(tokenizer) or _last(named.get("AutoTokenizer"))
    return found + ([_parse(tokenizer, "AutoTokenizer", own_tokenizer)] if own_tokenizer else [])


def _tokenizer_reference(tokenizer: JsonObject) -> object:
    """Return the name of the tokenizer's class; older files have a list of the slow and the fast one."""
    named = tokenizer.get("auto_map")
    return _last(named if isinstance(named, list) else tokenizer.section("auto_map").get("AutoTokenizer"))


def _last(named: object) -> object:
    given = [name for name in named if name] if isinstance(named, list) else [named]
    return given[-1] if given else None


def _parse(file: JsonObject, loader: str, named: object) -> Reference:
    match = _REFERENCE.fullmatch(named) if isinstance(named, str) else None
    if match is None:
        raise ModelError(
            f"{model_file(file.path)}: auto_map names {named!r:.80} for {loader}, not a class such as "
            "'modeling.Model'; correct the file"
        )
    return Reference(loader, match["module"], match["name"], match["repository"])


def code_files(folder: Path, module: str) -> list[Path]:
    """Return the file of a module and those that it imports from its folder, whether they exist or not."""
    found: dict[Path, None] = {}
    pending = [folder / f"{module}.py"]
    while pending:
        file = pending.pop()
        if file not in found:
            found[file] = None
            pending += _imported_files(file)
    return list(found)


def _imported_files(file: Path) -> Iterator[Path]:
    """Yield the files that a file imports with ``from .module import name``."""
    for level, name in _relative_imports(file.read_bytes()) if file.is_file() else ():
        target = file.parents[level - 1].joinpath(*name.split("."))
        yield target / "__init__.py" if target.is_dir() else target.with_name(f"{target.name}.py")


@lru_cache(maxsize=64)
def _relative_imports(source: bytes) -> list[tuple[int, str]]:
    """Return the modules that code imports from its own package, each with its number of dots."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # importing it will say so
        return []
    relative = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    return [
        (node.level, name)
        for node in relative
        for name in ([node.module] if node.module else [alias.name for alias in node.names])
    ]


def missing_code(folder: Path) -> list[str]:
    """Return the files of a model's own code that are not in its folder."""
    own = [reference for reference in read_references(folder) if reference.repository is None]
    files = {file for reference in own for file in code_files(folder, reference.module)}
    return sorted(file.relative_to(folder).as_posix() for file in files if not file.is_file())


def hash_code(files: Iterable[Path], salt: str = "") -> str:
    """Return a hash of the names and the contents of some files, and of ``salt``."""
    whole = hashlib.sha256(salt.encode())
    for file in sorted(files):
        whole.update(f"{file.name} ".encode())
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()
