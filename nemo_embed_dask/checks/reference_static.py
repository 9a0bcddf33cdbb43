"""Read a static model's tokenizer and table for the reference, in another way than the engine does."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..models.card import ModelCard


def static_tokenizer(card: ModelCard, limit: int) -> Callable[[str], list[int]]:
    """Return a function from a text to its ids; a text may have none."""
    file = card.path / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    if card.static is None or card.static.layout != "model2vec":
        keeps_end = (described.get("truncation") or {}).get("direction") == "Left"
        tokenizer.enable_truncation(limit, direction="left" if keeps_end else "right")
        return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)
    tokenizer.enable_truncation(limit)
    chars = limit * int(statistics.median(map(len, tokenizer.get_vocab())))
    unknown = described["model"].get("unk_token")
    dropped = described["model"].get("unk_id") if unknown is None else tokenizer.token_to_id(unknown)

    def tokenize(text: str) -> list[int]:
        ids = tokenizer.encode(text[:chars], add_special_tokens=False).ids
        return [index for index in ids if index != dropped]

    return tokenize


class StaticReference(nn.Module):
    """The table of a static model, in float64. It is called as a transformer is."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        tensors = load_file(card.path / "model.safetensors")
        self._table = tensors["embedding.weight" if "embedding.weight" in tensors else "embeddings"].double()
        self._rows = tensors.get("mapping")
        self._weights = tensors.get("weights")

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        """Return the vectors of the tokens, ``[n, longest, h]``; there is no attention."""
        del attention_mask
        rows = input_ids if self._rows is None else self._rows.long()[input_ids]
        vectors = self._table[rows]
        return (vectors if self._weights is None else vectors * self._weights.double()[input_ids][..., None],)
