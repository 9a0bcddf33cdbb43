"""Errors for objects that are no supported dataframe or column, with the call that makes one of them."""

from __future__ import annotations

from os import PathLike
from typing import Any

from dask.base import is_dask_collection

from ..errors import ColumnError


def unsupported(data: Any) -> ColumnError:
    """Return the error for an object that is no dataframe or column of a supported library."""
    kind = type(data)
    return ColumnError(
        f"{kind.__module__}.{kind.__name__} is not a supported dataframe or column; {_conversion(kind)}"
    )


def _conversion(kind: type) -> str:
    """Return how to make a supported dataframe of an object of this class, which may be of any library."""
    methods = {
        "to_dask_dataframe": ".to_dask_dataframe(columns=['text'])",  # Dask Array
        "to_dataframe": ".to_dataframe(columns=['text'])",  # Dask Bag
        "to_pandas": ".to_pandas()",  # polars, pyarrow
        "collect": ".collect().to_pandas()",  # polars, lazy
    }
    call = next((call for method, call in methods.items() if hasattr(kind, method)), None)
    if call is not None:
        return f"convert it first with {call}"
    if issubclass(kind, str | PathLike):
        return "read files first, for example with dask.dataframe.read_parquet(path)"
    return "pass one of Dask, pandas or cuDF, such as pandas.DataFrame({'text': texts})"


def check_column(series: Any) -> None:
    """Raise ColumnError if an object is a frame, or lazy, where a column with values is needed."""
    if is_dask_collection(series):
        raise ColumnError(
            "a Dask column has no values yet; compute it first (to_matrix(ddf.embeddings.dropna().compute())), "
            "or convert one partition at a time, e.g. in ddf.to_delayed() or ddf.map_partitions"
        )
    if hasattr(series, "columns"):
        raise ColumnError(
            f"one column is needed, not a {type(series).__name__}; pass for example df.embeddings"
        )
