"""Attention by its definition, as the reference for faster implementations."""

import torch


def exact(q, k, v, cu, scale, left, right):
    """Attention of each row by itself, in float64 and by the definition."""
    out = torch.empty_like(q)
    for start, stop in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True):
        groups = q.shape[1] // k.shape[1]
        a, b, c = (x[start:stop].double().transpose(0, 1) for x in (q, k, v))
        b, c = b.repeat_interleave(groups, 0), c.repeat_interleave(groups, 0)
        scores = a @ b.transpose(1, 2) * (scale if scale is not None else q.shape[-1] ** -0.5)
        place = torch.arange(stop - start)
        ahead = place[None, :] - place[:, None]
        out_of_reach = ((ahead > right) & (right >= 0)) | ((-ahead > left) & (left >= 0))
        weights = scores.masked_fill(out_of_reach, -torch.inf).softmax(-1)
        out[start:stop] = (weights @ c).transpose(0, 1).to(q.dtype)
    return out
