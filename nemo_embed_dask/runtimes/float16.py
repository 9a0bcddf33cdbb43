"""Find the models that must not run in float16, because their values overflow it.

Where a value overflows, the row's vector is NaN or infinite, and the engine computes the row again in another
type. That takes twice the time, and needs a model that lets the overflow reach its output.
"""

from __future__ import annotations

import inspect
import re

from torch import nn

from ..ragged import Ragged
from . import tables
from .layouts import make_probe

_FLOAT16, _COMMENT = re.compile(r"(?<!b)float16"), re.compile(r"#.*")
_LENGTH = 64
# Tokens with these roles often have the largest values of a text.
_SPECIAL = ("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")


def treats_float16(model: nn.Module) -> bool:
    """Return whether a part of the model has code of its own for float16, by its source.

    In transformers this is T5 and its relatives, which replace values that overflow by the largest number, so
    that their states are finite and wrong. Gemma counts too: its activations exceed float16's range (model card
    of EmbeddingGemma).
    """
    if "gemma" in str(getattr(tables.text_config(model), "model_type", "")):
        return True
    return any(_FLOAT16.search(_source(kind)) for kind in {type(module) for module in model.modules()})


def _source(kind: type[nn.Module]) -> str:
    """Return the source of a module's forward pass without comments."""
    try:
        return _COMMENT.sub("", inspect.getsource(kind.forward))
    except (OSError, TypeError):  # there is no file of it
        return ""


def overflow_probe(model: nn.Module) -> Ragged:
    """Return a row of random token ids among the special tokens of the model's configuration."""
    config, vocabulary = tables.text_config(model), tables.vocabulary_size(model)
    row = make_probe(model, [_LENGTH])
    named = [getattr(config, name, None) for name in _SPECIAL]
    special = [token for token in named if isinstance(token, int) and 0 <= token < vocabulary]
    row.values[: len(special)] = special[: len(row.values)]
    return row
