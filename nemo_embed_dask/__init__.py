"""Embeddings for Dask dataframes: ``ddf.pipe(embed)``."""

from .errors import ColumnError, ConfigError, EmbedError, JobError, ModelError, RowError
from .frames import from_matrix, to_matrix
from .frames import pandas as _pandas  # noqa: F401 - lets pandas read list dtypes by name; see there
from .jobs import embed_parquet
from .stages import EmbeddingCreatorStage, EmbeddingModelStage, ModelStage, TokenizerStage, embed

__version__ = "0.1.0"
__all__ = [
    "ColumnError",
    "ConfigError",
    "EmbedError",
    "EmbeddingCreatorStage",
    "EmbeddingModelStage",
    "JobError",
    "ModelError",
    "ModelStage",
    "RowError",
    "TokenizerStage",
    "embed",
    "embed_parquet",
    "from_matrix",
    "to_matrix",
]
