"""The files of a model's tokenizer: whether a folder has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ModelError
from .names import model_name

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


def is_file(file: Path) -> bool:
    """Return whether there is such a file."""
    try:
        return file.is_file()
    except OSError:  # for example a name that is too long
        return False


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has all files of a tokenizer of some class."""
    return any(all(has_file(folder, name) for name in names) for names in _TOKENIZERS)


def has_file(folder: Path, pattern: str) -> bool:
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
        is_complete = any(has_file(folder, name) for name in _ANY_CLASS) or (
            # Classes without files, such as ByT5's, need none.
            all(has_file(folder, name) for name in needed or class_files.values())
        )
    if not is_complete:
        raise ModelError(
            f"model {model_name(folder)!r} has no tokenizer: there is no tokenizer.json{_and_no(needed)}, or "
            "it is empty, and transformers would build an empty tokenizer. Fetch the model again, or save the "
            "tokenizer into this directory (tokenizer.save_pretrained)"
        )


def _and_no(needed: Sequence[str]) -> str:
    return f" and no {' with '.join(needed)}" if needed else ""
