"""Text to vectors: the stage that combines tokenizer and model, and `embed`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

from ..errors import ConfigError
from ..options import option_from, values_for
from ..settings import CreatorParameters
from ..stage_settings import DefaultPooling
from .base import Names, Stage
from .mapping import map_column
from .model import EmbeddingModelStage, SentenceTransformerEmbeddingModelStage
from .signature import parameters
from .tasks import EmbedTask
from .tokenizer import TokenizerStage

P = ParamSpec("P")
Frame = TypeVar("Frame")


@parameters("model_identifier", "text_field", "embedding_field", "max_chars", "max_seq_length", "padding_side",
            "embedding_pooling", "model_inference_batch_size", "autocast", "sort_by_length",
            "hf_token")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class EmbeddingCreatorStage(Stage, CreatorParameters):
    """Text to vectors in one task per partition: `TokenizerStage` and `EmbeddingModelStage` combined.

    Raises
    ------
    ConfigError
        A parameter has a wrong value, or contradicts another one.

    Examples
    --------
    >>> stage = EmbeddingCreatorStage(embedding_pooling="auto", n_tokens_field="n_tokens")
    >>> stage.outputs()
    (['data'], ['embeddings', 'n_tokens'])
    """

    # Of both bases, `Stage` comes first, and has it without a default.
    model_identifier: str = option_from(CreatorParameters, "model_identifier")

    def __post_init__(self) -> None:
        if self.use_sentence_transformer is True:
            is_named = not isinstance(self.embedding_pooling, DefaultPooling)
            if is_named and self.embedding_pooling != "auto":
                raise ConfigError(
                    "use_sentence_transformer=True takes the model's own pooling, and "
                    f"embedding_pooling={self.embedding_pooling!r} contradicts it; pass one of them"
                )
            object.__setattr__(self, "embedding_pooling", "auto")
        super().__post_init__()

    @property
    def task(self) -> EmbedTask:
        """Return the task for the text column of one partition."""
        return EmbedTask(self.settings, self.embedding_field, self.n_tokens_field, self.truncated_field)

    def inputs(self) -> Names:
        """Return the names of what the stage reads: the text column."""
        return ["data"], [self.text_field]

    def outputs(self) -> Names:
        """Return the names of what the stage adds: the vectors, and other columns that are configured."""
        return ["data"], [*self.task.names]

    def decompose(self) -> list[Stage]:
        """Return the tokenizer stage and the model stage, with all parameters of this one."""
        own = self.use_sentence_transformer
        model = SentenceTransformerEmbeddingModelStage if own else EmbeddingModelStage
        return [stage(**values_for(stage, self)) for stage in (TokenizerStage, model)]

    def setup(self, _: Any = None) -> None:
        """Load tokenizer and model into this process."""
        for stage in self.decompose():
            stage.setup()

    def __call__(self, df: Any) -> Any:
        """Add the column of vectors."""
        return map_column(df, self.text_field, self.task, overwrite=self.overwrite, label="embed")


class Embed(Protocol[P]):
    """The type of `embed`: it takes a frame and a stage's parameters, and returns a frame of that type."""

    def __call__(self, df: Frame, /, *args: P.args, **parameters: P.kwargs) -> Frame: ...


def _with_parameters_of(_stage: Callable[P, EmbeddingCreatorStage]) -> Callable[[Callable[..., Any]], Embed[P]]:
    """Return a decorator that changes nothing, but shows type checkers the parameters of a stage."""
    return lambda function: function


@_with_parameters_of(EmbeddingCreatorStage)
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
        The same rows, order, index, divisions and columns, and ``embedding_field``: ``list<float32>``.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> ddf = dd.read_parquet("texts/", columns=["id", "text"])
    >>> ddf.pipe(embed, max_seq_length=128).compute().columns.tolist()
    ['id', 'text', 'embeddings']
    """
    return EmbeddingCreatorStage(**parameters)(df)
