"""crossfit's names over our stages, for pipelines that were written for crossfit 0.0.9: change the import.

``from nemo_embed_dask import crossfit as cf`` in place of ``import crossfit as cf``. docs/crossfit.md says what
differs. Parameters that crossfit needs and we do not are accepted and have no effect; those that ask for what
cannot be had here are errors.
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
# What a crossfit model is made of; a subclass that changes it would be ignored here, so it is refused.
_HOOKS = ("load_model", "load_tokenizer", "load_cfg", "get_model", "get_model_output", "max_seq_length")


class HFModel:
    """A model by name or directory. Its pooling and its length limit are those on its card.

    Parameters
    ----------
    path_or_name : str
    max_mem_gb, start_batch_size, end_batch_size, batch_size_increment, start_seq_len, seq_len_increment : int
        Without effect: each worker measures what a batch may take, and fits no memory curve.
    model_output_type : str
        "numeric".
    training : bool
        False.
    """

    def __init__(
        self, path_or_name: str, max_mem_gb: int = 16, model_output_type: str = "numeric",
        training: bool = False, start_batch_size: int = 1, end_batch_size: int = 2048,
        batch_size_increment: int = 256, start_seq_len: int = 1, seq_len_increment: int = 64,
    ) -> None:  # fmt: skip
        del max_mem_gb, start_batch_size, end_batch_size, batch_size_increment, start_seq_len, seq_len_increment
        if model_output_type != "numeric" or training:
            raise ConfigError("only vectors are made here: leave model_output_type and training alone")
        self.path_or_name = str(path_or_name)

    def __init_subclass__(cls) -> None:
        changed = [name for name in _HOOKS if name in vars(cls)]
        if changed:
            raise ConfigError(
                f"{cls.__name__} changes {', '.join(changed)}, which nothing here would call; save the model "
                "as a sentence-transformers directory and pass its path"
            )


class SentenceTransformerModel(HFModel):
    """As `HFModel`: a directory's own pooling and layers are always used."""


class _Op(ABC):
    """Applies ``pre``, then `run`, and hands on the columns kept and made; lazily on a Dask collection."""

    def __init__(self, pre: Pre | None, keep_cols: Sequence[str] | None) -> None:
        self.pre, self.keep_cols = pre, list(keep_cols or ())

    def __call__(self, data: Frame) -> Frame:
        if self.pre is not None:
            data = data.map_partitions(self.pre) if dask.is_dask_collection(data) else self.pre(data)
        return self.run(data)

    @abstractmethod
    def run(self, data: Frame) -> Frame:
        """The work, on a frame of any library."""

    def kept(self, data: Frame, *made: str) -> Frame:
        """Crossfit's columns: those to keep, then those made."""
        return data[list(dict.fromkeys([*self.keep_cols, *made]))]


class Tokenizer(_Op):
    """Text to a column ``input_ids`` of ragged lists; there is no ``attention_mask``, for nothing is padded.

    Parameters
    ----------
    model : HFModel
    tokenizer_type
        Without effect: see ``tokenizer=`` of `EmbeddingCreatorStage`.
    cols : list of str
        The one column with the text.
    keep_cols : list of str, optional
        Columns handed on.
    pre : callable, optional
        Applied to each partition first.
    max_length : int, optional
        Tokens a row. Default: the model card's limit, where crossfit takes ``model_max_length``.
    max_chars : int, optional
        Characters of a text that are read.
    """

    def __init__(
        self, model: HFModel, tokenizer_type: Any = "subword", cols: Sequence[str] | None = None,
        keep_cols: Sequence[str] | None = None, pre: Pre | None = None, max_length: int | None = None,
        max_chars: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pre, keep_cols)
        del tokenizer_type
        if cols is None or isinstance(cols, str) or len(cols) != 1:
            raise ConfigError(f"cols={cols!r} must name one column in a list; use one Tokenizer a column")
        self.model = model
        self.reads: dict[str, Any] = {
            "text_field": cols[0], "max_seq_length": max_length, "max_chars": max_chars,
        }  # fmt: skip

    def run(self, data: Frame) -> Frame:
        """Tokenize."""
        return self.kept(TokenizerStage(self.model.path_or_name, **self.reads)(data), INPUT_ID_FIELD)


class Embedder(_Op):
    """Tokens to vectors: a column of list<float32>, with that meta.

    Parameters
    ----------
    model : HFModel
    pre, keep_cols
        As for `Tokenizer`.
    cols, batch_size, max_mem
        Without effect: batches are sized by what the device has free.
    sorted_data_loader : bool
        Batch rows of similar length together.
    model_output_col : str
        "sentence_embedding".
    pred_output_col : str
        The new column.
    """

    def __init__(
        self, model: HFModel, pre: Pre | None = None, cols: Any = False, keep_cols: Sequence[str] | None = None,
        batch_size: int = 512, max_mem: str = "16GB", sorted_data_loader: bool = True,
        model_output_col: str = "sentence_embedding", pred_output_col: str = "embedding",
    ) -> None:  # fmt: skip
        super().__init__(pre, keep_cols)
        del cols, batch_size, max_mem
        if model_output_col != "sentence_embedding":
            raise ConfigError(f"model_output_col={model_output_col!r}: only 'sentence_embedding' is made here")
        self.model, self.sorted, self.column = model, sorted_data_loader, pred_output_col

    def run(self, data: Frame) -> Frame:
        """Embed."""
        stage = EmbeddingModelStage(
            self.model.path_or_name, self.column, "auto", has_seq_order=self.sorted, overwrite=True
        )
        return self.kept(stage(data), self.column)


class Sequential(_Op):
    """One operation after the other; a `Tokenizer` and an `Embedder` of one model as a single task.

    Parameters
    ----------
    *ops
        Of this module, or any functions of a frame.
    pre : callable, optional
        Applied to each partition first.
    cols
        Without effect.
    repartition : int, optional
        Partitions to make first, of a Dask collection.
    keep_cols : list of str, optional
        Columns that every operation hands on.
    """

    def __init__(
        self, *ops: Callable[[Frame], Frame], pre: Pre | None = None, cols: Any = False,
        repartition: int | None = None, keep_cols: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(pre, keep_cols)
        del cols
        self.ops, self.repartition = ops, repartition
        for one in ops:
            if isinstance(one, _Op):
                one.keep_cols += self.keep_cols

    def run(self, data: Frame) -> Frame:
        """All of them."""
        if self.repartition is not None and dask.is_dask_collection(data):
            data = data.repartition(npartitions=self.repartition)
        match self.ops:
            case (Tokenizer() as first, Embedder(pre=None) as last) if _one_model(first, last):
                return _Both(first, last)(data)
        for one in self.ops:
            data = one(data)
        return data


def _one_model(first: Tokenizer, last: Embedder) -> bool:
    return first.model.path_or_name == last.model.path_or_name and {*last.keep_cols} <= {*first.keep_cols}


class _Both(_Op):
    """A `Tokenizer` and an `Embedder` as one stage, with the columns that the second would hand on."""

    def __init__(self, first: Tokenizer, last: Embedder) -> None:
        super().__init__(first.pre, last.keep_cols)
        self.stage = EmbeddingCreatorStage(
            model_identifier=first.model.path_or_name, embedding_field=last.column, embedding_pooling="auto",
            sort_by_length=last.sorted, overwrite=True, **first.reads,
        )  # fmt: skip

    def run(self, data: Frame) -> Frame:
        """Tokenize and embed."""
        return self.kept(self.stage(data), self.stage.embedding_field)


op = SimpleNamespace(Embedder=Embedder, Sequential=Sequential, Tokenizer=Tokenizer)
