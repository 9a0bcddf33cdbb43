from __future__ import annotations

import pytest
import torch

from nemo_embed_dask import device


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc: out_of_memory: CUDA error"), True),
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


def test_dtype_is_bfloat16_only_where_the_hardware_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for flags, expected in ((frozenset({"avx512_bf16"}), torch.bfloat16), (frozenset({"amx_bf16"}), torch.bfloat16),
                            (frozenset({"avx2"}), torch.float32)):  # fmt: skip
        monkeypatch.setattr(device, "cpu_flags", lambda flags=flags: flags)
        assert device.compute_dtype(cpu, autocast=True) == expected
        assert device.compute_dtype(cpu, autocast=False) == torch.float32


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with device.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with device.threads(None):
        assert torch.get_num_threads() == before
    assert device.cpu_cores() >= 1
