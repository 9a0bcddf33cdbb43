"""Embeddings for Dask dataframes: ``ddf.pipe(embed)``."""

from typing import TYPE_CHECKING

from .calibration import calibrate
from .errors import (
    ClusterError,
    ColumnError,
    ConfigError,
    EmbedError,
    InputError,
    JobError,
    ModelError,
    RowError,
    TargetError,
)
from .frames import from_matrix, to_matrix
from .frames import pandas as _pandas  # noqa: F401 - lets pandas read list dtypes by name; see there
from .jobs import embed_parquet
from .planning import plan
from .stages import EmbeddingCreatorStage, EmbeddingModelStage, ModelStage, TokenizerStage, embed
from .storage import Calibration
from .verify import verify
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .cluster import embed_cluster, preload

__all__ = [
    "Calibration",
    "ClusterError",
    "ColumnError",
    "ConfigError",
    "EmbedError",
    "EmbeddingCreatorStage",
    "EmbeddingModelStage",
    "InputError",
    "JobError",
    "ModelError",
    "ModelStage",
    "RowError",
    "TargetError",
    "TokenizerStage",
    "calibrate",
    "embed",
    "embed_cluster",
    "embed_parquet",
    "from_matrix",
    "plan",
    "preload",
    "to_matrix",
    "verify",
]


def __getattr__(name: str) -> object:
    """`embed_cluster` and `preload`, on first use: importing the package does not load Dask's cluster."""
    if name in {"embed_cluster", "preload"}:
        from . import cluster

        return getattr(cluster, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
