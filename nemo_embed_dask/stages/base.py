"""What all stages share: checks, secrets, and the settings they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from dask.base import normalize_token

from ..errors import ConfigError
from ..models.locate import ModelRef, find_model, remember_token
from ..runtimes import RUNTIMES
from ..settings import Settings
from ..vectors.pooling import POOLINGS, is_pooling
from ..vectors.quantization import DTYPES, load_calibration, parse_output

INPUT_ID_FIELD = "input_ids"
ATTENTION_MASK_FIELD = "attention_mask"
SEQ_ORDER_FIELD = "_curator_seq_order"

P = ParamSpec("P")
R = TypeVar("R")
Fields = tuple[list[str], list[str]]
_POSITIVE = ("max_chars", "max_seq_length", "model_inference_batch_size", "truncate_dim")
_CHOICES: dict[str, tuple[str, ...]] = {
    "padding_side": ("left", "right"),
    "on_error": ("raise", "null"),
    "long_documents": ("truncate", "mean", "explode"),
    "embedding_dtype": tuple(DTYPES),
    "runtime": RUNTIMES,
    "tokenizer": ("auto", "huggingface", "cudf"),
}
_POOLINGS = ("pooling", "embedding_pooling")
# Parameters whose names in a stage and in the settings differ.
_RENAMED = {"has_seq_order": "sort_by_length", "embedding_pooling": "pooling"}


class Stage(ABC):
    """What all stages share: checks, secrets, and being callable on any frame."""

    model_identifier: str
    hf_token: str | None
    revision: str | None
    cache_dir: str | None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name, None)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name}={value!r} must be a positive whole number")
        for name, allowed in (_CHOICES | dict.fromkeys(_POOLINGS, ("auto", *POOLINGS))).items():
            value = getattr(self, name, allowed[0])
            if value not in allowed and not (name in _POOLINGS and is_pooling(str(value))):
                raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(allowed)}")
        for name in ("prompt", "prompt_name"):
            if not isinstance(getattr(self, name, None), str | None):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a string")
        overlap = getattr(self, "overlap", 0)
        if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
            raise ConfigError(f"overlap={overlap!r} must be a whole number of tokens, 0 or more")
        if getattr(self, "tokenizer", "auto") == "cudf" and self.__dict__["long_documents"] != "truncate":
            raise ConfigError(
                "tokenizer='cudf' cuts long documents and does nothing else with them; "
                "pass tokenizer='huggingface', or long_documents='truncate'"
            )
        if getattr(self, "calibration", None) is not None:
            # Read now and carried by value: other processes and directories may not have the file.
            object.__setattr__(self, "calibration", load_calibration(self.__dict__["calibration"]))
        _ = self.settings
        remember_token(self.model_identifier, self.hf_token)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hf_token": None}

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # Dask hashes the repr of what this returns, and a calibration's repr does not list its ranges.
        return (type(self).__qualname__, normalize_token(self.__getstate__()))

    @property
    def settings(self) -> Settings:
        """The engine's settings that this stage stands for; its secrets are not among them."""
        known = {item.name for item in fields(Settings)} - {"model"}
        mine = {name: value for name, value in self.__dict__.items() if name in known}
        mine |= {new: self.__dict__[old] for old, new in _RENAMED.items() if old in self.__dict__}
        mine["extra_outputs"] = tuple(map(parse_output, getattr(self, "extra_embeddings", ())))
        if getattr(self, "calibration", None) is not None:
            mine["ranges"] = self.__dict__["calibration"].ranges
        return Settings(ModelRef(self.model_identifier, self.revision, self.cache_dir), **mine)

    def setup_on_node(self, _node_info: Any = None, _worker_metadata: Any = None) -> None:
        """Bring the model's files to this machine."""
        find_model(ModelRef(self.model_identifier, self.revision, self.cache_dir))

    @abstractmethod
    def setup(self, _: Any = None) -> None:
        """Load what the stage needs into this process."""

    @abstractmethod
    def inputs(self) -> Fields:
        """Attributes and columns that the stage reads."""

    @abstractmethod
    def outputs(self) -> Fields:
        """Attributes and columns that the stage adds."""

    @abstractmethod
    def __call__(self, df: Any) -> Any:
        """Apply the stage: lazily to a Dask DataFrame, at once to a pandas or cuDF one."""

    def process(self, df: Any) -> Any:
        """Apply the stage to one partition; Curator's name for the call."""
        return self(df)


def stage_first(call: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that refuses calls without a stage as first argument; ``call`` is the right call.

    Functions took the stage last, or its parameters, before version 0.1.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            first = args[0] if args else kwargs.get("stage")
            if not isinstance(first, Stage):
                name = call.partition("(")[0]
                raise ConfigError(f"{name} takes the stage first: {call}; got a {type(first).__name__} first")
            return function(*args, **kwargs)

        return checked

    return decorate
