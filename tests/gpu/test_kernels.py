"""The variable-length kernel on a GPU against attention by its definition, row by row; needs no model."""

import numpy as np
import pytest
import torch

from nemo_embed_dask.runtimes import packed_attention as attention

from ..helpers.exact import exact
from .device import DEVICE, REHEARSAL


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [8, 32, 64, 128])
@pytest.mark.parametrize(("causal", "window"), [(False, None), (True, None), (True, 4), (False, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_kernel_gives_attention_by_its_definition(dtype, width, causal, window, groups):
    offsets = np.concatenate([[0], np.cumsum([1, 2, 77, 256, 3, 64])])
    q = torch.randn(int(offsets[-1]), 4, width, device=DEVICE, dtype=dtype)
    k, v = (torch.randn(int(offsets[-1]), 4 // groups, width, device=DEVICE, dtype=dtype) for _ in range(2))
    packing = attention.Packing(offsets, DEVICE)
    attend = attention._attend_on_cpu if REHEARSAL else attention.varlen_attention()
    found = attend(packing, q, k, v, None, causal, window)
    reach = -1 if window is None else window - 1
    expected = exact(
        *(x.cpu().float() for x in (q, k, v)), torch.from_numpy(offsets), None, reach, 0 if causal else reach
    )
    # Both types round probabilities and outputs, of which the largest is about 3.
    tolerance = 4e-3 if dtype == torch.float16 else 3e-2
    torch.testing.assert_close(found.cpu().float(), expected, atol=tolerance, rtol=tolerance)


def test_more_rows_than_fit_in_one_dimension_of_the_grid():
    """CUDA allows 65,535 blocks in the second dimension of a grid, where the kernel may have its rows."""
    rows = 1000 if REHEARSAL else 65_535
    offsets = np.arange(rows + 1) * 2
    q, k, v = (torch.randn(rows * 2, 2, 32, device=DEVICE, dtype=torch.float16) for _ in range(3))
    packing = attention.Packing(offsets, DEVICE)
    attend = attention._attend_on_cpu if REHEARSAL else attention.varlen_attention()
    found = attend(packing, q, k, v, None, False, None)
    for first in (0, rows - 10):
        part = slice(2 * first, 2 * first + 20)
        some = [x[part].cpu().float() for x in (q, k, v)]
        expected = exact(*some, torch.arange(11) * 2, None, -1, -1)
        torch.testing.assert_close(found[part].cpu().float(), expected, atol=4e-3, rtol=4e-3)
