"""OpenVINO on a CPU: token ids in, token states out. Knows no text, no pooling, no dataframe.

Runs the export that lies in the model's directory (``openvino/openvino_model.xml``, as
sentence-transformers and optimum write it); where there is none, the model is converted at load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..device import token_budget
from ..errors import ConfigError
from ..ragged import Ragged, Side
from ..weights import load_weights

if TYPE_CHECKING:
    from ..cards import ModelCard


class OpenVinoRuntime:
    """A compiled model. Satisfies `runtimes.Runtime`; rows are padded on the right, whatever is asked."""

    pads = True
    device = torch.device("cpu")

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._names = {name for port in compiled.inputs for name in port.names}
        self.budget = token_budget(self.device, lambda _: None)  # a CPU's is not measured
        self.dimension = int(self.states(Ragged.from_rows([[0]]), padding_side="right")[0].shape[1])

    def states(self, ids: Ragged, *, padding_side: Side) -> tuple[Tensor, Tensor]:
        """Token states of some rows: float32 ``[total, dimension]`` and int64 offsets ``[n + 1]``."""
        mask, block = ids.mask(), ids.pad().astype(np.int64)
        inputs = {"input_ids": block, "attention_mask": mask.astype(np.int64), "token_type_ids": block * 0}
        result = self._compiled({name: inputs[name] for name in inputs if name in self._names})[0]
        return torch.from_numpy(result[mask]), torch.from_numpy(ids.offsets)


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
    return OpenVinoRuntime(
        core.compile_model(model, "CPU", {} if autocast else {"INFERENCE_PRECISION_HINT": "f32"})
    )


def _converted(card: ModelCard, adapter: str | None) -> Any:
    import openvino

    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1, 3:] = 0  # an example without padding would be traced without a mask
    example = {"input_ids": mask.clone(), "attention_mask": mask}
    with torch.inference_mode():
        module = _FirstOutput(load_weights(card.path, torch.float32, adapter))
        rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=card.positions)
        shapes = {name: {0: rows, 1: length} for name in example}
        return openvino.convert_model(torch.export.export(module, (), example, dynamic_shapes=shapes))
