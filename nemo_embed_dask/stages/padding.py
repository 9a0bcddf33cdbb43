"""Pad rows of tokens for hooks of a subclass, and remove the padding of Curator's tokenizer stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..frames import frame_ops
from ..ragged import Bools, Ragged, Side
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


def ragged_tokens(df: Any, limit: int | None, side: Side, settings: Settings) -> tuple[Any, Bools]:
    """Return the frame with rows of tokens of at most ``limit``, and which rows have tokens.

    A row without tokens gets one, so that no row of a batch is masked completely.
    """
    if ATTENTION_MASK_FIELD in df.columns:
        df = without_padding(df, settings)
    ops = frame_ops(df)
    ids, valid, _ = ops.read_tokens(df[INPUT_ID_FIELD])
    valid = valid & (ids.lengths > 0)
    ids = ids if limit is None else ids.clip(limit, side)
    lengths = np.maximum(ids.lengths, 1)
    filled = Ragged.from_lengths(np.zeros(int(lengths.sum()), np.int32), lengths)
    filled.values[np.repeat(ids.lengths > 0, lengths)] = ids.values
    column = ops.token_column(filled, np.ones(len(ids), np.bool_), index=df.index, name=INPUT_ID_FIELD)
    return df.assign(**{INPUT_ID_FIELD: column}), valid


def without_results(out: Any, names: list[str], valid: Bools) -> Any:
    """Set the results of rows without tokens to null, if the frame has one row per row of tokens."""
    if valid.all() or len(out) != len(valid):
        return out
    present = type(out[out.columns[0]])(valid, index=out.index)
    return out.assign(**{name: out[name].where(present) for name in names if name in out.columns})
