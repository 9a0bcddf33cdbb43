"""Embeddings for Dask dataframes: ``ddf.pipe(embed)``."""

from .cluster import embed_cluster, preload
from .errors import ColumnError, ConfigError, EmbedError, JobError, ModelError, RowError
from .frames import from_matrix, to_matrix
from .frames import pandas as _pandas  # noqa: F401 - lets pandas read list dtypes by name; see there
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
    "embed_cluster",
    "from_matrix",
    "preload",
    "to_matrix",
]
