"""The OpenVINO runtime for CPUs: from token ids to token states.

It runs the export in the model's directory (``openvino/openvino_model.xml``, as sentence-transformers and
optimum write it). If there is none, the model is converted at load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, ModelError
from ..models.weights import load_weights
from ..ragged import Ragged, Side
from .probe import states_agree

if TYPE_CHECKING:
    from ..models.card import ModelCard

# Tokens per batch, padding included. Larger batches are slower (benchmarks/LOG.md).
_BUDGET = 1024


class OpenVinoRuntime:
    """A compiled model. Implements `runtimes.Runtime`; rows are always padded on the right."""

    pads = True
    device = torch.device("cpu")

    def __init__(self, compiled: Any, vocabulary: int, dtype: torch.dtype, weight_bytes: int) -> None:
        self._compiled = compiled
        self._input_names = {name for port in compiled.inputs for name in port.names}
        self.budget = _BUDGET
        self.weight_bytes = weight_bytes
        self.dimension = self._probe(vocabulary, dtype)

    def _probe(self, vocabulary: int, dtype: torch.dtype) -> int:
        """Check that rows have the same states in a batch as alone, and return the states' dimension."""
        ids = Ragged.from_rows([[(3 + 7 * i) % vocabulary for i in range(n)] for n in (7, 3, 12)])
        together, _ = self.states(ids, padding_side="right")
        alone = torch.cat([self.states(ids.take([i]), padding_side="right")[0] for i in range(len(ids))])
        if not states_agree(together, alone, dtype):
            raise ModelError(
                "OpenVINO gives a row of this model different states in a batch than alone; use runtime='torch'"
            )
        return int(alone.shape[1])

    def states(self, ids: Ragged, *, padding_side: Side) -> tuple[Tensor, Tensor]:
        """Return the token states of a batch, float32 ``[total, dimension]``, and int64 offsets ``[n + 1]``."""
        del padding_side
        mask, block = ids.mask(), ids.pad().astype(np.int64)
        inputs = {"input_ids": block, "attention_mask": mask.astype(np.int64), "token_type_ids": block * 0}
        used = {name: array for name, array in inputs.items() if name in self._input_names}
        states = self._compiled(used)[0]
        return torch.from_numpy(states[mask]), torch.from_numpy(ids.offsets)

    def batch_memory(self, tokens: int) -> int:
        """Return 0: this runtime uses no GPU."""
        del tokens
        return 0


class _FirstOutput(nn.Module):
    """A model with two inputs, which every text model has, and its token states as the only output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return states


def load(card: ModelCard, *, autocast: bool = True, adapter: str | None = None) -> OpenVinoRuntime:
    """Compile the export in the model's directory, or its weights.

    With ``autocast`` OpenVINO uses bfloat16 if the CPU supports it.
    """
    try:
        import openvino
    except ImportError as error:
        raise ConfigError("runtime='openvino' needs it: pip install 'nemo-embed-dask[openvino]'") from error
    core = openvino.Core()
    export = card.path / "openvino" / "openvino_model.xml"
    use_export = export.is_file() and adapter is None
    model = core.read_model(export) if use_export else _convert(card, adapter)
    weight_bytes = sum(op.get_byte_size() for op in model.get_ops() if op.get_type_name() == "Constant")
    compiled = core.compile_model(model, "CPU", {} if autocast else {"INFERENCE_PRECISION_HINT": "f32"})
    dtype = torch.bfloat16 if autocast else torch.float32
    return OpenVinoRuntime(compiled, int(card.config["vocab_size"]), dtype, weight_bytes)


def _convert(card: ModelCard, adapter: str | None) -> Any:
    """Convert a model's weights to OpenVINO.

    Raises
    ------
    ModelError
        The model has a sliding window, which the conversion would lose.
    """
    import openvino

    # Part of the example is padding: without any the mask would be left out of the traced model.
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1, 3:] = 0
    example = {"input_ids": mask.clone(), "attention_mask": mask}
    with torch.inference_mode():
        module = _FirstOutput(load_weights(card.path, torch.float32, adapter))
        if "sliding_window" in card.config and cast("Any", module.model.config).sliding_window:
            # The example is shorter than a decoder's sliding window, so the traced mask would not have it.
            raise ModelError(
                f"model {card.path.name!r} has a sliding window, which OpenVINO would lose; use runtime='torch'"
            )
        rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=card.max_positions)
        shapes = {name: {0: rows, 1: length} for name in example}
        return openvino.convert_model(torch.export.export(module, (), example, dynamic_shapes=shapes))
