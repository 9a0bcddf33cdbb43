"""What all stages share: checks of parameters, secrets, and settings for the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import signature
from typing import Any, ClassVar, ParamSpec, TypeVar

from dask.base import normalize_token

from .. import engine
from ..errors import ConfigError
from ..lists import LIST_COLUMNS
from ..models.card import find_card
from ..models.locate import ModelRef, remember_token
from ..models.pinning import pin
from ..options import check_parameter_names, check_values, original_name, values_for
from ..settings import Settings
from ..stage_settings import ModelFiles
from ..vectors.pooling import POOLINGS, is_pooling
from ..vectors.quantization import load_calibration, parse_output
from .set_up import code_of, own_classes
from .transformers_arguments import apply_arguments

INPUT_ID_FIELD = "input_ids"
ATTENTION_MASK_FIELD = "attention_mask"
SEQ_ORDER_FIELD = "_curator_seq_order"

P = ParamSpec("P")
R = TypeVar("R")
Names = tuple[list[str], list[str]]  # attributes and columns, as Curator's stages list them


# Methods that this package does not call on the stages of these names: those of Curator's model stages, and
# those that combine stages.
_NOT_CALLED = (
    "process",
    "decompose",
    "yield_next_batch",
    "_model_forward",
    "process_model_output",
    "collect_outputs",
    "create_output_dataframe",
)


@dataclass(frozen=True, kw_only=True)
class Stage(ModelFiles, ABC):
    """A frozen configuration that is applied to a frame. Its parameters are checked when it is made."""

    _ignored_overrides: ClassVar[tuple[str, ...]] = _NOT_CALLED

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls._ignored_overrides:
            if any(name in vars(each) for each in own_classes(cls)):
                raise ConfigError(
                    f"{cls.__name__} overrides {name}, which this package does not always call: to change what "
                    "a model's output becomes, override the hooks of ModelStage or EmbeddingModelStage"
                )

    def __post_init__(self) -> None:
        apply_arguments(self)
        check_values(self)
        values = self._values()
        self._check_pooling()
        _check_combinations(values)
        if values.get("calibration") is not None:
            # Read the file now: other processes and directories may not have it.
            object.__setattr__(self, "calibration", load_calibration(values["calibration"]))
        _check_lists(self.settings)  # which raises if a value cannot be parsed
        remember_token(self.model_identifier, values.get("hf_token"))
        self._pin_commits()

    def _pin_commits(self) -> None:
        """Hold the commits of code that will run, so that no process runs others."""
        pinned = pin(self.settings.model)
        object.__setattr__(self, "revision", pinned.revision)
        object.__setattr__(self, "code_revision", pinned.code_revision)

    def _check_pooling(self) -> None:
        """Raise if the pooling, which some stages call by another name, is unknown."""
        for item in fields(self):
            if original_name(item) != "embedding_pooling":
                continue
            pooling = getattr(self, item.name)
            if pooling not in ("auto", *LIST_COLUMNS) and not is_pooling(pooling):
                known = ", ".join(("auto", *POOLINGS, *LIST_COLUMNS))
                raise ConfigError(f"{item.name}={pooling!r} is unknown; choose one of {known}")

    def _values(self) -> dict[str, Any]:
        """Return the parameters under the names of their declarations in `settings`."""
        return {original_name(item): getattr(self, item.name) for item in fields(self)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hf_token": None}

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # Dask hashes the repr of what this returns, and a calibration's repr does not list its ranges.
        # Classes outside of this package may change under the same name, as in a notebook.
        return (type(self).__qualname__, code_of(type(self)), normalize_token(self.__getstate__()))

    @property
    def settings(self) -> Settings:
        """Return the settings for the engine; they contain no secrets."""
        values = self._values()
        calibration = values.get("calibration")
        return Settings(
            ModelRef(
                self.model_identifier,
                self.revision,
                self.cache_dir,
                task="query" if values.get("prompt_name") == "query" else "document",
                trust_remote_code=self.trust_remote_code,
                code_revision=self.code_revision,
            ),
            extra_outputs=tuple(map(parse_output, values.get("extra_embeddings", ()))),
            ranges=calibration.ranges if calibration is not None else (),
            calibrated_for=calibration.made_for if calibration is not None else (),
            **values_for(Settings, self),
        )

    def setup_on_node(self, _node_info: Any = None, _worker_metadata: Any = None) -> None:
        """Download the files of the model and of its adapter to this machine if they are not there."""
        find_card(self.settings.model, self.settings.adapter)

    @abstractmethod
    def setup(self, _: Any = None) -> None:
        """Load what the stage needs into this process."""

    def teardown(self) -> None:
        """Unload every model of this process. If a stage is used again, its model is loaded again."""
        engine.unload()

    @abstractmethod
    def inputs(self) -> Names:
        """Return the attributes and columns that the stage reads."""

    @abstractmethod
    def outputs(self) -> Names:
        """Return the attributes and columns that the stage adds."""

    @abstractmethod
    def __call__(self, df: Any) -> Any:
        """Apply the stage: lazily to a Dask DataFrame, immediately to a pandas or cuDF one."""

    def process(self, df: Any) -> Any:
        """Apply the stage to one partition. Curator calls this method."""
        return self(df)


def _check_combinations(values: dict[str, Any]) -> None:
    """Raise if parameters contradict each other."""
    if values.get("tokenizer") == "cudf" and values["long_documents"] != "truncate":
        raise ConfigError(
            "tokenizer='cudf' cuts long documents and does nothing else with them; "
            "pass tokenizer='huggingface', or long_documents='truncate'"
        )
    if values.get("overlap") and values["long_documents"] == "truncate":
        raise ConfigError(
            f"overlap={values['overlap']} has no effect with long_documents='truncate'; "
            "pass long_documents='mean' or 'explode', or leave overlap out"
        )
    if values.get("prompt") is not None and values.get("prompt_name") is not None:
        raise ConfigError("prompt and prompt_name contradict each other; pass one of them")


def _check_lists(settings: Settings) -> None:
    """Raise if the pooling gives a list per row, and a parameter asks for something that lists do not have."""
    if not settings.gives_lists:
        return
    wrong = {
        "long_documents": settings.long_documents == "mean",
        "embedding_dtype": settings.embedding_dtype not in ("float32", "float16"),
        "extra_embeddings": bool(settings.extra_outputs),
        "truncate_dim": settings.pooling == "splade" and settings.truncate_dim is not None,
        "normalize": settings.pooling == "splade" and bool(settings.normalize),
    }
    name = next((name for name, is_wrong in wrong.items() if is_wrong), None)
    if name is not None:
        raise ConfigError(
            f"embedding_pooling={settings.pooling!r} gives a list per row and not one vector, so {name} cannot "
            "be applied; leave it out, or name a pooling that gives one vector"
        )


def stage_first(call: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that raises ConfigError, with the right ``call``, unless a stage comes first.

    Before version 0.1, these functions took the stage last, or took its parameters.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = call.partition("(")[0]
        names = list(signature(function).parameters)

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            first = args[0] if args else kwargs.get("stage")
            if not isinstance(first, Stage):
                raise ConfigError(f"{name} takes the stage first: {call}; got a {type(first).__name__} first")
            check_parameter_names(name, kwargs, names)
            return function(*args, **kwargs)

        return checked

    return decorate
