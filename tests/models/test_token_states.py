from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from nemo_embed_dask.models.token_states import token_states

STATES = torch.ones(1, 2, 3)


@pytest.mark.parametrize(
    "output",
    [
        STATES,
        (STATES, None),
        {"pooled": None, "last_hidden_state": STATES},
        BaseModelOutput(last_hidden_state=STATES),
    ],
)
def test_where_the_states_are(output):
    assert token_states(output) is STATES


def test_an_output_without_states():
    with pytest.raises(ValueError, match="its output has a, b and no last_hidden_state"):
        token_states({"a": STATES, "b": STATES})
