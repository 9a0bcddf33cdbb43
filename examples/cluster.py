"""Embed Parquet to Parquet on all GPUs of this machine, or on its CPUs: ``python cluster.py docs vectors``.

Partitions are cuDF frames on GPUs, and pandas frames on CPUs. For a job that can continue after a crash, use
``nemo-embed docs vectors``.
"""

import sys

from nemo_embed_dask import EmbeddingCreatorStage, embed_cluster


def reader():
    """Return the reader of dask_cudf if there is a GPU, otherwise Dask's."""
    import torch

    if torch.cuda.is_available():
        import dask_cudf

        return dask_cudf.read_parquet
    import dask.dataframe as dd

    return dd.read_parquet


def main(source: str, target: str) -> None:
    stage = EmbeddingCreatorStage(text_field="text", embedding_pooling="auto")
    with embed_cluster(stage) as client:  # loads the model on every worker
        print(f"dashboard: {client.dashboard_link}")
        ddf = reader()(source, blocksize=None)  # one partition per file
        ddf.pipe(stage).to_parquet(target)


if __name__ == "__main__":  # each worker imports this file
    main(*sys.argv[1:])
