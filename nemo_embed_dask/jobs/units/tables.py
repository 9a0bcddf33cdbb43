"""One chunk of a part as Arrow tables: the columns carried over beside those made. Knows no file.

Long documents with a row a window repeat what is carried over, so that such a chunk comes in several tables.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from torch import Tensor

from ...batching import windows
from ...rows import Embedded
from ...stages.tasks import EmbedTask
from .readers import CHUNK_BYTES, CHUNK_ROWS, Rows


def part_tables(rows: Rows, out: Embedded, task: EmbedTask) -> Iterator[pa.Table]:
    """A chunk's rows with the columns that the task makes of them; at least one table."""
    made = new_columns(out, task)
    if out.origins is None:
        yield _beside(rows.table, made)
        return
    carried = rows.table.nbytes // max(1, len(rows.texts))
    sizes = np.array([carried + len(text or "") for text in rows.texts], np.int64)
    source = out.origins.texts
    for span in windows(sizes[source], max_size=CHUNK_BYTES, max_rows=CHUNK_ROWS) or [slice(0, 0)]:
        repeated = _taken(rows.table, source[span]) if rows.table.num_columns else rows.table
        yield _beside(repeated, {name: values[span] for name, values in made.items()})


def _taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Some rows of a table; Arrow cannot take rows of string views."""
    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    plain = pa.schema([field.with_type(views.get(field.type, field.type)) for field in table.schema])
    return table.cast(plain).take(rows).cast(table.schema)


def _beside(table: pa.Table, made: dict[str, pa.Array]) -> pa.Table:
    return pa.table({**dict(zip(table.column_names, table.columns, strict=True)), **made})


def new_columns(out: Embedded, task: EmbedTask) -> dict[str, pa.Array]:
    """Vectors of every output, and what was asked about the rows, by name."""
    names = (task.name, *(output.name for output in task.settings.extra_outputs))
    blocks = (out.matrix, *out.extra.values())
    made = {name: vector_array(block, out.valid) for name, block in zip(names, blocks, strict=True)}
    return made | {name: pa.array(values) for name, values in task.info_arrays(out).items()}


def vector_array(matrix: Tensor, valid: np.ndarray) -> pa.FixedSizeListArray:
    """A matrix as fixed-size lists of its number type, null where not valid; on a CPU over the same memory."""
    block = np.ascontiguousarray(matrix.cpu().numpy())
    mask = None if valid.all() else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1], mask=mask)
