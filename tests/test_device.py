"""Memory, transfers, and the loop that must not wait for a device."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from nemo_embed_dask import device, engine
from nemo_embed_dask.device_ragged import DeviceRagged
from nemo_embed_dask.engine.batches import Run
from nemo_embed_dask.engine.compute import embed_rows
from nemo_embed_dask.engine.slabs import embed_slab
from nemo_embed_dask.errors import ConfigError
from nemo_embed_dask.models import card as cards
from nemo_embed_dask.models import locate as models
from nemo_embed_dask.models.weights import load_weights
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.rows import Embedded, Tokenized
from nemo_embed_dask.runtimes import layouts
from nemo_embed_dask.runtimes import torch as runtime_torch
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.vectors.head import Head
from nemo_embed_dask.vectors.pooling import POOLINGS

from .helpers.versions import NEEDS_PACKED_CUDA

META = torch.device("meta")


def nowhere(directory):
    """A model as a GPU has it, its weights then on torch's meta device: shapes without values."""
    weights = load_weights(cards.read_card(directory).path, torch.bfloat16)
    runtime = runtime_torch.TorchRuntime(weights, torch.device("cpu"), torch.bfloat16)
    runtime.model.to(META)
    runtime.device = META
    return runtime


def with_head(runtime, settings, skip=0):
    card = cards.read_card(models.find_model(settings.model))
    head = Head(card, runtime.dimension, META, pooling=settings.pooling, normalize=settings.normalize)
    return engine.Model(replace(find_reader(settings), prompt_tokens=skip), runtime, head)


def on_meta(ids, model):
    """Rows of these ids, with room for their vectors on the meta device."""
    tokens = Tokenized.from_ids(ids, np.ones(len(ids), np.bool_))
    return Embedded.from_tokens(tokens, model.zeros(len(ids)))


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        *(pytest.param(kind, True, marks=NEEDS_PACKED_CUDA) for kind in ("bert", "roberta", "qwen3")),
        ("qwen3", False),
    ],
)
def test_the_device_loop_never_waits_for_the_device(kind, packed, pooling, skip, where, tiny):
    """A meta tensor has no values: whatever would wait for one (item, nonzero, cpu, a boolean index) raises.

    Padded encoders are left out: transformers itself asks the device, once a batch, whether a mask is full.
    """
    runtime = nowhere(tiny(kind))
    if not packed:
        assert layouts.set_attention(runtime.model, "eager")
        runtime._layout, runtime.pads = runtime._layout._replace(packed=False), True
    ids = Ragged.from_rows([[7] * n for n in (3, 9, 0, 1, 9)])
    settings = Settings(models.ModelRef(str(tiny(kind))), pooling=pooling)
    model = with_head(runtime, settings, skip)
    out = on_meta(ids, model)
    if where == "device":  # as cuDF's tokenizer leaves them
        ids = DeviceRagged.from_host(ids, META)
    failed = embed_rows(out, ids, Run(model, settings, None))
    assert (out.matrix.device, out.matrix.shape, out.matrix.dtype) == (META, (5, 32), torch.float32)
    assert (out.stats.batches, out.stats.ooms, failed) == (1, 0, {})
    with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
        embed_slab(out, ids, Run(model, settings, None))()  # `finish` does wait


def test_the_loop_does_not_hide_an_error_of_the_device_as_a_failed_row(tiny):
    runtime = nowhere(tiny("bert"))
    runtime.model.embeddings.register_forward_hook(lambda *_: torch.ones((), device=META).item())
    settings = Settings(models.ModelRef(str(tiny("bert"))))
    model = with_head(runtime, settings)
    ids = Ragged.from_rows([[7, 8]])
    out = on_meta(ids, model)
    with pytest.raises(RuntimeError, match="meta"):
        embed_rows(out, ids, Run(model, settings, None))


@pytest.mark.parametrize(
    ("free", "per_token", "most", "expected"),
    [
        (80 << 30, 60_000, 131_072, 131_072),  # a whole card and a small model
        (8 << 30, 400_000, 131_072, 10_737),  # half of what is free
        (1 << 20, 400_000, 131_072, 1024),  # next to nothing: try, and halve
        (8 << 30, 0.0, 131_072, 131_072),  # nothing measured
    ],
)
def test_a_batch_takes_a_share_of_the_memory_that_is_free(free, per_token, most, expected):
    assert device.affordable_tokens(free, per_token, most) == expected


def test_on_a_cpu_the_budget_is_a_constant_and_nothing_is_tried():
    assert device.token_budget(torch.device("cpu"), lambda tokens: pytest.fail("tried")) == 4096


@pytest.mark.parametrize(("workers", "expected"), [(None, 21_474), ("1", 21_474), ("2", 10_737), ("4", 5368)])
def test_workers_of_a_gpu_share_its_free_memory(workers, expected, monkeypatch):
    """They measure at the same time, before one of them has a batch on the GPU."""
    monkeypatch.setattr(device, "_peak_memory", lambda *_: 400_000 * device._TRIAL_TOKENS)
    monkeypatch.setattr(device, "_free_memory", lambda _: 16 << 30)
    if workers:
        monkeypatch.setenv(device.WORKERS_PER_GPU, workers)
    assert device.token_budget(torch.device("cuda"), lambda tokens: None) == expected


def test_a_trial_runs_about_the_tokens_it_is_asked_for(tiny, monkeypatch):
    runtime = runtime_torch.load(cards.read_card(tiny("bert")))
    seen = []
    monkeypatch.setattr(runtime, "states", lambda ids: seen.append((len(ids.values), ids.lengths.max())))
    runtime._run_trial_batch(8192)
    ((total, longest),) = seen
    assert 8000 < total <= 8192
    assert longest == 12


@pytest.mark.parametrize("array", [np.arange(6, dtype=np.int32).reshape(2, 3).T, np.zeros(0, np.int64)])
def test_send_keeps_values_and_dtype(array):
    sent = device.to_device(array, torch.device("cpu"))
    assert sent.is_contiguous()
    assert sent.numpy().dtype == array.dtype
    assert (sent.numpy() == array).all()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc: out_of_memory: CUDA error"), True),  # RMM's pool
        (MemoryError("std::bad_alloc: out_of_memory: RMM failure"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out_of_memory"), False),
    ],
)
def test_out_of_memory_is_told_apart(error, expected):
    assert device.is_oom(error) is expected


def test_the_host_s_own_allocator_error_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**46, dtype=torch.float64)
    assert device.is_oom(caught.value)


def test_on_a_cpu_the_number_type_is_bfloat16_only_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    cases = {"avx512_bf16": torch.bfloat16, "amx_bf16": torch.bfloat16, "avx2": torch.float32}
    for flag, expected in cases.items():
        monkeypatch.setattr(device, "cpu_flags", lambda flag=flag: frozenset({flag}))
        assert device.number_types(cpu, autocast=True, stored=lambda: pytest.fail("read")) == (expected,)
        assert device.number_types(cpu, autocast=False, stored=lambda: pytest.fail("read")) == (torch.float32,)


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_on_a_gpu_float16_is_tried_first_except_for_weights_in_bfloat16(has_bfloat16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bfloat16)
    cuda, bfloat16 = torch.device("cuda"), [torch.bfloat16] * has_bfloat16
    types = partial(device.number_types, cuda, autocast=True)
    assert list(types(stored=lambda: torch.float32)) == [torch.float16, *bfloat16, torch.float32]
    assert list(types(stored=lambda: torch.float16)) == [torch.float16, *bfloat16, torch.float32]
    assert list(types(stored=lambda: torch.bfloat16)) == [*bfloat16, torch.float32]
    assert device.number_types(cuda, autocast=False, stored=lambda: torch.float16) == (torch.float32,)


@pytest.mark.parametrize(("value", "expected"), [("", 1), ("1", 1), ("4", 4)])
def test_the_number_of_workers_that_share_a_gpu(value, expected, monkeypatch):
    monkeypatch.setenv(device.WORKERS_PER_GPU, value)
    assert device.workers_per_gpu() == expected


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "abc", "²"])
def test_a_number_of_workers_that_is_none_names_the_variable(value, monkeypatch):
    monkeypatch.setenv(device.WORKERS_PER_GPU, value)
    with pytest.raises(ConfigError, match="NEMO_EMBED_WORKERS_PER_GPU=.*positive whole number"):
        device.workers_per_gpu()


def test_threads_are_set_where_asked():
    before = torch.get_num_threads()
    try:
        device.set_threads(before + 1)
        assert torch.get_num_threads() == before + 1
        device.set_threads(None)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert device.cpu_cores() >= 1


_FAULTS = """
import sys
from nemo_embed_dask.device import keep_freed_memory
from tests.helpers.page_faults import count_page_faults
print(keep_freed_memory(), end=" ") if sys.argv[1] == "keep" else None
print(count_page_faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_kept_in_spite_of_a_nanny_s_environment():
    def run(way):
        environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
        done = subprocess.run(
            [sys.executable, "-c", _FAULTS, way], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    done, kept = run("keep")
    assert done == "True"
    assert int(kept) < int(*run("leave")) / 20
