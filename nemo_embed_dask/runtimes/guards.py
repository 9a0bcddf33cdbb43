"""Check the indexes of a model's operations on the host, while the model is tried on a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_BY_DIMENSION = {_ATEN.index_select.default, _ATEN.gather.default}


class CheckedIndexes(TorchDispatchMode):
    """Raise IndexError for an index beyond a table before the device gets it.

    Checked are the operations by which models look something up: embedding, gather, index_select and indexing.

    A CPU raises this error itself. On a GPU such an index ends the process's use of the device, and a model is
    tried with position ids that may be wrong for it. Each check waits for the device.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for index, least, size in _indexes(func, args):
            if index.numel() and not (least <= int(index.min()) and int(index.max()) < size):
                raise IndexError(f"an index of {func} is outside of a table with {size} rows")
        return func(*args, **(kwargs or {}))


def _indexes(func: Any, args: tuple[Any, ...]) -> Iterator[tuple[Tensor, int, int]]:
    """Yield the indexes of an operation, each with its least value and the size of what it indexes."""
    if func is _ATEN.embedding.default:
        yield args[1], 0, len(args[0])
    elif func in _BY_DIMENSION:
        yield args[2], 0, args[0].shape[args[1]]
    elif func is _ATEN.index.Tensor:
        yield from _indexes_of_dimensions(args[0], args[1])


def _indexes_of_dimensions(
    table: Tensor, indexes: Sequence[Tensor | None]
) -> Iterator[tuple[Tensor, int, int]]:
    """Do the same for ``table[indexes]``, which may count from the end, and has masks of several dimensions."""
    dimension = 0
    for index in indexes:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            dimension += index.dim()
            continue
        if index is not None:
            yield index, -table.shape[dimension], table.shape[dimension]
        dimension += 1


def checked(device: torch.device, run: Callable[[], Tensor]) -> Tensor:
    """Run part of a model; on a GPU, raise IndexError before an index beyond a table reaches the device."""
    if device.type == "cpu":
        return run()
    with CheckedIndexes():  # type: ignore[no-untyped-call]
        return run()
