"""Embeddings for Dask dataframes: ``ddf.pipe(embed)``."""

from importlib import import_module
from typing import TYPE_CHECKING

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
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .checks.calibration import calibrate
    from .checks.estimate import Plan, plan
    from .checks.verification import Verdict, verify
    from .clusters.local import embed_cluster, preload
    from .jobs.report import Report
    from .jobs.run import embed_parquet
    from .number_types import Calibration
    from .stages import (
        EmbeddingCreatorStage,
        EmbeddingModelStage,
        ModelStage,
        SentenceTransformerEmbeddingModelStage,
        Stage,
        TokenizerStage,
        embed,
    )
    from .stats import Stats

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
    "Plan",
    "Report",
    "RowError",
    "SentenceTransformerEmbeddingModelStage",
    "Stage",
    "Stats",
    "TargetError",
    "TokenizerStage",
    "Verdict",
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

# Imported on first use: they load torch or Dask's cluster, which takes seconds.
_MODULES = {
    "Calibration": "number_types",
    "EmbeddingCreatorStage": "stages",
    "EmbeddingModelStage": "stages",
    "ModelStage": "stages",
    "Plan": "checks.estimate",
    "SentenceTransformerEmbeddingModelStage": "stages",
    "Report": "jobs.report",
    "Stage": "stages",
    "Stats": "stats",
    "TokenizerStage": "stages",
    "Verdict": "checks.verification",
    "calibrate": "checks.calibration",
    "embed": "stages",
    "embed_cluster": "clusters.local",
    "embed_parquet": "jobs.run",
    "plan": "checks.estimate",
    "preload": "clusters.local",
    "verify": "checks.verification",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
