"""One list per row instead of one vector: token vectors, or weighted tokens (`Lists`).

`ragged.Ragged` is the same layout for token ids on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .ragged import Bools, Ints, Ragged, offsets_of

# The poolings that give a list per row, and the endings of the columns that they fill, after the name of the
# vectors' column: token vectors; and the ids and weights of tokens.
LIST_COLUMNS = {"none": ("",), "splade": ("_ids", "")}


@dataclass(frozen=True, eq=False)
class Lists:
    """One list per row; the values of all rows are in flat tensors, one after the other.

    Parameters
    ----------
    columns : dict of str to Tensor
        Tensors of shape (total,) or (total, d) by the ending of their column's name. All have the same offsets.
    offsets : ndarray of int64, shape (n + 1,)
        Row ``i`` has the values from ``offsets[i]`` to ``offsets[i + 1]``.

    Examples
    --------
    Two rows of weighted tokens, the first with the tokens 7 and 3:

    >>> Lists({"_ids": torch.tensor([7, 3, 9]), "": torch.tensor([1.5, 0.5, 2.0])}, np.array([0, 2, 3]))
    Lists(columns={'_ids': tensor([7, 3, 9]), '': tensor([1.5000, 0.5000, 2.0000])}, offsets=array([0, 2, 3]))
    """

    columns: dict[str, Tensor]
    offsets: Ints

    @classmethod
    def empty(cls, pooling: str, rows: int, width: int = 1, *, dtype: torch.dtype = torch.float32) -> Lists:
        """Return ``rows`` empty lists with the columns of a pooling; ``width`` is that of token vectors."""
        columns = {"": torch.empty(0, width, dtype=dtype)}
        if pooling == "splade":
            columns = {"_ids": torch.empty(0, dtype=torch.int32), "": torch.empty(0, dtype=dtype)}
        return cls(columns, np.zeros(rows + 1, np.int64))

    @classmethod
    def concat(cls, parts: Sequence[Lists]) -> Lists:
        """Return the rows of all parts, in order; at least one part is needed."""
        names = parts[0].columns
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        columns = {name: torch.cat([part.columns[name] for part in parts]) for name in names}
        return cls(columns, offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: npt.ArrayLike) -> Lists:
        """Return copies of the rows at these positions, in this order."""
        total = int(self.offsets[-1])
        places = Ragged(np.arange(total), self.offsets).take(rows)
        index = torch.from_numpy(places.values)
        columns = {
            name: values.index_select(0, index.to(values.device)) for name, values in self.columns.items()
        }
        return Lists(columns, places.offsets)

    def put(self, rows: Ints, count: int) -> Lists:
        """Return ``count`` rows: row ``rows[i]`` is this one's row ``i``; all others are empty."""
        places = np.full(count, len(self))
        places[rows] = np.arange(len(self))
        padded = Lists(self.columns, np.append(self.offsets, self.offsets[-1]))
        return padded.take(places)

    def rows_with(self, marked: Tensor) -> Ints:
        """Return the rows of the values that are marked in a bool tensor of shape (total,)."""
        places = np.flatnonzero(marked.cpu().numpy())
        return np.unique(np.searchsorted(self.offsets, places, side="right") - 1)

    def where(self, marked: Tensor) -> Lists:
        """Return the rows with only those values that are marked in a bool tensor of shape (total,)."""
        columns = {name: values[marked.to(values.device)] for name, values in self.columns.items()}
        return Lists(columns, offsets_of(marked.cpu().numpy())[self.offsets])

    def to_host(self) -> Lists:
        """Return the lists in the host's memory; waits for the device."""
        return Lists({name: values.cpu() for name, values in self.columns.items()}, self.offsets)

    def without(self, rows: Bools) -> Lists:
        """Return a copy in which the rows marked in ``rows`` are empty."""
        return self.where(torch.from_numpy(np.repeat(~rows, np.diff(self.offsets))))

    def first(self, count: int) -> Lists:
        """Return the first ``count`` values of each row."""
        places = Ragged(np.arange(self.offsets[-1]), self.offsets).positions_in_rows()
        return self.where(torch.from_numpy(places < count))
