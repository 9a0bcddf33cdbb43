"""What a model's modules hold besides weights, so that a forward pass can be undone.

Some models keep values from one batch to the next: dynamic rotary positions keep the frequencies of the longest
row so far, and BigBird keeps full attention after a short batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Buffers up to this size are copied. Larger ones are tables, which no model writes to.
_LARGEST_BUFFER = 65_536


class _Saved(NamedTuple):
    """Attributes of a module. The dictionaries are shallow copies."""

    module: nn.Module
    attributes: dict[str, Any]
    buffers: dict[str, Any]
    children: dict[str, Any]


class ModelState:
    """The attributes and buffers of a model at the time that this object is made."""

    def __init__(self, model: nn.Module) -> None:
        self._saved = [
            _Saved(module, dict(module.__dict__), dict(module._buffers), dict(module._modules))
            for module in model.modules()
        ]
        buffers = [buffer for buffer in model.buffers() if buffer.numel() <= _LARGEST_BUFFER]
        self._values: list[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in buffers]

    def restore(self) -> bool:
        """Undo what forward passes have changed; return whether anything was changed."""
        changed = [self._restore(saved) for saved in self._saved]
        for buffer, value in self._values:
            if not torch.equal(buffer, value):
                buffer.copy_(value)
                changed.append(True)
        return any(changed)

    def _restore(self, saved: _Saved) -> bool:
        module = saved.module
        pairs = (
            (module.__dict__, saved.attributes),
            (module._buffers, saved.buffers),
            (module._modules, saved.children),
        )
        changed = [(now, before) for now, before in pairs if not _same(now, before)]
        for now, before in changed:
            now.clear()
            now.update(before)
        return bool(changed)


def _same(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Compare by identity, because tensors have no truth value; numbers are compared by value."""
    return now.keys() == before.keys() and all(
        value is before[key] or (isinstance(value, int | float | str) and value == before[key])
        for key, value in now.items()
    )
