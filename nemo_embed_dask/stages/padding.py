"""Pad rows of tokens for hooks of a subclass, and remove the padding of Curator's tokenizer stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dask.dataframe.dispatch import concat

from ..engine.batches import rows_beyond_the_tables
from ..frames import frame_ops
from ..ragged import Bools, Ragged, Side
from ..runtimes.tables import position_count, vocabulary_size
from ..settings import Settings
from ..tokens.texts import raise_failures
from .base import ATTENTION_MASK_FIELD, INPUT_ID_FIELD

Batch = dict[str, torch.Tensor]


def without_padding(df: Any, settings: Settings) -> Any:
    """Remove the padding from the token lists of Curator's tokenizer stage, by their mask."""
    ops = frame_ops(df)
    ids, valid, failures = ops.read_tokens(df[INPUT_ID_FIELD])
    mask, _, mask_failures = ops.read_tokens(df[ATTENTION_MASK_FIELD])
    differ = np.flatnonzero(ids.lengths != mask.lengths).tolist()
    failures = dict.fromkeys(differ, "its token ids and its mask differ in length") | mask_failures | failures
    raise_failures(failures, settings)
    failed = np.isin(np.arange(len(ids)), list(failures))
    ids, mask, valid = ids.without(failed), mask.without(failed), valid & ~failed
    kept = mask.values.astype(np.bool_)
    # For an empty row reduceat returns the value at its offset instead of 0. The appended value is for empty
    # rows at the end, whose offset is the number of values.
    lengths = np.add.reduceat(np.append(kept, False), mask.offsets[:-1]) * (mask.lengths > 0)
    ragged = type(ids).from_lengths(ids.values[kept], lengths)
    column = ops.token_column(ragged, valid, index=df.index, name=INPUT_ID_FIELD)
    return df.assign(**{INPUT_ID_FIELD: column})


def model_device(model: Any) -> torch.device:
    """Return where a model is; the CPU for one without parameters."""
    device = getattr(model, "device", None)
    if device is None and isinstance(model, torch.nn.Module):
        device = next((tensor.device for tensor in model.parameters()), None)
    return torch.device(device or "cpu")


def padded_batch(rows: Ragged, side: Side, device: torch.device) -> Batch:
    """Return rows of token ids as a padded block with its mask, both int64, on a device."""
    mask = rows.mask(side)
    return {
        INPUT_ID_FIELD: torch.from_numpy(rows.pad(side=side).astype(np.int64)).to(device),
        ATTENTION_MASK_FIELD: torch.from_numpy(mask.astype(np.int64)).to(device),
    }


@dataclass(frozen=True)
class Tokens:
    """The token ids of a partition's rows, and which rows have some."""

    ids: Ragged
    valid: Bools

    def of_valid_rows(self) -> Ragged:
        """Return the ids of the rows that have some."""
        return self.ids.take(np.flatnonzero(self.valid))


def read_tokens(df: Any, limit: int | None, side: Side, settings: Settings, model: Any) -> Tokens:
    """Return the tokens of a partition, at most ``limit`` per row.

    Raises
    ------
    RowError
        A row holds something else than token ids, or ids that the model has no embedding for, and ``on_error``
        is "raise"; otherwise such a row has no tokens.
    """
    if ATTENTION_MASK_FIELD in df.columns:
        df = without_padding(df, settings)
    ids, valid, failures = frame_ops(df).read_tokens(df[INPUT_ID_FIELD])
    ids = ids if limit is None else ids.clip(limit, side)
    if hasattr(model, "get_input_embeddings") and hasattr(model, "config"):  # a model of transformers
        vocabulary, positions = vocabulary_size(model), position_count(model)
        failures |= rows_beyond_the_tables(ids, valid, vocabulary=vocabulary, max_length=positions)
    raise_failures(failures, settings)
    failed = np.isin(np.arange(len(ids)), list(failures))
    return Tokens(ids, valid & (ids.lengths > 0) & ~failed)


def with_tokens(df: Any, ids: Ragged, side: Side, *, as_blocks: bool) -> Any:
    """Return the frame with columns of these ids and of their masks, as hooks see it.

    ``as_blocks``: all rows are padded to the longest, as in Curator's frames; else rows have their own length.
    """
    ops, mask = frame_ops(df), Ragged(np.ones(len(ids.values), np.int32), ids.offsets)
    if as_blocks:
        lengths = np.full(len(ids), int(ids.lengths.max(initial=0)))
        blocks = ids.pad(side=side), mask.pad(side=side)
        ids, mask = (Ragged.from_lengths(block.reshape(-1), lengths) for block in blocks)
    valid = np.ones(len(ids), np.bool_)
    named = {INPUT_ID_FIELD: ids, ATTENTION_MASK_FIELD: mask}
    columns = {name: ops.token_column(rows, valid, index=df.index, name=name) for name, rows in named.items()}
    if as_blocks:  # copied code of Curator calls tolist(), and needs lists in it
        columns = {name: column.astype(object).map(list) for name, column in columns.items()}
    return df.assign(**columns)


def with_rows_without_tokens(out: Any, df: Any, valid: Bools, results: list[str]) -> Any:
    """Return the results with the rows that have no tokens, whose results are null.

    They take their old places if the hooks have kept all rows in their order; otherwise they follow.
    """
    if valid.all():
        return out
    missing = df.iloc[np.flatnonzero(~valid)]
    empty = out.iloc[:0].reset_index(drop=True).reindex(range(len(missing)))
    empty.index = missing.index
    kept = [name for name in out.columns if name in df.columns and name not in results]
    empty = empty.assign(**{name: missing[name] for name in kept})[list(out.columns)]
    is_in_order = out.index.equals(df.index[valid])
    joined = concat([out, empty])
    places = np.concatenate([np.flatnonzero(valid), np.flatnonzero(~valid)])
    return joined.iloc[np.argsort(places)] if is_in_order else joined
