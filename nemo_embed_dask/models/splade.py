"""Models that give weights of the vocabulary's tokens (SPLADE): their settings, and their head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, type_and_message
from .json_files import JsonObject
from .load_failures import damaged_model
from .modules import IGNORED, SPLADE, unsupported
from .names import model_name
from .pickled import weight_arguments
from .sentence_transformers import read_module_config
from .weights import load_config, silent_transformers

_STRATEGIES = ("max", "sum")
# The activations of logits, and how many logarithms follow the ReLU.
_ACTIVATIONS = {"relu": 1, "log1p_relu": 2}


@dataclass(frozen=True)
class Splade:
    """How logits become the weights of a row.

    The defaults are those of sentence-transformers for a plain language model. ``strategy``: "max" or "sum",
    over the tokens of a row. ``logarithms``: how often ``log1p`` follows the ReLU. ``max_active``: how many
    weights a row keeps, the largest; None for all above zero.
    """

    strategy: str = "max"
    logarithms: int = 1
    max_active: int | None = None


def read_splade(path: Path, modules: list[tuple[str, str]], options: JsonObject) -> Splade | None:
    """Read how a SparseEncoder makes weights from logits; None if the model is of another kind.

    Parameters
    ----------
    path : Path
        The model's directory.
    modules : list of (str, str)
        Kind and folder of its modules.
    options : JsonObject
        The content of ``config_sentence_transformers.json``.

    Raises
    ------
    ModelError
        There are other modules besides the transformer and the pooling, or an unknown setting.
    """
    used = [(kind, folder) for kind, folder in modules if kind not in IGNORED]
    kinds = [kind for kind, _ in used]
    if SPLADE not in kinds:
        return None
    if kinds != ["Transformer", SPLADE]:
        raise unsupported(path, " > ".join(kinds), f"{SPLADE} must follow the Transformer and be the last")
    config = read_module_config(path, SPLADE, path / used[1][1])
    strategy = str(config.get("pooling_strategy", "max"))
    activation = str(config.get("activation_function", "relu"))
    if strategy not in _STRATEGIES or activation not in _ACTIVATIONS:
        raise unsupported(
            path, SPLADE, f"its pooling_strategy is {strategy!r} and its activation_function {activation!r}"
        )
    return Splade(strategy, _ACTIVATIONS[activation], options.count("max_active_dims"))


class LanguageModelHead(nn.Module):
    """The head of a masked language model, from token states to logits.

    It is transformers' own class, in which another module stands for the transformer and returns given states.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._states = _GivenStates()
        self._model = model
        setattr(model, model.base_model_prefix, self._states)

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits of token states: ``[total, h]`` to ``[total, vocabulary]``."""
        self._states.given = states[None]
        ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        logits: Tensor = self._model(input_ids=ids).logits[0]
        self._states.given = None
        return logits


class _GivenStates(nn.Module):
    given: Tensor | None = None

    def forward(self, *_args: Any, **_options: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.given)


def load_head(path: Path) -> LanguageModelHead:
    """Load the head of the masked language model in a directory, in float32 on the CPU.

    Raises
    ------
    ModelError
        The files have no such head, or it takes more than token states.
    """
    model = _load_model(path)
    # Ids from the middle, where no special tokens are.
    ids = torch.arange(8)[None] + model.config.vocab_size // 2
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits[0]
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        head = LanguageModelHead(model)  # removes the transformer, which the runtime has
        try:
            found = head(states)
        except Exception as error:  # a class of transformers that reads other parts of its transformer
            raise _not_alone(path, model, type_and_message(error, 200)) from error
        scale = expected.abs().max()
        if found.shape != expected.shape or not torch.allclose(found / scale, expected / scale, atol=1e-5):
            raise _not_alone(path, model, "its logits differ from those of the whole model")
    return head


def _load_model(path: Path) -> Any:
    import transformers

    config = load_config(path)
    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        raise no_head(path, f"transformers has none for the type {config.model_type!r}")
    source = weight_arguments(path)
    model_class: Any = transformers.MODEL_FOR_MASKED_LM_MAPPING[type(config)]
    try:
        with silent_transformers():
            model, report = model_class.from_pretrained(
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused here
                **source,
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any class can fail at a wrong value
        raise damaged_model(path, error, ()) from error
    lacking = sorted({*report["missing_keys"], *(str(key) for key, *_ in report["mismatched_keys"])})
    if lacking:
        raise no_head(path, f"its files lack the weights {', '.join(lacking[:3])}")
    return model.eval().requires_grad_(False)


def no_head(path: Path, why: str) -> ModelError:
    """Return the error for a model without the head of a masked language model."""
    return ModelError(
        f"model {model_name(path)!r} has no masked language model head, which gives the weights of tokens "
        f"({why}): use a SPLADE model, or another embedding_pooling than 'splade'"
    )


def _not_alone(path: Path, model: nn.Module, why: str) -> ModelError:
    return ModelError(
        f"model {model_name(path)!r}: the head of {type(model).__name__} cannot be run on token states "
        f"({why}), so embedding_pooling='splade' is not supported for it"
    )
