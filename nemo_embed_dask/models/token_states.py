"""The token states in the output of a model."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def token_states(output: Any) -> Tensor:
    """Return the token states in a model's output: its first value, or ``last_hidden_state`` of a dict.

    Raises
    ------
    ValueError
        The output has no token states.
    """
    if isinstance(output, Tensor):
        return output
    # Outputs of transformers are dicts too, whose values have an order.
    if isinstance(output, dict) and not hasattr(output, "to_tuple"):
        if "last_hidden_state" not in output:
            raise ValueError(f"its output has {', '.join(map(str, output))} and no last_hidden_state")
        return cast("Tensor", output["last_hidden_state"])
    return cast("Tensor", output[0])
