"""crossfit 0.0.9, patched to run on RAPIDS 26.10 and transformers 5. It is a peer, not a dependency.

Six things are patched. Its loader, memory curve and batches run as published.

1. cuml, cuvs and pylibraft, which it imports for vector search, are empty modules.
2. cudf.core.subword_tokenizer, removed in 25.10, is a class that cannot be used, and a conversion between cupy
   and torch. Texts are therefore tokenized by Hugging Face ("sentencepiece" in crossfit's terms).
3. cudf.utils.hash_vocab_utils, removed, is an empty module.
4. and 5. List columns, which used a removed constructor and a mask that is now a tuple, are made by pylibcudf.
6. ``batch_encode_plus``, removed from transformers 5, calls the tokenizer.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import torch

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import find_model

from . import SETTINGS
from .measure import Prepare, Result, Work

NAME = "crossfit 0.0.9, patched to run on 26.10"


def _module(name: str, **contents: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)


class _NoSubwordTokenizer:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("this cuDF has no SubwordTokenizer; pass tokenizer_type='sentencepiece'")


def _cast(array: Any, kind: str) -> Any:
    """Convert to torch (``kind="pt"``) or cupy, as the removed function of cuDF did."""
    import cupy

    return torch.as_tensor(array, device="cuda") if kind == "pt" else cupy.asarray(array)


def _list_series(array: Any, index: Any) -> Any:
    """Convert a cupy matrix to a list column."""
    import cudf
    import cupy
    import pylibcudf as plc

    block = cupy.ascontiguousarray(array if array.ndim == 2 else array[:, None])
    return cudf.Series.from_pylibcudf(plc.Column.from_cuda_array_interface(block), {"index": index})


def install() -> Any:
    """Patch crossfit, and return its ``op`` module and its models."""
    import cudf  # noqa: F401 - the patched modules need their parent
    import transformers

    if "crossfit" not in sys.modules:
        for name in ("cuml", "cuml.dask", "cuvs", "cuvs.neighbors", "pylibraft"):
            _module(name, __version__="26.10.0")
        _module("cuml.dask.neighbors", NearestNeighbors=None)
        _module("cuvs.neighbors.brute_force", search=None)
        _module(
            "cudf.core.subword_tokenizer", SubwordTokenizer=_NoSubwordTokenizer, _cast_to_appropriate_type=_cast
        )
        _module("cudf.utils.hash_vocab_utils", hash_vocab=None)
        base = transformers.PreTrainedTokenizerBase
        if not hasattr(base, "batch_encode_plus"):
            base.batch_encode_plus = base.__call__
    import crossfit
    from crossfit.backend.torch import HFModel, SentenceTransformerModel

    for name, module in list(sys.modules.items()):
        if name.startswith("crossfit") and hasattr(module, "create_list_series_from_1d_or_2d_ar"):
            module.create_list_series_from_1d_or_2d_ar = _list_series
    return types.SimpleNamespace(
        op=crossfit.op, SentenceTransformerModel=SentenceTransformerModel, HFModel=HFModel
    )


def load() -> Prepare:
    """Return crossfit's usual pipeline for one partition. Fitting its memory curve is not timed."""
    import cudf

    from nemo_embed_dask import to_matrix

    cf = install()
    # crossfit writes the memory curve into the directory of the model, so it gets a copy.
    path = Path(tempfile.mkdtemp(prefix="crossfit-"), "model")
    shutil.copytree(find_model(SETTINGS.model), path)
    model = cf.SentenceTransformerModel(str(path), max_mem_gb=16)
    limit = read_card(path).max_seq_length  # crossfit's default would be 512
    tokenizer = cf.op.Tokenizer(model, cols=["text"], tokenizer_type="sentencepiece", max_length=limit)
    embedder = cf.op.Embedder(model, max_mem="40GB")

    def prepare(data: list[str]) -> Work:
        frame = cudf.DataFrame({"text": cudf.Series(data, dtype="str")})

        def work() -> Result:
            out = embedder(tokenizer(frame), partition_info={"number": 0})
            return Result(to_matrix(out["embedding"]))

        return work

    return prepare
