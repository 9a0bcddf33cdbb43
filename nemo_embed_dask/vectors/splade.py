"""Weighted tokens: the vocabulary's entries that a masked language model finds in a row, largest first."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..device import to_device
from ..lists import Lists
from ..models.card import ModelCard
from ..models.splade import Splade, load_head, no_head
from ..ragged import Ints, Ragged, offsets_of
from ..runtimes.cpu_linear import pack_linears

# Most logits in memory at once, 64 MiB: 549 tokens with BERT's vocabulary, 67 with that of XLM-R.
_MAX_LOGITS = 2**24


class SpladeHead:
    """From token states to the weighted tokens of each row (``embedding_pooling="splade"``).

    The head of the language model runs in float32.

    Parameters
    ----------
    card : ModelCard
    state_dimension : int
        Size of one token state.
    device : torch.device

    Attributes
    ----------
    dimension, default_dim : int
        The size of the vocabulary.

    Raises
    ------
    ModelError
        The model has no masked language model head.
    """

    pooling = "splade"
    normalize = False

    def __init__(self, card: ModelCard, state_dimension: int, device: torch.device) -> None:
        self._how = card.splade or Splade()
        if card.static is not None:
            raise no_head(card.path, "it is a static model")
        if card.code:
            raise no_head(
                card.path, "the head is known only in transformers' own classes: leave trust_remote_code out"
            )
        head = load_head(card.weights_path)
        self._head = pack_linears(head, torch.float32) if device.type == "cpu" else head.to(device)
        for tensor in (*self._head.parameters(), *self._head.buffers()):
            tensor.data = tensor.data.clone()  # not a part of a mapped file
        with torch.inference_mode():
            probe = self._head(torch.zeros(1, state_dimension, device=device))
        self.dimension = self.default_dim = int(probe.shape[1])
        self._max_tokens = max(1, _MAX_LOGITS // self.dimension)

    def __call__(self, states: Tensor, offsets: Tensor, ids: Ragged, *, prompt_tokens: int = 0) -> Lists:
        """Return the ids and weights of each row's tokens.

        Parameters
        ----------
        states : Tensor, shape (total, h), any float dtype
            Token states of all rows, one row after the other; no row is empty.
        offsets : Tensor of int64, shape (n + 1,)
            Where each row starts, on the states' device.
        ids : Ragged
            The token ids of the states.
        prompt_tokens : int
            Number of tokens at the start of each row that are left out.
        """
        with torch.inference_mode():
            if prompt_tokens:
                kept, row_offsets = ids.drop_first(prompt_tokens)
                states = states.index_select(0, to_device(kept, states.device))
                ids = Ragged(ids.values[kept], row_offsets)
            groups = _groups(ids.lengths, self._max_tokens)
            parts = [self._weigh(states[ids.offsets[a] : ids.offsets[b]], ids.lengths[a:b]) for a, b in groups]
            return Lists.concat(parts)

    def _weigh(self, states: Tensor, lengths: Ints) -> Lists:
        """Return the weighted tokens of a few rows, or of one long row."""
        if len(lengths) == 1:
            pieces = [self._reduce(self._head(piece.float())) for piece in states.split(self._max_tokens)]
            pooled = self._reduce_pieces(torch.stack(pieces))[None]
        else:
            logits = self._head(states.float()).split(lengths.tolist())
            pooled = torch.stack([self._reduce_pieces(self._reduce(row)[None]) for row in logits])
        return _largest_first(pooled, self._how.max_active)

    def _reduce(self, logits: Tensor) -> Tensor:
        """Return the largest logit of each entry, or the sum of the activations of its logits."""
        return logits.amax(dim=0) if self._how.strategy == "max" else self._activate(logits).sum(dim=0)

    def _reduce_pieces(self, reduced: Tensor) -> Tensor:
        """Return a row's weights from those of its pieces."""
        # The activation keeps the order of logits, so it is computed once per row and not per token.
        return self._activate(reduced.amax(dim=0)) if self._how.strategy == "max" else reduced.sum(dim=0)

    def _activate(self, logits: Tensor) -> Tensor:
        logits = logits.relu()
        for _ in range(self._how.logarithms):
            logits = logits.log1p()
        return logits


def _groups(lengths: Ints, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Divide rows into groups of at most ``max_tokens`` tokens or one row, as (first, behind the last)."""
    start = tokens = 0
    for row, length in enumerate(lengths.tolist()):
        if row > start and tokens + length > max_tokens:
            yield start, row
            start, tokens = row, 0
        tokens += length
    yield start, len(lengths)


def _largest_first(pooled: Tensor, max_active: int | None) -> Lists:
    """Return the entries above zero of each row of ``[n, vocabulary]``, largest first, equal ones by id."""
    found = ~(pooled <= 0)  # also NaN, which fails the row later
    rows, tokens = found.nonzero(as_tuple=True)
    weights = pooled[rows, tokens]
    order = weights.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    lists = Lists({"_ids": tokens[order].int(), "": weights[order]}, offsets_of(found.sum(dim=1).cpu().numpy()))
    return lists if max_active is None else lists.first(max_active)
