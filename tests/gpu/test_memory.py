"""The memory of a GPU: the budget of a batch, out-of-memory errors, and no growth."""

import gc
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from nemo_embed_dask import engine, runtimes
from nemo_embed_dask.models import card as cards

from .device import cosines, settings_of

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("fresh")]
# What the driver and the allocator may take beside values: contexts, modules, segments that are partly used.
SLACK = 2**28


def test_the_budget_is_what_this_card_s_free_memory_allows(minilm):
    whole = runtimes.load(cards.read_card(minilm)).budget
    runtimes.unload()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 2**30, dtype=torch.uint8, device="cuda")
    little = runtimes.load(cards.read_card(minilm)).budget
    del taken
    print(f"budget {whole} tokens, {little} with 1 GiB of the card free")
    assert 1024 <= little < whole


def test_out_of_memory_is_halved_and_remembered(minilm, texts):
    settings = settings_of(minilm)
    expected = engine.embed_texts(texts, settings).matrix
    runtime = engine.load_runtime(settings)
    before = runtime.budget
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # The limit is on what the allocator reserves, which may be more than what is allocated.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300e6) / total)
    try:
        out = engine.embed_texts(texts * 8, replace(settings, share_equal_texts=False))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"{out.stats.ooms} out of memory, budget {before}, now {runtime.budget}")
    assert out.stats.ooms > 0
    assert runtime.budget < before
    assert out.valid.all()
    assert cosines(out.matrix[: len(texts)], expected).min() >= 0.999


def random_column(rng):
    words, lengths = ["a", "bb", "ccc", "dddd"], rng.integers(0, rng.integers(2, 400), rng.integers(1, 4000))
    return [None if n == 3 else " ".join(rng.choice(words, n)) for n in lengths]


@pytest.mark.rapids
def test_random_partitions_do_not_make_memory_grow(minilm):
    """A minute of them; NEMO_EMBED_SOAK_S=1800 for half an hour.

    Allocated bytes are those of live tensors, so after each partition they are exactly those of the model. What
    the allocator reserves depends on the sizes of past batches: it must give back all but a few segments. The
    rest of the used memory is that of cuDF, which has no pool here, and of the driver.
    """
    import cudf

    from nemo_embed_dask import embed

    rng, until = np.random.default_rng(0), time.monotonic() + float(os.environ.get("NEMO_EMBED_SOAK_S", "60"))
    marks = []
    while time.monotonic() < until or len(marks) < 4:
        column = random_column(rng)
        out = embed(cudf.DataFrame({"text": cudf.Series(column, dtype="str")}), model_identifier=str(minilm))
        assert out.embeddings.null_count == sum(text is None for text in column)
        del out
        gc.collect()
        free, total = torch.cuda.mem_get_info()
        marks.append((torch.cuda.memory_allocated(), total - free - torch.cuda.memory_reserved()))
    allocated, beside = np.array(marks).T
    half, reserved = len(marks) // 2, torch.cuda.memory_reserved()
    torch.cuda.empty_cache()
    kept = torch.cuda.memory_reserved()
    print(f"{len(marks)} partitions; allocated {allocated[0]} to {allocated[-1]} bytes, beside torch {beside[0]} "
          f"to {beside[-1]}, reserved {reserved}, {kept} after empty_cache")  # fmt: skip
    assert allocated[half:].max() <= allocated[:half].max()
    assert beside[half:].max() <= beside[:half].max() + SLACK
    assert kept <= allocated[-1] + SLACK
