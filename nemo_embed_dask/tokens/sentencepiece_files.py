"""Check a tokenizer that transformers made of a sentencepiece model, for directories without tokenizer.json."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ..errors import ModelError
from ..models.names import model_file, model_name


def find_sentencepiece_file(path: Path) -> Path | None:
    """Return the sentencepiece model that is the directory's only tokenizer, or None.

    Raises
    ------
    ModelError
        There is one, and the libraries that read it are not installed.
    """
    has_other = any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json"))
    file = None if has_other else next(iter(sorted(path.glob("*.model"))), None)
    if file is not None and not all(map(_is_installed, ("sentencepiece", "google.protobuf"))):
        raise ModelError(
            f"the tokenizer of model {model_name(path)!r} is only a sentencepiece model ({file.name}): "
            "pip install 'nemo-embed-dask[sentencepiece]', or pass a directory that also has tokenizer.json"
        )
    return file


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that contains it is missing
        return False


def check_pieces(file: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Check that a tokenizer splits texts into the pieces that sentencepiece itself gives.

    For some classes transformers 5 loses the model's character map.

    Raises
    ------
    ModelError
        They differ.
    """
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    unknown = tokenizer.token_to_id(model.id_to_piece(model.unk_id()))
    for text in texts:
        expected = [
            unknown if model.piece_to_id(piece) == model.unk_id() else tokenizer.token_to_id(piece)
            for piece in model.encode(text, out_type=str)
        ]
        if tokenizer.encode(text, add_special_tokens=False).ids != expected:
            raise ModelError(
                f"transformers splits texts differently from {model_file(file)} (example: {text!r}): pass a "
                "directory with a tokenizer.json, which transformers 4 makes by loading the tokenizer and "
                "saving it"
            )
