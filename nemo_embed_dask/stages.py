"""The stages, under NeMo Curator's names, parameters and defaults, for Dask, pandas and cuDF frames.

A stage is a frozen configuration; calling it maps it. Where a default or a behaviour departs from
Curator's, its docstring says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import dask
import numpy as np
import torch

from . import engine
from .engine import Settings
from .errors import ConfigError
from .frames import frame_ops
from .mapping import EmbedTask, ModelTask, TokenizeTask, map_column, vector_column
from .models import MINILM, ModelRef, find_model, remember_token
from .pooling import POOLINGS, flatten, pool
from .ragged import Side

INPUT_ID_FIELD = "input_ids"
ATTENTION_MASK_FIELD = "attention_mask"
SEQ_ORDER_FIELD = "_curator_seq_order"

Fields = tuple[list[str], list[str]]
_POSITIVE = ("max_chars", "max_seq_length", "model_inference_batch_size")
_CHOICES = {"padding_side": ("left", "right"), "on_error": ("raise", "null")}
_POOLINGS = ("pooling", "embedding_pooling")


class _Stage(ABC):
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
        choices = _CHOICES | dict.fromkeys(_POOLINGS, tuple(POOLINGS))
        for name, allowed in choices.items():
            if hasattr(self, name) and getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(allowed)}"
                )
        remember_token(self.model_identifier, self.hf_token)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "hf_token": None}

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__qualname__, self.__getstate__())

    @property
    def settings(self) -> Settings:
        """The engine's settings that this stage stands for; its secrets are not among them."""
        known = {item.name for item in fields(Settings)} - {"model"}
        mine = {name: value for name, value in self.__dict__.items() if name in known}
        mine |= {new: self.__dict__[old] for old, new in _RENAMED.items() if old in self.__dict__}
        return Settings(ModelRef(self.model_identifier, self.revision, self.cache_dir), **mine)

    def setup_on_node(self, _node_info: Any = None, _worker_metadata: Any = None) -> None:
        """Bring the model's files to this machine."""
        find_model(ModelRef(self.model_identifier, self.revision, self.cache_dir))

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


_RENAMED = {"has_seq_order": "sort_by_length", "embedding_pooling": "pooling"}


@dataclass(frozen=True)
class TokenizerStage(_Stage):
    """Text to tokens: a column ``input_ids`` of ragged list<int32>, null where the text is.

    Unlike Curator's, rows are neither padded nor reordered and there is no mask column: the model stage
    sorts by itself, so that no order column is needed either.

    Parameters
    ----------
    model_identifier : str
        A directory, or a name on the Hugging Face hub.
    hf_token : str, optional
        For gated models; it stays in this process (other processes read HF_TOKEN).
    text_field : str
        The column with the text. It is never changed.
    max_chars : int, optional
        Characters of a text that are read.
    max_seq_length : int, optional
        Tokens a row, special tokens among them. Default: the model's own sentence-transformers
        configuration, then ``model_max_length``, then its position table. (Curator: ``model_max_length``.)
    padding_side, sort_by_length, unk_token
        Curator's; without effect here, since tokens are not padded.
    revision, cache_dir : str, optional
        Which commit of a hub model, and where the Hugging Face cache is.
    on_error : "raise" or "null"
        What a row that is no valid text does: stop with its position, or get a null.
    """

    model_identifier: str
    hf_token: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    text_field: str = field(default="text", kw_only=True)
    max_chars: int | None = field(default=None, kw_only=True)
    max_seq_length: int | None = field(default=None, kw_only=True)
    padding_side: Side = field(default="right", kw_only=True)
    sort_by_length: bool = field(default=True, kw_only=True)
    unk_token: bool = field(default=False, kw_only=True)
    revision: str | None = field(default=None, kw_only=True)
    cache_dir: str | None = field(default=None, kw_only=True)
    on_error: Literal["raise", "null"] = field(default="raise", kw_only=True)

    def inputs(self) -> Fields:
        """Reads the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Fields:
        """Keeps the text column and adds the tokens."""
        return ["data"], [self.text_field, INPUT_ID_FIELD]

    def setup(self, _: Any = None) -> None:
        """Load the tokenizer into this process."""
        engine.tokenize_texts([""], self.settings)

    def __call__(self, df: Any) -> Any:
        """Add the token column."""
        return map_column(df, self.text_field, TokenizeTask(self.settings, INPUT_ID_FIELD), label="tokenize")


@dataclass(frozen=True)
class ModelStage(_Stage):
    """Base of the stages that run a model over the column ``input_ids``.

    Parameters
    ----------
    model_identifier : str
    hf_token : str, optional
    model_inference_batch_size : int
        Rows a batch at most; batches are cut by tokens long before, so that it seldom matters.
    has_seq_order : bool
        Sort rows by length before they are batched. A column ``_curator_seq_order`` is obeyed and dropped.
    padding_side : "left" or "right"
        Where a model that has to be padded is; vectors do not depend on it.
    max_seq_length : int, optional
        Clip token rows: the first ones are kept, or the last ones if ``padding_side`` is "left".
    autocast : bool
        bfloat16 where the hardware has it, else float32. (Curator: float16 on CUDA, which overflows in some
        models.)
    """

    model_identifier: str
    hf_token: str | None = field(default=None, repr=False, compare=False, kw_only=True)
    model_inference_batch_size: int = field(default=256, kw_only=True)
    has_seq_order: bool = field(default=True, kw_only=True)
    padding_side: Side = field(default="right", kw_only=True)
    autocast: bool = field(default=True, kw_only=True)
    max_seq_length: int | None = field(default=None, kw_only=True)
    revision: str | None = field(default=None, kw_only=True)
    cache_dir: str | None = field(default=None, kw_only=True)

    def inputs(self) -> Fields:
        """Reads the token column."""
        return ["data"], [INPUT_ID_FIELD]

    def setup(self, _: Any = None) -> None:
        """Load the model into this process, once, whatever the number of stages."""
        engine.load(self.settings)

    @abstractmethod
    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """One padded batch's model output to one result a row."""

    @abstractmethod
    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> Any:
        """All batches' results as one."""

    @abstractmethod
    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """The frame with the results as a column."""


@dataclass(frozen=True)
class EmbeddingModelStage(ModelStage):
    """Tokens to vectors: drops ``input_ids`` and adds ``embedding_field``, list<float32>, unit length.

    Parameters
    ----------
    model_identifier : str
    embedding_field : str
        The new column.
    pooling : str
        A key of `nemo_embed_dask.pooling.POOLINGS`; Curator has ``mean_pooling`` and ``last_token``.
    hf_token, model_inference_batch_size, has_seq_order, padding_side, autocast, max_seq_length
        See `ModelStage`.
    overwrite : bool
        Whether an existing column of that name is replaced.
    on_error : "raise" or "null"
        What a row without a finite vector does: stop with its position, or get a null.
    """

    embedding_field: str = "embeddings"
    pooling: str = "mean_pooling"
    hf_token: str | None = field(default=None, repr=False, compare=False)
    model_inference_batch_size: int = 1024
    has_seq_order: bool = True
    padding_side: Side = "right"
    autocast: bool = True
    overwrite: bool = field(default=False, kw_only=True)
    on_error: Literal["raise", "null"] = field(default="raise", kw_only=True)

    _dropped: ClassVar[tuple[str, ...]] = (INPUT_ID_FIELD, ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD)

    def outputs(self) -> Fields:
        """Adds the vectors."""
        return ["data"], [self.embedding_field]

    def __call__(self, df: Any) -> Any:
        """Add the vectors, drop the tokens; restore Curator's order column if there is one."""
        columns = list(df.columns)
        if dask.is_dask_collection(df) and {ATTENTION_MASK_FIELD, SEQ_ORDER_FIELD} & {*columns}:
            return df.map_partitions(self, meta=self(df._meta), token="embed")
        if ATTENTION_MASK_FIELD in columns:
            df = _without_padding(df)
        task = ModelTask(self.settings, self.embedding_field, limit=self.max_seq_length)
        out = map_column(df, INPUT_ID_FIELD, task, overwrite=self.overwrite, label="embed")
        if SEQ_ORDER_FIELD in columns and self.has_seq_order:
            out = out.sort_values(SEQ_ORDER_FIELD, ignore_index=True)
        return out.drop(columns=[name for name in self._dropped if name in columns])

    def process_model_output(
        self, outputs: Any, model_input_batch: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Pool a padded batch: ``outputs[0]``, ``[n, longest, h]``, to float32 ``[n, h]`` of unit length.

        Without ``model_input_batch`` (its ``attention_mask``, ``[n, longest]``) every cell is a token.
        """
        mask = None if model_input_batch is None else model_input_batch[ATTENTION_MASK_FIELD]
        return self._pool(self.pooling, outputs, mask).cpu()

    def collect_outputs(self, processed_outputs: list[torch.Tensor]) -> np.ndarray[Any, Any]:
        """Batches of vectors as one float32 matrix ``[n, d]`` (Curator: nested Python lists)."""
        return torch.cat(processed_outputs).float().numpy()

    def create_output_dataframe(self, df: Any, collected_output: Any) -> Any:
        """The frame with the matrix ``[n, d]`` as its list column, row by row."""
        matrix = np.ascontiguousarray(collected_output, dtype=np.float32)
        some = df[df.columns[0]]
        return df.assign(**{self.embedding_field: vector_column(some, matrix, self.embedding_field, None)})

    def _mean_pooling(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean over a padded batch's tokens, unit length."""
        return self._pool("mean_pooling", model_output, attention_mask)

    def _get_last_token(self, model_output: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """A padded batch's last tokens, whichever side is padded, unit length."""
        return self._pool("last_token", model_output, attention_mask)

    @staticmethod
    def _pool(name: str, model_output: Any, mask: torch.Tensor | None) -> torch.Tensor:
        block = model_output[0]
        return pool(name, *flatten(block, torch.ones(block.shape[:2]) if mask is None else mask))


def _without_padding(df: Any) -> Any:
    """Curator's padded token lists as ragged ones, by their mask."""
    ops = frame_ops(df)
    ids, valid = ops.ragged(df[INPUT_ID_FIELD])
    mask = ops.ragged(df[ATTENTION_MASK_FIELD])[0]
    kept = mask.values.astype(np.bool_)
    lengths = np.add.reduceat(np.append(kept, False), mask.offsets[:-1]) * (mask.lengths > 0)
    ragged = type(ids).from_lengths(ids.values[kept], lengths)
    column = ops.tokens(ragged, valid, index=df.index, name=INPUT_ID_FIELD)
    return df.assign(**{INPUT_ID_FIELD: column})


@dataclass(frozen=True, kw_only=True)
class EmbeddingCreatorStage(_Stage):
    """Text to vectors in one task a partition: `TokenizerStage` and `EmbeddingModelStage`, fused.

    Parameters
    ----------
    model_identifier : str
        A directory, or a name on the Hugging Face hub.
    text_field, embedding_field : str
        The column read, and the one added: list<float32>, null where the text is.
    max_chars : int, optional
        Characters of a text that are read.
    max_seq_length : int, optional
        Tokens a row, special tokens among them. Default: what the model's card says (256 for MiniLM), where
        Curator takes the tokenizer's ``model_max_length`` (512).
    padding_side : "left" or "right"
        Vectors do not depend on it.
    embedding_pooling : str
        A key of `nemo_embed_dask.pooling.POOLINGS`.
    model_inference_batch_size : int
        Rows a batch at most; batches are cut by tokens long before.
    autocast : bool
        bfloat16 where the hardware has it, else float32; False for float32 always.
    sort_by_length : bool
        Batch rows of similar length together; the order of rows never changes.
    hf_token : str, optional
        For gated models; it stays in this process (other processes read HF_TOKEN).
    revision, cache_dir : str, optional
        Which commit of a hub model, and where the Hugging Face cache is.
    overwrite : bool
        Whether an existing column ``embedding_field`` is replaced.
    on_error : "raise" or "null"
        What a row that cannot be embedded does: stop with its partition and position, or get a null.

    Raises
    ------
    ConfigError
        A parameter cannot work.
    """

    model_identifier: str = MINILM
    text_field: str = "text"
    embedding_field: str = "embeddings"
    max_chars: int | None = None
    max_seq_length: int | None = None
    padding_side: Side = "right"
    embedding_pooling: str = "mean_pooling"
    model_inference_batch_size: int = 1024
    autocast: bool = True
    sort_by_length: bool = True
    hf_token: str | None = field(default=None, repr=False, compare=False)
    revision: str | None = None
    cache_dir: str | None = None
    overwrite: bool = False
    on_error: Literal["raise", "null"] = "raise"

    def inputs(self) -> Fields:
        """Reads the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Fields:
        """Adds the vectors."""
        return ["data"], [self.embedding_field]

    def decompose(self) -> list[_Stage]:
        """The two stages that this one is made of, every parameter forwarded."""
        shared = {name: getattr(self, name) for name in _SHARED}
        tokenizer = TokenizerStage(
            **shared, text_field=self.text_field, max_chars=self.max_chars,
            max_seq_length=self.max_seq_length, sort_by_length=self.sort_by_length,
        )  # fmt: skip
        model = EmbeddingModelStage(
            **shared, embedding_field=self.embedding_field, pooling=self.embedding_pooling,
            model_inference_batch_size=self.model_inference_batch_size, autocast=self.autocast,
            has_seq_order=self.sort_by_length, overwrite=self.overwrite,
        )  # fmt: skip
        return [tokenizer, model]

    def setup(self, _: Any = None) -> None:
        """Load tokenizer and model into this process."""
        for stage in self.decompose():
            stage.setup()  # type: ignore[attr-defined]

    def __call__(self, df: Any) -> Any:
        """Add the vectors."""
        task = EmbedTask(self.settings, self.embedding_field)
        return map_column(df, self.text_field, task, overwrite=self.overwrite, label="embed")


_SHARED = ("model_identifier", "hf_token", "padding_side", "revision", "cache_dir", "on_error")


def embed(df: Any, **parameters: Any) -> Any:
    """Add an embeddings column: ``ddf.pipe(embed)``.

    Parameters
    ----------
    df : Dask, pandas or cuDF DataFrame
        Lazy in, lazy out: building the graph reads no data and loads no model.
    **parameters
        Those of `EmbeddingCreatorStage`.

    Returns
    -------
    DataFrame
        The same rows, order, index, divisions and columns, and ``embedding_field``: list<float32>.
    """
    return EmbeddingCreatorStage(**parameters)(df)
