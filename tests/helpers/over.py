"""``pytest --frames cudf``: every column task of the suite gets a cuDF column in place of its pandas one.

Tests stay as they are: what a task makes comes back to them as pandas. What cuDF cannot hold (text that is no
Unicode, float16) stays with pandas, and the last lines say how many tasks did. Tasks in processes of a cluster
are out of reach.
"""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from nemo_embed_dask.frames import arrow
from nemo_embed_dask.stages.tasks import ColumnTask, NewColumns

COUNTS = {"over cuDF": 0, "left to pandas": 0}
# What cuDF or Arrow says of a value that it cannot hold.
_CANNOT = (UnicodeError, TypeError, pa.ArrowException)


def to_cudf(series):
    """A pandas column of strings or lists as cuDF's."""
    values = arrow.to_single_array(pa.array(series.array, from_pandas=True))
    import cudf

    return cudf.Series(values, index=cudf.from_pandas(series.index), name=series.name)


def from_cudf(series):
    """Its way back: lists backed by Arrow, as our pandas columns are."""
    import cudf

    if not isinstance(series.dtype, cudf.ListDtype):
        return series.to_pandas()
    values = series.to_arrow().cast(series.dtype.to_arrow())
    return pd.Series(pd.arrays.ArrowExtensionArray(values), index=series.index.to_pandas(), name=series.name)


def install(convert=to_cudf, back=from_cudf):
    """Put both ways around every task; returns what takes them away again."""
    plain = ColumnTask.new_columns

    def call(self, series, partition_info=None):
        if not isinstance(series, pd.Series):
            return plain(self, series, partition_info)
        dtypes = {self.settings.embedding_dtype, *(output.dtype for output in self.settings.extra_outputs)}
        try:
            if "float16" in dtypes:
                raise TypeError("cuDF has no float16")
            column = convert(series)
        except _CANNOT:
            COUNTS["left to pandas"] += 1
            return plain(self, series, partition_info)
        COUNTS["over cuDF"] += 1
        new = plain(self, column, partition_info)
        return NewColumns({name: back(column) for name, column in new.columns.items()}, new.text_positions)

    ColumnTask.new_columns = call
    return lambda: setattr(ColumnTask, "new_columns", plain)
