"""Give the model ids and positions that it has no embedding for: ``python -m tests.gpu.beyond_tables MODEL``.

A process of its own, because on a GPU a wrong index ends all use of the device by its process.
"""

import sys

import numpy as np
import torch

from nemo_embed_dask import engine
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.rows import Tokenized

from .device import DEVICE, settings_of

BEYOND = "<beyond>"


def main(path: str) -> None:
    """``path``: a model with 64 positions, whose tokenizer gives `BEYOND` an id that the model does not have."""
    settings = settings_of(path, on_error="null")
    out = engine.embed_texts(["a good text", f"a {BEYOND} text"], settings)
    assert out.valid.tolist() == [True, False], out.failures
    assert "is not among the model's" in out.failures[1]
    ids = Ragged.from_rows([[2, 5, 3], [2, *[5] * 63, 3], [2, -1, 3]])
    out = engine.embed_tokens(Tokenized.from_ids(ids, np.ones(3, np.bool_)), settings)
    assert out.valid.tolist() == [True, False, False], out.failures
    assert "more than the model's limit of 64" in out.failures[1]
    assert "token id -1 is not among the model's" in out.failures[2]
    ones = torch.ones(64, 64, device=DEVICE)
    assert (ones @ ones == 64).all()
    print("rows beyond the tables fail, and the device still works")


if __name__ == "__main__":
    main(sys.argv[1])
