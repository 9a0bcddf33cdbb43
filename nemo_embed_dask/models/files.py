"""The files of a model's directory: which it needs, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .colbert import METADATA, is_stanford
from .modules import SPLADE, STATIC, all_modules
from .names import model_name
from .sentence_transformers import TRANSFORMER_FILES
from .weight_files import (
    ADAPTER_WEIGHTS,
    PICKLED_ADAPTER,
    SAFE_NAMES,
    WEIGHTS,
    are_weights,
    is_file,
    is_pickled,
    missing_weights,
)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
PICKLED_ADAPTER_FILES = (ADAPTER_CONFIG, PICKLED_ADAPTER)
# One of these is in every model's directory.
CONFIG_FILES = ("config.json", "modules.json", ADAPTER_CONFIG)
# Endings of the files that are read. Of those that end with .bin, only pickled weights are.
READ = (".json", ".txt", ".model", ".jinja", ".safetensors", ".bin", METADATA)
# What transformers builds a tokenizer from: all files of one of these. Without them it builds an empty one.
_TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.*.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("*.model",),
    ("tekken.json",),
)
_ANY_CLASS = ("tokenizer.json", "tokenizer.*.json", "tekken.json", "tokenizer.model*", "tiktoken.model")
# Files of the tokenizer that a model may lack, and that change its tokens if it has them. What
# special_tokens_map.json and added_tokens.json say is in these two as well.
_TOKENIZER_OPTIONS = ("tokenizer.json", "tokenizer_config.json")
# The modules besides the transformer that need a configuration in their folder, and those with weights.
_CONFIGURED = ("Pooling", "Dense", "LayerNorm", "MultiVectorMask", SPLADE)
_LAYERS_WITH_WEIGHTS = ("Dense", "LayerNorm")


def missing_files(path: Path) -> list[str]:
    """Return the files that a model's directory needs and does not have, as paths relative to it."""
    names = []
    for kind, folder in all_modules(path):
        if kind == "Transformer":
            missing = _missing_transformer_files(path / folder)
        elif kind == STATIC:
            missing = _missing_table_files(path / folder)
        else:
            missing = _missing_module_files(kind, path / folder)
        names += [_join(folder, name) for name in missing]
    return names


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter in place of a transformer."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def adapter_files(folder: Path) -> tuple[str, ...]:
    """Return the names of an adapter's files; its weights are pickled only where it has no safetensors."""
    is_pickled_one = is_file(folder / PICKLED_ADAPTER) and not is_file(folder / ADAPTER_WEIGHTS)
    return PICKLED_ADAPTER_FILES if is_pickled_one else ADAPTER_FILES


def _missing_transformer_files(folder: Path) -> list[str]:
    if is_adapter(folder):  # it may use the tokenizer of its base model
        return [name for name in adapter_files(folder) if not is_file(folder / name)]
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    return missing + missing_weights(folder) + ([] if has_tokenizer(folder) else ["tokenizer.json"])


def _missing_module_files(kind: str, folder: Path) -> list[str]:
    missing = ["config.json"] if kind in _CONFIGURED and not (folder / "config.json").is_file() else []
    return missing + (missing_weights(folder) if kind in _LAYERS_WITH_WEIGHTS else [])


def _missing_table_files(folder: Path) -> list[str]:
    return [name for name in (WEIGHTS, "tokenizer.json") if not _has_file(folder, name)]


def missing_options(path: Path) -> list[str]:
    """Return the files that would change the model's vectors, and that its directory does not have.

    Most models lack some of them. In a directory that may be incomplete, such as the Hugging Face cache, their
    absence must be known.
    """
    modules = all_modules(path)
    transformers = [folder for kind, folder in modules if kind == "Transformer"]
    tables = [folder for kind, folder in modules if kind == STATIC]
    options = ["modules.json", *(_join(folder, "config.json") for folder in tables)]
    options += [_join(folder, name) for folder in transformers for name in _TOKENIZER_OPTIONS]
    if (path / "modules.json").is_file():
        options.append("config_sentence_transformers.json")
        options += [name for folder in transformers for name in _transformer_options(path, folder)]
        options += [METADATA] if modules == [("Transformer", "")] else []
    elif transformers:  # sentence-transformers reads none of these, but puts texts into a chat template
        options += ["chat_template.jinja", *([METADATA] if is_stanford(path) else [])]
    pickled = [
        folder
        for kind, folder in modules
        if kind in ("Transformer", *_LAYERS_WITH_WEIGHTS) and is_pickled(path / folder)
    ]
    options += [_join(folder, name) for folder in pickled for name in SAFE_NAMES]
    adapters = [folder for folder in transformers if is_adapter(path / folder)]
    options += [_join(folder, ADAPTER_WEIGHTS) for folder in adapters]
    return [name for name in options if not (path / name).is_file()]


def _transformer_options(path: Path, transformer: str) -> list[str]:
    """Return the files for the transformer's settings, up to the first that exists: only that one is read."""
    names = [_join(transformer, name) for name in TRANSFORMER_FILES]
    present = [(path / name).is_file() for name in names]
    return names[: present.index(True)] if True in present else names


def _join(folder: str, name: str) -> str:
    return (PurePosixPath(folder) / name).as_posix()


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has all files of a tokenizer of some class."""
    return any(all(_has_file(folder, name) for name in names) for names in _TOKENIZERS)


def _has_file(folder: Path, pattern: str) -> bool:
    """Return whether a folder has a file that matches a pattern and is not empty."""
    return any(is_file(file) and file.stat().st_size for file in folder.glob(pattern))


def check_tokenizer(folder: Path, class_files: Mapping[str, str] | None = None) -> None:
    """Raise ModelError if a transformer's folder has no tokenizer.

    Parameters
    ----------
    folder : Path
    class_files : mapping of str to str, optional
        ``vocab_files_names`` of the tokenizer's class in transformers: the files that it is built from if there
        is no ``tokenizer.json``. None, if the class is not known, accepts the files of any class.
    """
    if class_files is None:
        needed, is_complete = ["vocabulary"], has_tokenizer(folder)
    else:
        needed = [name for key, name in class_files.items() if key != "tokenizer_file"]
        is_complete = any(_has_file(folder, name) for name in _ANY_CLASS) or (
            # Classes without files, such as ByT5's, need none.
            all(_has_file(folder, name) for name in needed or class_files.values())
        )
    if not is_complete:
        raise ModelError(
            f"model {model_name(folder)!r} has no tokenizer: there is no tokenizer.json{_and_no(needed)}, or "
            "it is empty, and transformers would build an empty tokenizer. Fetch the model again, or save the "
            "tokenizer into this directory (tokenizer.save_pretrained)"
        )


def _and_no(needed: Sequence[str]) -> str:
    return f" and no {' with '.join(needed)}" if needed else ""


def model_files(names: Iterable[str], folders: Iterable[str], tables: Iterable[str] = ()) -> list[str]:
    """Return those files of a repository or a directory that this package reads.

    Parameters
    ----------
    names : iterable of str
        All of its files, as paths relative to it.
    folders : iterable of str
        The folders of the model's modules.
    tables : iterable of str
        Those of static models, whose pickled files are not read.
    """
    paths = [PurePosixPath(name) for name in names if name.endswith(READ)]
    module_folders = {PurePosixPath(folder) for folder in folders}
    present = set(paths)
    table_folders = {PurePosixPath(folder) for folder in tables}

    def is_read(path: PurePosixPath) -> bool:
        if path.suffix not in (".safetensors", ".bin"):
            return path.parent in module_folders | {PurePosixPath()}
        is_table = path.suffix == ".bin" and path.parent in table_folders
        return path.parent in module_folders and not is_table and are_weights(path, present)

    return [path.as_posix() for path in paths if is_read(path)]
