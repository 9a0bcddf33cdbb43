"""OpenVINO on a CPU: token ids in, token states out. Knows no text, no pooling, no dataframe.

Runs the export that lies in the model's directory (``openvino/openvino_model.xml``, as
sentence-transformers and optimum write it); where there is none, the model is converted at load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..errors import ConfigError, ModelError
from ..models.weights import load_weights
from ..ragged import Ragged, Side

if TYPE_CHECKING:
    from ..models.card import ModelCard


# Padded tokens a batch: larger ones are slower (benchmarks/LOG.md).
_BUDGET = 1024
# How far the states of a row in a batch may be from its states alone, as 1 - cosine: bfloat16, float32.
_TOLERANCE = {True: 2e-2, False: 1e-4}


class OpenVinoRuntime:
    """A compiled model. Satisfies `runtimes.Runtime`; rows are padded on the right, whatever is asked."""

    pads = True
    device = torch.device("cpu")

    def __init__(self, compiled: Any, vocabulary: int, tolerance: float, weight_bytes: int) -> None:
        self._compiled = compiled
        self._names = {name for port in compiled.inputs for name in port.names}
        self.budget = _BUDGET
        self.weight_bytes = weight_bytes
        self.dimension = self._probe(vocabulary, tolerance)

    def _probe(self, vocabulary: int, tolerance: float) -> int:
        """The width of states, after making sure that rows have the same in a batch as alone."""
        ids = Ragged.from_rows([[(3 + 7 * i) % vocabulary for i in range(n)] for n in (7, 3, 12)])
        together, _ = self.states(ids, padding_side="right")
        alone = torch.cat([self.states(ids.take([i]), padding_side="right")[0] for i in range(len(ids))])
        if not bool((1 - cosine_similarity(together, alone, dim=1)).max() < tolerance):
            raise ModelError(
                "OpenVINO gives a row of this model other states in a batch than alone; use 'torch'"
            )
        return int(alone.shape[1])

    def states(self, ids: Ragged, *, padding_side: Side) -> tuple[Tensor, Tensor]:
        """Token states of some rows: float32 ``[total, dimension]`` and int64 offsets ``[n + 1]``."""
        mask, block = ids.mask(), ids.pad().astype(np.int64)
        inputs = {"input_ids": block, "attention_mask": mask.astype(np.int64), "token_type_ids": block * 0}
        result = self._compiled({name: inputs[name] for name in inputs if name in self._names})[0]
        return torch.from_numpy(result[mask]), torch.from_numpy(ids.offsets)

    def batch_memory(self, tokens: int) -> int:
        """Return 0: this runtime uses no GPU."""
        del tokens
        return 0


class _FirstOutput(nn.Module):
    """The model's states alone, from the two inputs that every text model has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return states


def load(card: ModelCard, *, autocast: bool = True, adapter: str | None = None) -> OpenVinoRuntime:
    """Compile a model directory's export, or its weights; bfloat16 where the CPU has it and ``autocast``."""
    try:
        import openvino
    except ImportError as error:
        raise ConfigError("runtime='openvino' needs it: pip install 'nemo-embed-dask[openvino]'") from error
    core = openvino.Core()
    export = card.path / "openvino" / "openvino_model.xml"
    model = core.read_model(export) if export.is_file() and adapter is None else _converted(card, adapter)
    weight_bytes = sum(op.get_byte_size() for op in model.get_ops() if op.get_type_name() == "Constant")
    compiled = core.compile_model(model, "CPU", {} if autocast else {"INFERENCE_PRECISION_HINT": "f32"})
    return OpenVinoRuntime(compiled, int(card.config["vocab_size"]), _TOLERANCE[autocast], weight_bytes)


def _converted(card: ModelCard, adapter: str | None) -> Any:
    import openvino

    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1, 3:] = 0  # an example without padding would be traced without a mask
    example = {"input_ids": mask.clone(), "attention_mask": mask}
    with torch.inference_mode():
        module = _FirstOutput(load_weights(card.path, torch.float32, adapter))
        if "sliding_window" in card.config and cast("Any", module.model.config).sliding_window:
            # A mask is traced from a short example, which leaves a decoder's window out of it.
            raise ModelError(f"{card.path.name!r} has a sliding window, which is lost in OpenVINO; use 'torch'")
        rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=card.positions)
        shapes = {name: {0: rows, 1: length} for name in example}
        return openvino.convert_model(torch.export.export(module, (), example, dynamic_shapes=shapes))
