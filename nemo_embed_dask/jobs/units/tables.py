"""The Arrow tables of a part: the copied columns of a slab beside its new columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from torch import Tensor

from ...batching import slabs
from ...frames.arrow import list_column
from ...rows import Embedded
from ...stages.tasks import EmbedTask
from .readers import SLAB_BYTES, SLAB_ROWS, Rows


def part_tables(slab: Rows, embedded: Embedded, task: EmbedTask) -> Iterator[pa.Table]:
    """Yield a slab's copied columns with its new columns, in at least one table.

    With one row per window the copied columns are repeated for each window, which can take much memory.
    The slab is then cut into several tables of bounded size.
    """
    new = new_columns(embedded, task)
    source_rows = embedded.text_positions
    if source_rows is None:
        yield _side_by_side(slab.table, new)
        return
    sizes = _row_sizes(slab)[source_rows]
    for span in slabs(sizes, max_size=SLAB_BYTES, max_rows=SLAB_ROWS) or [slice(0, 0)]:
        repeated = _take(slab.table, source_rows[span]) if slab.table.num_columns else slab.table
        yield _side_by_side(repeated, {name: values[span] for name, values in new.items()})


def _row_sizes(slab: Rows) -> np.ndarray:
    """Return the estimated bytes of each row: an equal part of the table, and its text."""
    table_bytes = slab.table.nbytes // max(1, len(slab.texts))
    return np.array([table_bytes + len(text or "") for text in slab.texts], np.int64)


def _take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return some rows of a table. Arrow cannot take rows of string views, so these are converted."""
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    plain = pa.schema([field.with_type(views.get(field.type, field.type)) for field in table.schema])
    return table.cast(plain).take(rows).cast(table.schema)


def _side_by_side(table: pa.Table, new: dict[str, pa.Array]) -> pa.Table:
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **new})


def new_columns(embedded: Embedded, task: EmbedTask) -> dict[str, pa.Array]:
    """Return the vectors of every output, and the columns about the rows that the task adds, by name."""
    matrices = task.matrices(embedded)
    vectors: dict[str, pa.Array] = {
        name: vector_array(matrix, embedded.valid) for name, matrix in matrices.items()
    }
    for name, lists in task.lists(embedded).items():
        vectors[name] = list_column(lists.columns[""].numpy(), lists.offsets, embedded.valid)
    return vectors | {name: pa.array(values) for name, values in task.info_arrays(embedded).items()}


def vector_array(matrix: Tensor, valid: np.ndarray) -> pa.FixedSizeListArray:
    """Return a matrix as fixed-size lists, null where not valid; on a CPU without copying the values."""
    block = np.ascontiguousarray(matrix.cpu().numpy())
    mask = None if valid.all() else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1], mask=mask)
