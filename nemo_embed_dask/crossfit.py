"""The classes of crossfit 0.0.9 on top of our stages, so that a crossfit pipeline only changes its import.

Replace ``import crossfit as cf`` by ``from nemo_embed_dask import crossfit as cf``; docs/moving/crossfit.md has
the differences. Parameters that are not needed have no effect; values that are not supported raise ConfigError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import dask

from .errors import ConfigError
from .stages import INPUT_ID_FIELD, EmbeddingCreatorStage, EmbeddingModelStage, TokenizerStage

__all__ = ["Embedder", "HFModel", "SentenceTransformerModel", "Sequential", "Tokenizer", "op"]

Frame = Any
Pre = Callable[[Frame], Frame]
# Methods that subclasses of crossfit's models override. Nothing here calls them, so overriding raises an error.
_NEVER_CALLED = ("load_model", "load_tokenizer", "load_cfg", "get_model", "get_model_output", "max_seq_length")


class HFModel:
    """A model by name or directory, with the pooling and the token limit of its card.

    Parameters
    ----------
    path_or_name : str
    max_mem_gb, start_batch_size, end_batch_size, batch_size_increment, start_seq_len, seq_len_increment : int
        No effect: each worker measures the memory of a batch, and fits no memory curve.
    model_output_type : str
        Must be "numeric".
    training : bool
        Must be False.
    """

    def __init__(
        self,
        path_or_name: str,
        max_mem_gb: int = 16,
        model_output_type: str = "numeric",
        training: bool = False,
        start_batch_size: int = 1,
        end_batch_size: int = 2048,
        batch_size_increment: int = 256,
        start_seq_len: int = 1,
        seq_len_increment: int = 64,
    ) -> None:
        del max_mem_gb, start_batch_size, end_batch_size, batch_size_increment, start_seq_len, seq_len_increment
        if model_output_type != "numeric" or training:
            raise ConfigError("only vectors are computed: leave model_output_type and training unchanged")
        self.path_or_name = str(path_or_name)

    def __init_subclass__(cls) -> None:
        changed = [name for name in _NEVER_CALLED if name in vars(cls)]
        if changed:
            raise ConfigError(
                f"{cls.__name__} overrides {', '.join(changed)}, which is never called; save the model "
                "as a sentence-transformers directory and pass its path"
            )


class SentenceTransformerModel(HFModel):
    """The same as `HFModel`, which always uses the pooling and the layers of the model's directory."""


class _Op(ABC):
    """An operation that applies ``pre``, then `run`; lazy on a Dask collection."""

    def __init__(self, pre: Pre | None, keep_cols: Sequence[str] | None) -> None:
        self.pre, self.keep_cols = pre, list(keep_cols or ())

    def __call__(self, data: Frame) -> Frame:
        if self.pre is not None:
            data = data.map_partitions(self.pre) if dask.is_dask_collection(data) else self.pre(data)
        return self.run(data)

    @abstractmethod
    def run(self, data: Frame) -> Frame:
        """Run the operation on a frame of any library."""

    def select(self, data: Frame, *new: str) -> Frame:
        """Select the columns that crossfit returns: ``keep_cols``, then the new ones."""
        return data[list(dict.fromkeys([*self.keep_cols, *new]))]


class Tokenizer(_Op):
    """Tokenize text to a column ``input_ids`` of lists; without padding there is no ``attention_mask``.

    Parameters
    ----------
    model : HFModel
    tokenizer_type
        No effect: see ``tokenizer=`` of `EmbeddingCreatorStage`.
    cols : list of str
        A list with one name: the column with the text.
    keep_cols : list of str, optional
        Columns to keep in the result.
    pre : callable, optional
        Applied to each partition first.
    max_length : int, optional
        Most tokens per row. Default: the limit of the model card; crossfit's default is ``model_max_length``.
    max_chars : int, optional
        Most characters of a text that are read.
    """

    def __init__(
        self,
        model: HFModel,
        tokenizer_type: Any = "subword",
        cols: Sequence[str] | None = None,
        keep_cols: Sequence[str] | None = None,
        pre: Pre | None = None,
        max_length: int | None = None,
        max_chars: int | None = None,
    ) -> None:
        super().__init__(pre, keep_cols)
        del tokenizer_type
        if cols is None or isinstance(cols, str) or len(cols) != 1:
            raise ConfigError(f"cols={cols!r} must name one column in a list; use one Tokenizer per column")
        self.model = model
        self.options: dict[str, Any] = {
            "text_field": cols[0],
            "max_seq_length": max_length,
            "max_chars": max_chars,
        }

    def run(self, data: Frame) -> Frame:
        """Tokenize the text column."""
        return self.select(TokenizerStage(self.model.path_or_name, **self.options)(data), INPUT_ID_FIELD)


class Embedder(_Op):
    """Embed the column ``input_ids``; the new column and its meta are ``list<float32>``.

    Parameters
    ----------
    model : HFModel
    pre, keep_cols
        As in `Tokenizer`.
    cols, batch_size, max_mem
        No effect: the free memory of the device decides the size of batches.
    sorted_data_loader : bool
        Whether to sort rows by length before they are cut into batches.
    model_output_col : str
        Must be "sentence_embedding".
    pred_output_col : str
        The name of the new column.
    """

    def __init__(
        self,
        model: HFModel,
        pre: Pre | None = None,
        cols: Any = False,
        keep_cols: Sequence[str] | None = None,
        batch_size: int = 512,
        max_mem: str = "16GB",
        sorted_data_loader: bool = True,
        model_output_col: str = "sentence_embedding",
        pred_output_col: str = "embedding",
    ) -> None:
        super().__init__(pre, keep_cols)
        del cols, batch_size, max_mem
        if model_output_col != "sentence_embedding":
            raise ConfigError(f"model_output_col={model_output_col!r}: only 'sentence_embedding' is supported")
        self.model, self.sort_by_length, self.column = model, sorted_data_loader, pred_output_col

    def run(self, data: Frame) -> Frame:
        """Embed the tokens."""
        stage = EmbeddingModelStage(
            self.model.path_or_name, self.column, "auto", has_seq_order=self.sort_by_length, overwrite=True
        )
        return self.select(stage(data), self.column)


class Sequential(_Op):
    """Run operations one after the other; a `Tokenizer` and an `Embedder` of the same model run as one task.

    Parameters
    ----------
    *ops
        Operations of this module, or functions that take and return a frame.
    pre : callable, optional
        Applied to each partition first.
    cols
        No effect.
    repartition : int, optional
        Repartition a Dask collection to this many partitions first.
    keep_cols : list of str, optional
        Columns that every operation keeps.
    """

    def __init__(
        self,
        *ops: Callable[[Frame], Frame],
        pre: Pre | None = None,
        cols: Any = False,
        repartition: int | None = None,
        keep_cols: Sequence[str] | None = None,
    ) -> None:
        super().__init__(pre, keep_cols)
        del cols
        self.ops, self.repartition = ops, repartition
        for operation in ops:
            if isinstance(operation, _Op):
                operation.keep_cols += self.keep_cols

    def run(self, data: Frame) -> Frame:
        """Run all operations."""
        if self.repartition is not None and dask.is_dask_collection(data):
            data = data.repartition(npartitions=self.repartition)
        match self.ops:
            case (Tokenizer() as tokenizer, Embedder() as embedder) if _can_fuse(tokenizer, embedder):
                return _TokenizeAndEmbed(tokenizer, embedder)(data)
        for operation in self.ops:
            data = operation(data)
        return data


def _can_fuse(tokenizer: Tokenizer, embedder: Embedder) -> bool:
    """Return whether one task can do the work of both: same model, nothing between them, no column dropped."""
    same_model = tokenizer.model.path_or_name == embedder.model.path_or_name
    return same_model and embedder.pre is None and {*embedder.keep_cols} <= {*tokenizer.keep_cols}


class _TokenizeAndEmbed(_Op):
    """A `Tokenizer` and an `Embedder` as one stage, which keeps the columns that the embedder keeps."""

    def __init__(self, tokenizer: Tokenizer, embedder: Embedder) -> None:
        super().__init__(tokenizer.pre, embedder.keep_cols)
        self.stage = EmbeddingCreatorStage(
            model_identifier=tokenizer.model.path_or_name,
            embedding_field=embedder.column,
            embedding_pooling="auto",
            sort_by_length=embedder.sort_by_length,
            overwrite=True,
            **tokenizer.options,
        )

    def run(self, data: Frame) -> Frame:
        """Tokenize and embed the text column."""
        return self.select(self.stage(data), self.stage.embedding_field)


op = SimpleNamespace(Embedder=Embedder, Sequential=Sequential, Tokenizer=Tokenizer)
