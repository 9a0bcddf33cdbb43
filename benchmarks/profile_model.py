"""Profile the model by operator: ``python -m benchmarks.profile_model --dtype bfloat16``."""

from __future__ import annotations

import time

import click
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from nemo_embed_dask import batching, engine
from nemo_embed_dask.models.locate import ModelRef
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokens.texts import tokenize_texts
from nemo_embed_dask.vectors.pooling import pool

from . import corpora


def loop(runtime, ids, groups) -> None:
    """Run and pool every batch, as the engine does, without the rest of the engine."""
    for group in groups:
        pool("mean_pooling", *runtime.states(ids.take(group)))


def by_operator(prof: profile, rows: int) -> list[tuple[str, float, int]]:
    """Return the operators with the most time: name, fraction of the total, number of calls."""
    events = prof.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    events = sorted(events, key=lambda event: -event.self_cpu_time_total)[:rows]
    return [(event.key, event.self_cpu_time_total / total, event.count) for event in events]


@click.command(context_settings={"show_default": True})
@click.option("--dtype", default="bfloat16", type=click.Choice(["bfloat16", "float32"]))
@click.option("--corpus", default="medium_agnews", type=click.Choice(list(corpora.ROWS)))
@click.option("--rows", default=512)
@click.option("--budget", type=int, help="Tokens per batch. Default: the runtime's budget.")
@click.option("--top", default=16)
def main(dtype: str, corpus: str, rows: int, budget: int | None, top: int) -> None:
    """Embed a corpus twice, without and with torch's profiler, and print the operators."""
    settings = Settings(ModelRef(MINILM), autocast=dtype == "bfloat16")
    runtime, ids = engine.load_runtime(settings), tokenize_texts(corpora.texts(corpus, rows), settings).ids
    budget = budget or runtime.budget
    groups = batching.batches(ids.lengths, budget=budget, max_rows=1024, pads=runtime.pads)
    loop(runtime, ids, groups[:2])
    start = time.perf_counter()
    loop(runtime, ids, groups)
    seconds = time.perf_counter() - start
    with profile(activities=[ProfilerActivity.CPU]) as prof:
        loop(runtime, ids, groups)
    blocks = sum(len(np.unique(-(-ids.lengths[group] // 8))) for group in groups)
    tokens, cores = len(ids.values), torch.get_num_threads()
    click.echo(
        f"{dtype}, {corpus}: {tokens:,} tokens, {len(groups)} batches of {budget}, {blocks} attention "
        f"blocks, {cores} threads: {tokens / seconds:,.0f} tokens/s"
    )
    for name, fraction, calls in by_operator(prof, top):
        click.echo(f"{fraction:7.1%} {calls:7,} x  {name}")


if __name__ == "__main__":
    main()
