"""The device of the tests in this folder: a GPU, or the CPU in a rehearsal (``pytest -m gpu --rehearse``)."""

from contextlib import contextmanager

import torch

from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.settings import Settings

REHEARSAL = not torch.cuda.is_available()
DEVICE = torch.device("cpu" if REHEARSAL else "cuda")


@contextmanager
def waiting_is_an_error():
    """Raise where the host waits for the GPU, by torch's own detector. A CPU has nothing to wait for."""
    if REHEARSAL:
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def cosines(a, b):
    """Cosine of each row of one matrix with that row of the other, in float64 on the host."""
    return torch.nn.functional.cosine_similarity(a.cpu().double(), b.cpu().double(), dim=1)


def settings_of(path, **changes):
    """Settings of a model; not made from a stage, because stages need Dask, which comes with RAPIDS."""
    return Settings(ModelRef(str(path)), **changes)
