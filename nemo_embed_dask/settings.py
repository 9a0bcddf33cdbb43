"""Every parameter, declared once, in groups; those that only stages have are in `stage_settings`.

A new parameter is one field: of `Reading` if only the tokenizer stage needs it, of `Computing` if only the
model stage does, of `Shared` if both do. Checks, command-line flags and their headings (``group``), docstrings,
`decompose` and the fingerprint of jobs follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .models.locate import ModelRef
from .models.names import MINILM
from .number_types import NumberType, Output, Ranges
from .options import option, option_from
from .ragged import Side
from .stage_settings import CuratorNames, ModelFiles, TextColumns, VectorColumns


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Parameters of the engine that both the tokenizer stage and the model stage need."""

    max_seq_length: int | None = option(
        None,
        minimum=1,
        group="Text",
        common=2,
        help="Tokens per row, special tokens included. Default: the limit of the card (256 for MiniLM), with "
        "which the published results were measured; Curator takes the tokenizer's ``model_max_length`` (512).",
    )
    on_error: Literal["raise", "null"] = option(
        "raise",
        keeps_vectors=True,
        group="Text",
        help='What to do with a row that cannot be embedded: "raise" stops with an error that names it, '
        '"null" gives it a null vector.',
    )
    prompt: str | None = option(
        None,
        group="Text",
        help='Text to put before each text, "" for none. Default: the model\'s default prompt, because its '
        "vectors are made for it; Curator applies none.",
    )
    prompt_name: str | None = option(
        None,
        minimum=1,
        group="Text",
        help="Name of one of the model's own prompts, instead of ``prompt``; 'auto' for its prompt for "
        "documents, or none if it has no such prompt. 'query' also chooses the query side of a model with a "
        "Router.",
    )
    long_documents: Literal["truncate", "mean", "explode"] = option(
        "truncate",
        group="Text",
        help='What to do with texts over the token limit: "truncate" cuts them, "mean" averages the vectors of '
        'their windows, weighted by tokens, "explode" returns one row per window, with columns ``chunk``, '
        "``char_start`` and ``char_end``.",
    )
    overlap: int = option(
        0,
        minimum=0,
        group="Text",
        help='Tokens that a window shares with the one before, for ``long_documents`` "mean" and "explode".',
    )


@dataclass(frozen=True, kw_only=True)
class Batching:
    """Parameters that the engine needs, and that Curator's model stage takes by position."""

    model_inference_batch_size: int = option(
        1024,
        minimum=1,
        keeps_vectors=True,
        help="Most rows per batch, which is limited by tokens too. On a GPU the default, 1024, means 65,535.",
    )
    sort_by_length: bool = option(
        True, keeps_vectors=True, help="Batch rows of similar length together; the row order never changes."
    )
    padding_side: Side = option(
        "right",
        keeps_vectors=True,
        help="No effect on the vectors of texts: models that need padding are padded on the right.",
    )
    autocast: bool = option(
        True,
        by_content=True,
        help="Compute in a 16-bit type of the hardware, else in float32; False: always in float32. On a GPU it "
        "is float16, as in Curator, or bfloat16 for models that float16 does not fit; on a CPU bfloat16.",
    )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Parameters of the engine that only the tokenizer stage needs."""

    max_chars: int | None = option(
        None, minimum=1, group="Text", help="Most characters of a text that are read."
    )
    tokenizer: Literal["auto", "huggingface", "cudf"] = option(
        "auto",
        keeps_vectors=True,
        group="Text",
        help='Library that tokenizes: "huggingface", on the CPU; or "cudf", for cuDF frames and BERT\'s '
        'WordPiece, on the GPU, except for rows that cuDF could tokenize in another way. "auto" is '
        '"huggingface", until a GPU has shown equal ids in every row of every test corpus.',
    )


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Parameters of the engine that only the model stage needs."""

    normalize: bool | None = option(
        None,
        group="Output",
        help='Scale vectors to unit length. Default: as the model\'s card says if the pooling is "auto", else '
        "True, as in Curator.",
    )
    truncate_dim: int | None = option(
        None,
        minimum=1,
        group="Output",
        help="Leading dimensions to keep (Matryoshka); unit vectors are scaled to unit length again. Default: "
        'the model\'s own if the pooling is "auto", else all.',
    )
    embedding_dtype: NumberType = option(
        "float32",
        group="Output",
        common=3,
        help="Number type of the stored vectors, as sentence-transformers defines it.",
    )
    share_equal_texts: bool = option(
        True, keeps_vectors=True, help="Embed equal texts of a partition once, if there are enough of them."
    )
    runtime: Literal["torch", "openvino"] = option(
        "torch", help="Library that runs the model; OpenVINO on CPUs only."
    )
    compile: bool = option(
        False,
        keeps_vectors=True,
        help="With ``runtime='torch'`` on a GPU: compile the model at load, which may take half a minute per "
        "process and needs a C compiler, and use it if it is faster and its states are equal up to rounding.",
    )
    adapter: str | None = option(
        None,
        minimum=1,
        by_content=True,
        group="Model",
        help="PEFT adapter to merge: directory, repository (``org/name@revision``), or folder of the model.",
    )


@dataclass(frozen=True, kw_only=True)
class CreatorParameters(
    ModelFiles, VectorColumns, TextColumns, CuratorNames, Computing, Reading, Batching, Shared
):
    """All parameters of `EmbeddingCreatorStage`, without its code: the command line's help needs no torch."""

    model_identifier: str = option_from(ModelFiles, "model_identifier", default=MINILM)


@dataclass(frozen=True)
class Settings(Computing, Reading, Batching, Shared):
    """Everything that the engine needs to compute vectors: no names of columns, and no secrets."""

    model: ModelRef
    pooling: str = option_from(CuratorNames, "embedding_pooling")
    extra_outputs: tuple[Output, ...] = ()
    ranges: Ranges = ()
    calibrated_for: tuple[tuple[str, str], ...] = ()

    @property
    def gives_lists(self) -> bool:
        """Whether the pooling gives a list per row instead of one vector."""
        from .lists import LIST_COLUMNS  # it imports torch, which takes seconds

        return self.pooling in LIST_COLUMNS
