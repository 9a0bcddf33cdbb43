"""The files of a model's directory: which it needs, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .colbert import METADATA, is_stanford
from .json_files import read_json
from .modules import SPLADE, STATIC, all_modules
from .names import model_name
from .sentence_transformers import TRANSFORMER_FILES

WEIGHTS = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors")
# One of these is in every model's directory.
CONFIG_FILES = ("config.json", "modules.json", ADAPTER_CONFIG)
# Endings of the files that are read. Pickled weights (*.bin, *.pt) are not among them.
READ = (".json", ".txt", ".model", ".jinja", ".safetensors", METADATA)
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
# The files that a module needs in its folder, besides those of the transformer.
_MODULE_FILES = {
    "Pooling": ("config.json",),
    "Dense": ("config.json", WEIGHTS),
    "LayerNorm": ("config.json", WEIGHTS),
    "MultiVectorMask": ("config.json",),
    SPLADE: ("config.json",),
}


def missing_files(path: Path) -> list[str]:
    """Return the files that a model's directory needs and does not have, as paths relative to it."""
    names = []
    for kind, folder in all_modules(path):
        if kind == "Transformer":
            missing = _missing_transformer_files(path / folder)
        elif kind == STATIC:
            missing = _missing_table_files(path / folder)
        else:
            missing = [name for name in _MODULE_FILES.get(kind, ()) if not (path / folder / name).is_file()]
        names += [_join(folder, name) for name in missing]
    return names


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter in place of a transformer."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def _missing_transformer_files(folder: Path) -> list[str]:
    if is_adapter(folder):  # it may use the tokenizer of its base model
        return [name for name in ADAPTER_FILES if not _is_file(folder / name)]
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    return missing + missing_weights(folder) + ([] if has_tokenizer(folder) else ["tokenizer.json"])


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
    elif transformers:  # sentence-transformers reads none of these, but puts texts into a chat template
        options += ["chat_template.jinja", *([METADATA] if is_stanford(path) else [])]
    return [name for name in options if not (path / name).is_file()]


def _transformer_options(path: Path, transformer: str) -> list[str]:
    """Return the files for the transformer's settings, up to the first that exists: only that one is read."""
    names = [_join(transformer, name) for name in TRANSFORMER_FILES]
    present = [(path / name).is_file() for name in names]
    return names[: present.index(True)] if True in present else names


def _join(folder: str, name: str) -> str:
    return (PurePosixPath(folder) / name).as_posix()


def weight_files(folder: Path) -> list[str]:
    """Return the names of a transformer's weight files: ``model.safetensors``, or its shards."""
    config = read_json(folder / "config.json")
    name = str(config.get("transformers_weights") or WEIGHTS).removesuffix(".index.json")
    if _is_file(folder / name):
        return [name]
    shards = read_json(folder / f"{name}.index.json").get("weight_map")
    return sorted({*map(str, shards.values())}) if isinstance(shards, dict) and shards else [name]


def missing_weights(folder: Path) -> list[str]:
    """Return the weight files that a transformer's folder lacks."""
    return [name for name in weight_files(folder) if not _is_file(folder / name)]


def check_weights(folder: Path) -> None:
    """Raise ModelError if a transformer's folder lacks its configuration or some of its weights."""
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model {model_name(folder)!r} has no config.json, which describes the model: fetch the model again"
        )
    missing = missing_weights(folder)
    if not missing:
        return
    found = sorted(file.name for file in folder.glob("*.safetensors") if file.is_file())
    if not found:
        raise ModelError(
            f"model {model_name(folder)!r} has no safetensors weights, and pickled ones are never loaded: ask "
            "its authors for safetensors, or convert it and pass that directory"
        )
    raise ModelError(
        f"model {model_name(folder)!r} lacks the weights {_listed(missing)}; its safetensors files are "
        f"{_listed(found)}: fetch the model again, or, if these are all of its weights, save it again with "
        f"transformers as {WEIGHTS}"
    )


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has all files of a tokenizer of some class."""
    return any(all(_has_file(folder, name) for name in names) for names in _TOKENIZERS)


def _has_file(folder: Path, pattern: str) -> bool:
    """Return whether a folder has a file that matches a pattern and is not empty."""
    return any(_is_file(file) and file.stat().st_size for file in folder.glob(pattern))


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # for example a name that is too long
        return False


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


def _listed(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def model_files(names: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Return those files of a repository or a directory that this package reads.

    Parameters
    ----------
    names : iterable of str
        All of its files, as paths relative to it.
    folders : iterable of str
        The folders of the model's modules.
    """
    paths = [PurePosixPath(name) for name in names if name.endswith(READ)]
    module_folders = {PurePosixPath(folder) for folder in folders}
    single = {path.parent for path in paths if path.name == WEIGHTS}

    def is_read(path: PurePosixPath) -> bool:
        if path.suffix != ".safetensors":
            return path.parent in module_folders | {PurePosixPath()}
        # Without model.safetensors all others may be its shards.
        return path.parent in module_folders and (path.name == WEIGHTS or path.parent not in single)

    return [path.as_posix() for path in paths if is_read(path)]
