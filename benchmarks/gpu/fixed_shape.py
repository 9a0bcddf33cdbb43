"""A forward pass of fixed shapes, so that it can be a CUDA graph: batches are padded in tokens and in rows."""

from __future__ import annotations

import numpy as np
import torch

from nemo_embed_dask.device import to_device
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes import packed_attention as attention
from nemo_embed_dask.runtimes.torch import TorchRuntime

from . import DEVICE


def pad_offsets(offsets: np.ndarray, tokens: int, rows: int) -> np.ndarray:
    """Return the offsets of ``rows`` rows of together ``tokens`` tokens, of which the first are those given.

    The other rows have about equal lengths, and none is longer than it must be.

    >>> pad_offsets(np.array([0, 3, 5]), 8, 4).tolist()
    [0, 3, 5, 6, 8]
    """
    added = np.linspace(offsets[-1], tokens, rows - len(offsets) + 2).astype(np.int64)
    return np.concatenate([offsets, added[1:]])


class FixedShape:
    """A model's forward pass over packed batches of at most ``tokens`` tokens, as a CUDA graph on a GPU.

    All batches that it will get have to be known: their most rows and their longest row are part of the shape.
    """

    def __init__(self, runtime: TorchRuntime, batches: list[Ragged], tokens: int) -> None:
        if runtime.pads:
            raise NotImplementedError("the model runs padded, and only packed batches have a fixed shape here")
        self._runtime = runtime
        self._longest = max(int(batch.lengths.max()) for batch in batches)
        self._tokens = max(tokens, *(len(batch.values) for batch in batches))
        spare = max(-(-(self._tokens - len(batch.values)) // self._longest) for batch in batches)
        self._rows = max(map(len, batches)) + spare + 1
        self._ids, self._positions = (
            torch.zeros(1, self._tokens, dtype=torch.int64, device=DEVICE) for _ in "ab"
        )
        self._offsets = torch.zeros(self._rows + 1, dtype=torch.int32, device=DEVICE)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._fill(batches[0])
        if DEVICE.type == "cuda":
            self._capture()

    def __call__(self, batch: Ragged) -> torch.Tensor:
        """Return the states of the batch's tokens; on a GPU they are valid until the next call."""
        self._fill(batch)
        if self._graph is None:
            self._states = self._forward()
        else:
            self._graph.replay()
        return self._states[: len(batch.values)]

    def _fill(self, batch: Ragged) -> None:
        """Copy a batch to the inputs of the graph."""
        self._host_offsets = pad_offsets(batch.offsets, self._tokens, self._rows)
        ids = np.zeros(self._tokens, np.int32)
        ids[: len(batch.values)] = batch.values
        rows = Ragged(ids, self._host_offsets)
        positions = rows.positions_in_rows() + (self._runtime._layout.first_position or 0)
        self._ids[0].copy_(to_device(ids, DEVICE))
        self._positions[0].copy_(to_device(positions.astype(np.int32), DEVICE))
        self._offsets.copy_(to_device(self._host_offsets.astype(np.int32), DEVICE))

    def _forward(self) -> torch.Tensor:
        packing = attention.Packing(self._host_offsets, DEVICE)
        # What attention reads on a GPU: memory that stays where it is, and a number that is part of the graph.
        vars(packing).update(cu_seqlens=self._offsets, longest=self._longest)
        with torch.inference_mode(), attention.packed(packing):
            return self._runtime.model(input_ids=self._ids, position_ids=self._positions)[0][0]

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._forward()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._states = self._forward()
