"""Which vectors are finite."""

import torch

from nemo_embed_dask.engine.slabs import _are_finite


def test_large_values_are_finite_although_their_sum_is_not_in_float32():
    rows = torch.tensor(
        [[3e38] * 4, [1.0, torch.inf, 0, 0], [torch.inf, -torch.inf, 0, 0], [0, torch.nan, 0, 0]]
    )
    assert _are_finite(rows).tolist() == [True, False, False, False]
    assert _are_finite(rows[1]).tolist() == [True, False, True, True]
