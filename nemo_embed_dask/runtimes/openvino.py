"""The OpenVINO runtime for CPUs: from token ids to token states.

It runs the export in the model's directory (``openvino/openvino_model.xml``, as sentence-transformers and
optimum write it). If there is none, the model is converted at load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..device import number_types, type_name
from ..errors import ConfigError, ModelError, type_and_message
from ..models.kinds import load_failure
from ..models.names import model_file
from ..models.token_states import token_states
from ..models.weights import load_weights
from ..ragged import Ragged
from . import tables
from .layouts import forward_alone
from .probe import LENGTHS, BatchLengths, probe_batch, states_agree

if TYPE_CHECKING:
    from pathlib import Path

    from ..models.card import ModelCard

# Tokens per batch, padding included. Larger batches are slower (benchmarks/LOG.md).
_BUDGET = 1024
# The longest row on which a conversion is compared with its weights, at load.
_LONGEST_CHECK = 1024


class OpenVinoRuntime:
    """A compiled model. Implements `runtimes.Runtime`; rows are always padded on the right."""

    pads = True
    device = torch.device("cpu")

    def __init__(
        self,
        compiled: Any,
        vocabulary: int,
        dtype: torch.dtype,
        weight_bytes: int,
        *,
        max_length: int | None = None,
        hints: Sequence[int] = (),
    ) -> None:
        self._compiled = compiled
        self._input_names = {name for port in compiled.inputs for name in port.names}
        self._dtype = dtype
        self.number_type = type_name(dtype)
        self.vocabulary = vocabulary
        self.max_length = max_length
        self.budget = _BUDGET
        self.weight_bytes = weight_bytes
        self.dimension = self._probe()
        self._lengths = BatchLengths(self._agree, hints)

    def _probe(self) -> int:
        """Check that rows have the same states in a batch as alone, and return the states' dimension."""
        if not self._agree(LENGTHS):
            raise ModelError(
                "OpenVINO gives a row of this model different states in a batch than alone; use runtime='torch'"
            )
        return int(self._run(probe_batch(self.vocabulary, None, (1,))).shape[1])

    def _agree(self, lengths: Sequence[int]) -> bool:
        """Return whether rows of these lengths have the same states in a batch as alone."""
        ids = probe_batch(self.vocabulary, None, [min(length, self.max_length or length) for length in lengths])
        return states_agree(self._run(ids), self._run_alone(ids), self._dtype)

    def limit_length(self, *lengths: int | None) -> None:
        """Run no row that is longer than one of these; None is no limit."""
        self.max_length = min((n for n in (self.max_length, *lengths) if n is not None), default=None)

    def reproduces(self, expected: Tensor, ids: Ragged) -> bool:
        """Return whether each row alone has these states."""
        return states_agree(self._run_alone(ids), expected, self._dtype)

    def _run_alone(self, ids: Ragged) -> Tensor:
        return torch.cat([self._run(ids.take([row])) for row in range(len(ids))])

    def states(self, ids: Ragged) -> tuple[Tensor, Tensor]:
        """Return the token states of a batch, float32 ``[total, dimension]``, and int64 offsets ``[n + 1]``."""
        states = torch.cat([self._run(part) for part, _ in self._lengths.divide(ids)])
        return states, torch.from_numpy(ids.offsets)

    def _run(self, ids: Ragged) -> Tensor:
        mask, block = ids.mask(), ids.pad().astype(np.int64)
        inputs = {"input_ids": block, "attention_mask": mask.astype(np.int64), "token_type_ids": block * 0}
        used = {name: array for name, array in inputs.items() if name in self._input_names}
        return torch.from_numpy(self._compiled(used)[0][mask])

    def load_wider(self) -> None:
        """Return None: bfloat16 has the range of float32."""

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
        return token_states(self.model(input_ids=input_ids, attention_mask=attention_mask))


def load(card: ModelCard, *, autocast: bool = True) -> OpenVinoRuntime:
    """Compile the export in the model's directory, or its weights.

    With ``autocast`` OpenVINO uses bfloat16 if the CPU supports it.
    """
    try:
        import openvino
    except ImportError as error:
        raise ConfigError("runtime='openvino' needs it: pip install 'nemo-embed-dask[openvino]'") from error
    core = openvino.Core()
    export = card.weights_path / "openvino" / "openvino_model.xml"
    if export.is_file() and card.adapter is None:
        return _load_export(core, export, card, autocast=autocast)
    module = _load_module(card)
    runtime = _compile(core, _convert(module, card), card, autocast=autocast)
    _check_conversion(runtime, module, card)
    return runtime


def _load_export(core: Any, export: Path, card: ModelCard, *, autocast: bool) -> OpenVinoRuntime:
    try:
        with export.with_suffix(".bin").open("rb"):  # OpenVINO ends the process for some files it cannot open
            return _compile(core, core.read_model(export), card, autocast=autocast)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model_file(export)} cannot be run by OpenVINO ({load_failure(error)}): export the model again, "
            "or remove its folder to convert the model at load"
        ) from error


def _compile(core: Any, model: Any, card: ModelCard, *, autocast: bool) -> OpenVinoRuntime:
    weight_bytes = sum(op.get_byte_size() for op in model.get_ops() if op.get_type_name() == "Constant")
    compiled = core.compile_model(model, "CPU", {} if autocast else {"INFERENCE_PRECISION_HINT": "f32"})
    runtime = OpenVinoRuntime(
        compiled,
        _vocabulary_size(model) or int(tables.text_part(card.config)["vocab_size"]),
        number_types(OpenVinoRuntime.device, autocast=autocast, stored=lambda: torch.float32)[0],
        weight_bytes,
        max_length=card.max_positions,
        hints=tables.length_hints(card.config),
    )
    runtime.limit_length(tables.configured_rope_limit(card.config))
    return runtime


def _vocabulary_size(model: Any) -> int | None:
    """Return the rows of the table in which a model looks up its token ids; None if it is not found."""
    for op in model.get_ops():
        if op.get_type_name() == "Gather":
            index = op.input_value(1).get_node()
            while index.get_type_name() == "Convert":
                index = index.input_value(0).get_node()
            if "input_ids" in {name for port in index.outputs() for name in port.get_names()}:
                return int(op.input_value(0).get_partial_shape()[0].get_length())
    return None


def _check_conversion(runtime: OpenVinoRuntime, module: nn.Module, card: ModelCard) -> None:
    """Compare rows with the model that was converted, and keep to the lengths at which they are equal.

    The conversion may lose windows and blocks that its short example does not reach.
    """

    def agrees(length: int) -> bool:
        ids = probe_batch(runtime.vocabulary, None, [min(length, runtime.max_length or length)])
        with torch.inference_mode():
            return runtime.reproduces(forward_alone(cast("Any", module).model, ids, torch.device("cpu")), ids)

    proven = max(LENGTHS)
    if not agrees(proven):
        raise ModelError(
            f"OpenVINO's conversion of model {card.name!r} gives different token states; use runtime='torch'"
        )
    hints = [hint for hint in tables.length_hints(card.config) if hint > proven]
    if not hints or agrees(_LONGEST_CHECK):
        untried = [length for length in tables.named_lengths(card.config) if length >= _LONGEST_CHECK]
        runtime.limit_length(*untried)
        return
    for hint in hints:
        if not agrees(hint):
            break
        proven = hint
    runtime.limit_length(proven)


def _load_module(card: ModelCard) -> nn.Module:
    """Load the weights.

    Raises
    ------
    ModelError
        The model has a sliding window, which the conversion would lose.
    """
    module = _FirstOutput(load_weights(card.weights_path, torch.float32, card.adapter, code=card.code))
    if "sliding_window" in tables.text_part(card.config) and tables.text_config(module.model).sliding_window:
        # The example is shorter than a decoder's sliding window, so the traced mask would not have it.
        raise ModelError(
            f"model {card.name!r} has a sliding window, which OpenVINO would lose; use runtime='torch'"
        )
    return module


def _convert(module: nn.Module, card: ModelCard) -> Any:
    import openvino

    # Part of the example is padding: without any the mask would be left out of the traced model.
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[1, 3:] = 0
    example = {"input_ids": mask.clone(), "attention_mask": mask}
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=card.max_positions)
    shapes = {name: {0: rows, 1: length} for name in example}
    try:
        with torch.inference_mode():
            return openvino.convert_model(torch.export.export(module, (), example, dynamic_shapes=shapes))
    except Exception as error:
        raise ModelError(
            f"OpenVINO cannot convert model {card.name!r} ({type_and_message(error)}); use runtime='torch'"
        ) from error
