"""Why transformers cannot load a model, and what to do about it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..errors import ModelError, type_and_message
from .json_files import read_json
from .kinds import load_failure
from .names import model_name
from .remote_code import CustomCode

# Models of the kind of those that need code of their own (jina-embeddings-v2, nomic-embed-text-v2-moe).
_INSTEAD = (
    "use a model that transformers implements, such as 'Alibaba-NLP/gte-base-en-v1.5' or "
    "'jinaai/jina-embeddings-v3-hf'"
)


def other_ways(path: Path, code: CustomCode, otherwise: str = "use another model") -> str:
    """Return what to do about a model that transformers' class does not fit.

    Parameters
    ----------
    path : Path
        The directory with its config.json.
    code : CustomCode
        The classes of the model's own code, if the user trusts it.
    otherwise : str
        The advice for a model that has no code, or whose code runs already.
    """
    if code or "AutoModel" not in read_json(path / "config.json").section("auto_map"):
        return otherwise
    return (
        "it has code of its own, which runs with trust_remote_code=True if you have read and trust it; or "
        f"{_INSTEAD}"
    )


def class_in_transformers(model: nn.Module) -> str:
    """Return the name of a model's class, with the version of transformers."""
    import transformers

    return f"{type(model).__name__} of transformers {transformers.__version__}"


def damaged_model(path: Path, error: BaseException, code: CustomCode) -> ModelError:
    """Return the error for a model whose files make a loader fail."""
    if code:
        return ModelError(
            f"model {model_name(path)!r} cannot be loaded with its own code ({type_and_message(error, 300)}): "
            "its files are damaged, or the code needs the version of transformers that it was written for"
        )
    is_alibi = read_json(path / "config.json").get("position_embedding_type") == "alibi"
    advice = other_ways(path, code, _INSTEAD if is_alibi else "")
    return ModelError(
        f"model {model_name(path)!r} cannot be loaded by transformers ({load_failure(error)}): "
        + (f"{advice}; or, if " if advice else "")
        + "its config.json or weights are damaged or belong to another model"
        + (", " if advice else "; ")
        + "fetch the model again"
    )


def unknown_model(path: Path, why: str, code: CustomCode) -> ModelError:
    """Return the error for a model of a type that transformers does not know."""
    import transformers

    named = read_json(path / "config.json").section("auto_map")
    if code and "AutoModel" in named:
        return ModelError(
            f"model {model_name(path)!r} names a class of its own for the model, but none for its "
            "configuration (AutoConfig in auto_map of config.json), and transformers "
            f"{transformers.__version__} does not know its type: add the class to a copy "
            "of the file, or ask the model's authors"
        )
    trust = (
        ", or, if you have read its code and trust it, trust_remote_code=True" if "AutoModel" in named else ""
    )
    return ModelError(
        f"transformers {transformers.__version__} does not know the model {model_name(path)!r}, and a model's "
        "own code is run only if it is trusted: use a model that transformers knows, a newer "
        f"transformers{trust} ({why})"
    )
