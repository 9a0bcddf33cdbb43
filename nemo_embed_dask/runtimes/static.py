"""The runtime of static models: the states of a token are its vector in a table, on a CPU or a GPU."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ..device import default_device, to_device
from ..errors import ConfigError, ModelError
from ..models.card import ModelCard
from ..models.names import model_file
from ..models.static import LAYOUTS
from ..models.weight_files import WEIGHTS
from ..ragged import Ragged

# Tokens per batch. It bounds the memory of `states`; the speed of `means` hardly depends on it.
_BUDGET = 65_536


class StaticRuntime:
    """A table of token vectors, float32 ``[vocabulary, dimension]``. Implements `runtimes.Runtime`."""

    pads = False
    number_type = "float32"
    max_length: int | None = None

    def __init__(self, table: Tensor) -> None:
        self._table = table
        self.device = table.device
        self.vocabulary, self.dimension = int(table.shape[0]), int(table.shape[1])
        self.budget = _BUDGET
        self.weight_bytes = table.nbytes

    def states(self, ids: Ragged) -> tuple[Tensor, Tensor]:
        """Return the vectors of a batch's tokens, ``[total, dimension]``, and int64 offsets ``[n + 1]``."""
        with torch.inference_mode():
            states = functional.embedding(to_device(ids.values, self.device), self._table)
            return states, to_device(ids.offsets, self.device)

    def means(self, ids: Ragged) -> Tensor:
        """Return the mean of each row's token vectors, ``[n, dimension]``, without a copy of every vector."""
        values, offsets = (to_device(array.astype("int64"), self.device) for array in (ids.values, ids.offsets))
        with torch.inference_mode():
            return functional.embedding_bag(values, self._table, offsets, mode="mean", include_last_offset=True)

    def load_wider(self) -> None:
        """Return None: the vectors are float32."""

    def batch_memory(self, tokens: int) -> int:
        """Return the bytes of GPU memory that the vectors of ``tokens`` tokens take; 0 on a CPU."""
        return tokens * self.dimension * 4 if self.device.type == "cuda" else 0


def load(card: ModelCard, *, autocast: bool = True) -> StaticRuntime:
    """Load a static model's table on the best device, in float32.

    Raises
    ------
    ConfigError
        An adapter was passed.
    ModelError
        The file of the table is damaged.
    """
    del autocast  # float32 costs no time here
    if card.adapter is not None:
        raise ConfigError(f"model {card.name!r} is static, so that no adapter fits it; leave out adapter")
    return StaticRuntime(_load_table(card).to(default_device()))


def _load_table(card: ModelCard) -> Tensor:
    """Return one vector per token id, and zeros for `StaticTable.empty_id`."""
    assert card.static is not None
    file = card.path / WEIGHTS
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{model_file(file)} is not a safetensors file ({error}); fetch the model again"
        ) from error
    table = tensors[LAYOUTS[card.static.layout]].float()
    if card.static.layout == "model2vec":
        table = _share_and_weight(card, table, tensors)
    return torch.cat([table, table.new_zeros(1, table.shape[1])])


def _share_and_weight(card: ModelCard, table: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Return model2vec's vector of each token: a row of the table, times the token's weight."""
    if "mapping" in tensors:
        rows = tensors["mapping"].long()
        wrong = rows[(rows < 0) | (rows >= len(table))]
        if len(wrong):
            raise ModelError(
                f"{model_file(card.path / WEIGHTS)} maps a token to row {wrong[0]} of a table that has "
                f"{len(table)} rows; fetch the model again"
            )
        table = table[rows]
    return table * tensors["weights"].float()[:, None] if "weights" in tensors else table
