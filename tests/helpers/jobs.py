"""Jobs that tests run, and texts for them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_embed_dask import embed_parquet

from . import faults

TEXTS = ["one", None, "two words", "one", "čtyři"]


def rows_of_job(source, target, model, **more) -> pa.Table:
    """Run a job that must succeed; return the rows of its parts."""
    report = embed_parquet(faults.stage(model), str(source), str(target), **more)
    assert report.complete, report.failed
    return pq.read_table(target)


def run_again(source, target, model, **more):
    """Run a job into a target that may already have parts; ``more`` are parameters of the stage."""
    return embed_parquet(faults.stage(model, **more), str(source), str(target))
