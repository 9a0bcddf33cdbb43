"""Code of a model's repository, which runs only if the user says ``trust_remote_code=True``."""

from __future__ import annotations

import importlib
import sys
import threading
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ModelError, type_and_message
from .code_files import Reference, code_files, hash_code, read_references
from .hub import ModelRef
from .json_files import JsonObject
from .kinds import warn_of_custom_code
from .modules import read_modules
from .names import commit_of, model_name
from .notices import warn_once
from .older_code import add_older_methods, older_imports
from .pinning import find_code
from .stamps import Stamp, stamp_folder


@dataclass(frozen=True)
class CustomClass:
    """A class that stands in for one of transformers (``loader``), in a module of a folder on this machine."""

    loader: str
    module: str
    name: str
    folder: Path

    @property
    def files(self) -> list[Path]:
        """The files that are imported with the class."""
        return code_files(self.folder, self.module)


CustomCode = tuple[CustomClass, ...]
# The packages in which code of models is imported begin with this name.
CODE_PACKAGE = "nemo_embed_dask_code"
_import_lock = threading.Lock()


def find_custom_code(ref: ModelRef, path: Path) -> CustomCode:
    """Return the classes of the model's own code; none if the user does not trust it.

    Parameters
    ----------
    ref : ModelRef
    path : Path
        The model's directory. Code in another repository is downloaded if it is not in the cache.

    Raises
    ------
    ModelError
        A file is missing, or it is not known which commit of another repository the model needs.
    """
    if not ref.trust_remote_code:
        return ()
    folder = path / read_modules(path, ref.task)[0][1]
    return tuple(_find_class(ref, folder, reference) for reference in read_references(folder))


def _find_class(ref: ModelRef, folder: Path, reference: Reference) -> CustomClass:
    place = folder
    if reference.repository not in (None, ref.identifier):
        place = find_code(ref, reference, model_name(folder))
    found = CustomClass(reference.loader, reference.module, reference.name, place.resolve())
    missing = [file.name for file in found.files if not file.is_file()]
    if missing:
        raise ModelError(
            f"model {model_name(folder)!r} needs {missing[0]}, a file of its own code, which is missing: fetch "
            "the model again, with its Python files"
        )
    return found


def check_base(ref: ModelRef, path: Path, base: Path) -> None:
    """Refuse to run code of an adapter's base model, whose commit is not known when the stage is made."""
    if ref.trust_remote_code and read_references(base / read_modules(base, ref.task)[0][1]):
        raise ModelError(
            f"model {model_name(path)!r} is a PEFT adapter of {model_name(base)!r}, which has code of its own: "
            f"pass the base model as model_identifier, trust_remote_code=True, and adapter={ref.identifier!r}"
        )


def stamp_code(code: CustomCode) -> Stamp:
    """Return the stamp of the folders with a model's own code."""
    folders = dict.fromkeys(each.folder for each in code)
    return tuple(chain(*(stamp_folder(folder, str(folder), (".py",)) for folder in folders)))


def hash_custom_code(code: CustomCode) -> str:
    """Return a hash of all files that are imported with a model's own classes."""
    return hash_code({file for each in code for file in each.files})


def custom_class(code: CustomCode, loader: str) -> Any:
    """Import the model's own class that stands in for a class of transformers; None if it has none.

    Raises
    ------
    ModelError
        Importing it fails.
    """
    for each in code:
        if each.loader == loader:
            return _import_class(each)
    return None


def _import_class(custom: CustomClass) -> Any:
    # The name has a hash of the code, so that changed code is imported again. transformers would copy the files
    # into a folder that all processes share, where one may read what another is writing.
    digest = hash_code({*custom.folder.glob("*.py"), *custom.files}, str(custom.folder))
    package = f"{CODE_PACKAGE}_{digest[:16]}"
    with _import_lock:
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            if package not in sys.modules:
                spec = ModuleSpec(package, None, is_package=True)
                spec.submodule_search_locations = [str(custom.folder)]
                sys.modules[package] = module_from_spec(spec)
            with older_imports():
                found = getattr(importlib.import_module(f"{package}.{custom.module}"), custom.name)
            if not isinstance(found, type):
                raise ModelError(
                    f"auto_map of model {model_name(custom.folder)!r} names {custom.module}.{custom.name} for "
                    f"{custom.loader}, which is not a class; correct the file"
                )
            if custom.loader == "AutoModel":
                add_older_methods(found)
            return found
        except (ModelError, MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the code may even exit
            raise ModelError(
                f"{custom.module}.py of model {model_name(custom.folder)!r} cannot be imported "
                f"({type_and_message(error, 300)}): install what it needs, such as the version of "
                "transformers that it was written for"
            ) from error
        finally:
            sys.dont_write_bytecode = writes_bytecode


def rebuild(model: Any, dtype: Any, **options: Any) -> Any:
    """Build a model of own code again, with the weights that were loaded.

    transformers 5 builds it without memory. Tensors that the code computes and no file has, such as rotary
    frequencies, then get memory without values; in transformers' own classes a function computes them again.
    """
    built = type(model)._from_config(model.config, dtype=dtype, **options)
    built.load_state_dict(model.state_dict(), assign=True)
    return built


def is_custom(model: object) -> bool:
    """Return whether an object is of a class of a model's own code, and not of transformers."""
    return not type(model).__module__.startswith("transformers.")


def warn_of_code(path: Path, config: JsonObject, tokenizer: JsonObject, code: CustomCode) -> None:
    """Warn of code that runs, with its commit and files, or of code that does not run.

    ``config`` and ``tokenizer`` are the contents of ``config.json`` and ``tokenizer_config.json``.
    """
    if not code:
        warn_of_custom_code(path, config, tokenizer)
        return
    key = hash_custom_code(code)
    parts = []
    for folder in dict.fromkeys(each.folder for each in code):
        files = sorted({file.name for each in code if each.folder == folder for file in each.files})
        commit = commit_of(folder)
        version = f"commit {commit}" if commit else f"a directory, SHA-256 {key[:12]}"
        parts.append(f"{', '.join(files)} of {model_name(folder)!r} ({version})")
    message = (
        f"trust_remote_code=True: model {model_name(path)!r} runs code in this process: {' and '.join(parts)}"
    )
    warn_once(path, key, message=message)
