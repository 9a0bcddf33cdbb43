"""Every architecture of transformers that takes token ids alone: right or refused.

Run it with ``python -m pytest -s --slow tests/runtimes/test_every_architecture.py``. It takes about four minutes
and prints the list.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import transformers

from nemo_embed_dask.errors import ModelError
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.cpu_linear import pack_linears
from nemo_embed_dask.runtimes.torch import TorchRuntime

from ..helpers.architectures import tiny_model

# Short rows come after long ones too. The tiny models have windows and blocks of 4 to 16 tokens.
BATCHES = ((5, 3, 9), (40, 5, 17, 3, 70, 1), (3, 6, 12), (33, 100, 2))
BUILT_AT_LEAST = 240
_TOLERANCE = 1e-6


def build(kind):
    """The model, or why there is none that takes token ids alone."""
    try:
        model = tiny_model(kind)
        with torch.inference_mode():
            copy.deepcopy(model)(input_ids=torch.full((1, 6), 7))
    except Exception as error:
        return None, f"{type(error).__name__}: {error}".splitlines()[0][:100]
    return model, ""


def alone(model, ids):
    rows = [torch.from_numpy(ids.row(i).astype(np.int64))[None] for i in range(len(ids))]
    with torch.inference_mode():
        return torch.cat([copy.deepcopy(model)(input_ids=row)[0][0] for row in rows])


def load(model):
    """As `runtimes.torch.load` does."""
    plain, cpu = copy.deepcopy(model), torch.device("cpu")
    try:
        return TorchRuntime(pack_linears(model, torch.float32), cpu, torch.float32)
    except ModelError:
        return TorchRuntime(plain, cpu, torch.float32)


def judge(model):
    """ "right", "wrong" or "refused", and the layout, the difference or the reason."""
    fresh, worst = copy.deepcopy(model), 0.0
    rng = np.random.default_rng(1)
    try:
        runtime = load(model)
        for lengths in BATCHES:
            ids = Ragged.from_lengths(rng.integers(5, 90, sum(lengths)).astype(np.int32), lengths)
            expected = alone(fresh, ids)
            for _ in range(2):  # the second time after itself
                states, _ = runtime.states(ids)
                cosine = torch.nn.functional.cosine_similarity(states.double(), expected.double(), dim=1)
                worst = max(worst, float((1 - cosine).max()))
    except ModelError as error:
        return "refused", str(error)[:150]
    layout = "packed" if runtime._layout.packed else "padded"
    limit = runtime._lengths.limit
    how = layout if limit is None else f"{layout}, alone above {limit} tokens"
    return ("right", how) if worst < _TOLERANCE else ("wrong", f"{how}: {worst:.1e}")


def scan(kinds=None):
    found = {}
    for kind in kinds or transformers.MODEL_MAPPING:
        if kind.model_type in found:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, why_not = build(kind)
            found[kind.model_type] = ("not built", why_not) if model is None else judge(model)
        print(kind.model_type, *found[kind.model_type], sep="  ", flush=True)
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_architecture_is_right_or_refused():
    transformers.logging.set_verbosity(50)
    found = scan()
    counts = {verdict: sum(seen == verdict for seen, _ in found.values()) for verdict, _ in found.values()}
    print(counts)
    assert [name for name, (verdict, _) in found.items() if verdict == "wrong"] == []
    assert len(found) - counts["not built"] >= BUILT_AT_LEAST
