from __future__ import annotations

import torch
from torch import nn

from nemo_embed_dask.runtimes.model_state import ModelState


class Remembers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.spare, self.longest = nn.Linear(2, 2), nn.Identity(), 4
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("table", torch.zeros(2), persistent=False)

    def forward(self, kind):
        if kind == "attribute":
            self.longest, self.cache = 9, torch.ones(1)
        elif kind == "buffer":
            self.register_buffer("table", torch.ones(3), persistent=False)
        elif kind == "in place":
            self.scale.mul_(3)
        elif kind == "module":
            self.spare = self.layer


def seen(model):
    return model.longest, model.scale.tolist(), model.table.tolist(), model.spare, hasattr(model, "cache")


def test_every_kind_of_change_is_undone_and_reported():
    model = Remembers()
    before, state = seen(model), ModelState(model)
    assert not state.restore()
    with torch.inference_mode():
        for kind in ("attribute", "buffer", "in place", "module"):
            model(kind)
            assert seen(model) != before
            assert state.restore()
            assert seen(model) == before
    assert not state.restore()
