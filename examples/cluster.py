"""Parquet in, Parquet out, on all GPUs of this machine, or on its CPUs: ``python cluster.py docs vectors``.

On GPUs partitions are cuDF's; without one they are pandas'. The lines between are the same. For a job that
must survive crashes, use ``nemo-embed docs vectors`` instead.
"""

import sys

from nemo_embed_dask import EmbeddingCreatorStage, embed_cluster


def reader():
    """dask_cudf's reader where there is a GPU to read into, else Dask's own."""
    import torch

    if torch.cuda.is_available():
        import dask_cudf

        return dask_cudf.read_parquet
    import dask.dataframe as dd

    return dd.read_parquet


def main(source: str, target: str) -> None:
    stage = EmbeddingCreatorStage(text_field="text", embedding_pooling="auto")
    with embed_cluster(stage) as client:  # its model is loaded on every worker before the first task
        print(f"dashboard: {client.dashboard_link}")
        ddf = reader()(source, blocksize=None)  # one partition a file
        ddf.pipe(stage).to_parquet(target)


if __name__ == "__main__":  # workers import this file
    main(*sys.argv[1:])
