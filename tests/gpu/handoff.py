"""Share memory between torch and cuDF: ``compute-sanitizer python -m tests.gpu.handoff`` checks each access."""

import numpy as np
import torch

from nemo_embed_dask import from_matrix, to_matrix
from nemo_embed_dask.frames import cudf as ops
from nemo_embed_dask.ragged import Ragged


def main() -> None:
    import cudf

    for rows, width in ((1, 1), (33, 7), (513, 384)):
        matrix = torch.randn(rows, width, device="cuda")
        valid = np.arange(rows) % 3 != 1
        series = ops.vector_column(matrix, valid, index=None, name="v")
        both = cudf.concat([series, series.iloc[rows // 2 :]])
        assert both.null_count == int((~valid).sum() + (~valid)[rows // 2 :].sum())
        assert torch.equal(to_matrix(series.dropna()), matrix[torch.from_numpy(valid).cuda()])
        assert torch.equal(to_matrix(from_matrix(matrix).iloc[rows // 2 :]), matrix[rows // 2 :])
        ids = Ragged.from_lengths(np.arange(rows * 2, dtype=np.int32), [2] * rows)
        found, _, _ = ops.read_tokens(ops.token_column(ids, np.ones(rows, bool), index=None, name="t"))
        assert (found.values == ids.values).all()
    torch.cuda.synchronize()
    print("hand-off: all values right")


if __name__ == "__main__":
    main()
