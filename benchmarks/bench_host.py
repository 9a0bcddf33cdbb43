"""Measure the host's side of embedding on a GPU, without a GPU: ``python -m benchmarks.bench_host``.

A stand-in for the model sleeps a fixed time per token, without the GIL, as a host does that waits for a GPU.
Everything else is the engine's own code. In nanoseconds per token, or tokens per second:

- ``costs``: CPU time of one process. ``library_ns`` is spent in the threads of the tokenizers library, on any
  number of cores; ``python_ns`` is all other time, nearly all of it under the GIL.
- ``helpers``: all CPU time of the process if others tokenize, and return ids through shared memory.
- ``computed``: what follows for a number of workers and cores; the smallest bound counts.
- ``simulated``: measured, with several processes that share the stand-in, and with sleeps for the library's
  time on the given number of cores, so that two cores show what a larger machine does.
- ``measured on two cores``: the same without sleeps for the library's time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import click
import numpy as np
import psutil

from nemo_embed_dask import engine

from . import machine
from .host import JOINED, SETTINGS, documents, replay_tokens, use_model, use_stand_in
from .host.helpers import Helpers

# Nanoseconds per token of MiniLM on an H200 in eager mode, by arithmetic.
DEVICE_NS = 92.0
Run = dict[str, Any]


def costs(texts: list[str], repeat: int) -> dict[str, float]:
    """Return the CPU nanoseconds per token: ``library_ns`` and ``python_ns``."""
    engine.embed_texts(texts[:4_096], SETTINGS)
    tokens, library, start = 0, _library_s(), time.process_time()
    for _ in range(repeat):
        tokens += engine.embed_texts(texts, SETTINGS).stats.tokens
    library, total = _library_s() - library, time.process_time() - start
    return {"library_ns": library / tokens * 1e9, "python_ns": (total - library) / tokens * 1e9}


def _library_s() -> float:
    """Return the CPU seconds of the threads of this process that Python did not start."""
    own = {thread.native_id for thread in threading.enumerate()}
    return sum(t.user_time + t.system_time for t in psutil.Process().threads() if t.id not in own)


def helpers(texts: list[str], repeat: int, count: int) -> dict[str, float]:
    """Return the CPU nanoseconds per token of a process whose texts ``count`` other processes tokenize."""
    model = use_stand_in(0)
    expected = engine.embed_texts(texts, SETTINGS).stats
    tokenizer: Any = Helpers(SETTINGS, count)
    with tokenizer.pool:
        use_model(replace(model, reader=replace(model.reader, tokenizer=tokenizer)))
        found = engine.embed_texts(texts, SETTINGS).stats  # starts the helpers
        assert (found.tokens, found.truncated) == (expected.tokens, expected.truncated)
        parent = sum(costs(texts, repeat).values())
    use_model(model)
    return {"parent_ns": parent}


def computed(
    library_ns: float, python_ns: float, *, workers: int, cores: int, device_ns: float = DEVICE_NS
) -> dict[str, float]:
    """Return the tokens per second that the device, the GILs and the cores allow."""
    return {
        "device": 1e9 / device_ns,
        "gils": workers * 1e9 / python_ns,
        "cores": cores * 1e9 / (library_ns + python_ns),
    }


@dataclass(frozen=True)
class Simulation:
    """Processes that share a device.

    ``cores``: those of all workers. ``library_ns``: sleep so long per token and core instead of tokenizing;
    None to tokenize. ``helpers``: how many processes tokenize for a worker.
    """

    tokens: int
    rows: int
    repeat: int
    cores: int
    library_ns: float | None
    device_ns: float = DEVICE_NS
    workers: int = 1
    helpers: int = 0

    def run(self) -> Run:
        """Return the tokens per second.

        Other programs can only slow a round down, so the fastest one is reported beside the median, and the
        bound that follows from the CPU time of the workers.
        """
        context = multiprocessing.get_context("spawn")
        lock, barrier, out = context.Lock(), context.Barrier(self.workers), context.Queue()
        processes = [
            context.Process(target=_work, args=(self, lock, barrier, out)) for _ in range(self.workers)
        ]
        for process in processes:
            process.start()
        found = [out.get(timeout=600) for _ in processes]
        for process in processes:
            process.join()
        starts, ends, cpu, counts = (np.array([run[i] for run in found]) for i in range(4))
        rates = counts.sum(0) / (ends.max(0) - starts.min(0))
        cpu_ns = float(np.median(cpu.sum(0) / counts.sum(0))) * 1e9
        bounds = computed(
            self.library_ns or 0, cpu_ns, workers=self.workers, cores=self.cores, device_ns=self.device_ns
        )
        return {
            "workers": self.workers,
            "cpu_ns": cpu_ns,
            "bound": min(bounds.values()),
            "tokens_per_s": float(rates.max()),
            "median": float(np.median(rates)),
        }


def _work(simulation: Simulation, lock: Any, barrier: Any, out: Any) -> None:
    """Embed texts again and again; put the starts, the ends, CPU seconds and tokens into ``out``."""
    texts, model = documents(simulation.tokens, simulation.rows), use_stand_in(simulation.device_ns, lock)
    cores, library_ns = simulation.cores // simulation.workers, simulation.library_ns
    pool: Any = nullcontext()
    if simulation.helpers:
        count = simulation.helpers
        tokenizer: Any = Helpers(SETTINGS, count, cores=cores // count, library_ns=library_ns)
        pool = tokenizer.pool
        use_model(replace(model, reader=replace(model.reader, tokenizer=tokenizer)))
    elif library_ns is not None:
        replay_tokens(model.reader.tokenizer, cores, library_ns)
    rounds = []
    with pool:
        engine.embed_texts(texts, SETTINGS)  # these tokens are returned from now on
        for _ in range(simulation.repeat):
            barrier.wait()
            start, cpu = time.time(), time.process_time()
            count = engine.embed_texts(texts, SETTINGS).stats.tokens
            rounds.append((start, time.time(), time.process_time() - cpu, count))
    out.put(list(zip(*rounds, strict=True)))


@click.command()
@click.option("--rows", default=32_768, help="Texts of a partition in the simulation.")
@click.option("--sample", default=512_000, help="Tokens of the texts whose costs are measured.")
@click.option("--repeat", default=3)
@click.option("--cores", default=16, help="Cores of the machine that is computed and simulated.")
@click.option("--workers", default=(1, 2, 4), multiple=True, help="Numbers of workers.")
@click.option("--tokens", default=tuple(JOINED), multiple=True, help="Tokens per text: 50 or 250.")
def main(
    rows: int, sample: int, repeat: int, cores: int, workers: tuple[int, ...], tokens: tuple[int, ...]
) -> None:
    """Print one JSON line per measurement."""
    os.environ["RAYON_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = "1", "true"
    print(json.dumps(machine.describe()))
    for length in tokens:
        measure(length, rows, sample // length, repeat, cores, workers)


def measure(
    tokens: int, rows: int, sample: int, repeat: int, cores: int, worker_counts: tuple[int, ...]
) -> None:
    """Measure texts of one length."""
    texts = documents(tokens, sample)
    use_stand_in(0)
    runs = [costs(texts, repeat) for _ in range(3)]
    found = {name: median(run[name] for run in runs) for name in runs[0]}
    report("costs", tokens, found)
    helped = helpers(texts, repeat, 1)
    report("helpers", tokens, helped)
    bounds = computed(found["library_ns"] + found["python_ns"], helped["parent_ns"], workers=1, cores=cores)
    report("computed with helpers", tokens, bounds)
    simulation = Simulation(tokens, rows, 3 * repeat, cores, found["library_ns"])
    report("simulated with helpers", tokens, replace(simulation, helpers=max(1, cores // 4)).run())
    for workers in worker_counts:
        report("computed", tokens, {"workers": workers, **computed(**found, workers=workers, cores=cores)})
        report("simulated", tokens, replace(simulation, workers=workers).run())
    report("computed", tokens, {"workers": 2, **computed(**found, workers=2, cores=2)})
    real = replace(simulation, workers=2, cores=2, library_ns=None, rows=sample // 2, repeat=2 * repeat)
    report("measured on two cores", tokens, real.run())


def report(what: str, tokens: int, values: Run) -> None:
    """Print one measurement; rates in millions of tokens per second."""
    short = {name: round(value / 1e6, 2) if value > 1e5 else round(value, 1) for name, value in values.items()}
    print(json.dumps({"what": what, "tokens_per_text": tokens} | short), flush=True)


if __name__ == "__main__":
    main()
