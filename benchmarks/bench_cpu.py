"""All peers on the same text, interleaved: ``python -m benchmarks.bench_cpu --rounds 3``.

Each peer lives in a process of its own, loaded and warmed up before the first round; in a round one after
the other embeds each corpus while the rest wait, in an order that turns with the round. A run is one JSON
line. The vectors of every run are compared with the reference's.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import MINILM, ModelRef, find_model
from nemo_embed_dask.tokens.huggingface import Tokenizer

from . import corpora, machine, results
from .peers import PEERS, REFERENCE

CARD = read_card(find_model(ModelRef(MINILM)))


class Worker:
    """A peer's process."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.vectors = name, folder / f"{name}.npy".replace(" ", "_")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} died; see: {sys.executable} -m benchmarks.worker {self.name!r}")
        return json.loads(line)

    def run(self, corpus: str, rows: int) -> tuple[dict[str, Any], np.ndarray]:
        """One corpus: what it took, and the vectors."""
        ask = {"corpus": corpus, "rows": rows, "vectors": str(self.vectors)}
        print(json.dumps(ask), file=self._process.stdin, flush=True)
        return self._read(), np.load(self.vectors)

    def close(self) -> None:
        """End of input ends the process."""
        self._process.communicate(timeout=60)


def cosines(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine of each row of two matrices, in float64."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def shares(took: dict[str, Any]) -> dict[str, float | None]:
    """Shares of a run's time in tokenizing, in the model, and in the rest, as far as the peer tells."""
    tokenize, model = (took[key] and took[key] / took["seconds"] for key in ("tokenize_s", "model_s"))
    rest = None if model is None else max(0.0, 1 - model - (tokenize or 0.0))
    return {"share_tokenize": tokenize, "share_model": model, "share_rest": rest}


def record(took: dict[str, Any], lengths: np.ndarray, dtype: str, rates: dict[str, float]) -> results.Run:
    """What is derived from one run."""
    seconds, tokens = took["seconds"], int(lengths.sum())
    return {
        "rows": len(lengths), "tokens": tokens, "seconds": round(seconds, 4),
        "tokens_per_s": tokens / seconds, "documents_per_s": len(lengths) / seconds,
        "padding_waste": 1 - tokens / took["padded"] if took["padded"] else None,
        "peak_mib": took["peak_mib"], **shares(took),
        "matmul_gflops": rates[dtype],
        "matmul_share": machine.flops(CARD.config, lengths) / seconds / 1e9 / rates[dtype],
    }  # fmt: skip


def one_round(
    workers: list[Worker],
    rows: dict[str, int],
    lengths: dict[str, np.ndarray],
    references: dict[str, np.ndarray],
):
    """Every corpus by every worker; yields runs."""
    for corpus, count in rows.items():
        rates = {
            name: machine.matmul_gflops(CARD.config, getattr(torch, name)) for name in ("float32", "bfloat16")
        }
        for worker in workers:
            took, vectors = worker.run(corpus, count)
            near = cosines(vectors, references.setdefault(corpus, vectors))
            dtype = PEERS[worker.name].dtype
            fields = record(took, lengths[corpus], dtype, rates)
            yield {
                "peer": worker.name, "corpus": corpus, "dtype": dtype, **fields,
                "cosine_min": float(near.min()), "cosine_mean": float(near.mean()),
            }  # fmt: skip


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3)
@click.option("--out", default=results.FOLDER, type=click.Path(path_type=Path, file_okay=False))
@click.option("--rows", type=int, help="Rows of each corpus, for a quick look; else those of corpora.ROWS.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="Only these.")
@click.option("--corpus", "names", multiple=True, type=click.Choice(list(corpora.ROWS)), help="Only these.")
@click.option("--minutes", default=20.0, help="Begin no round that would not end within this time.")
def main(
    rounds: int, out: Path, rows: int | None, peers: tuple[str, ...], names: tuple[str, ...], minutes: float
) -> None:
    """Measure all peers on all corpora and write one JSON line a run."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"cpu-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}.jsonl"
    plan = {name: rows or corpora.ROWS[name] for name in names or corpora.ROWS}
    tokenizer = Tokenizer.from_directory(CARD.path)
    lengths = {name: tokenizer.encode(corpora.texts(name, n), CARD.max_seq_length).ids.lengths
               for name, n in plan.items()}  # fmt: skip
    common = {"machine": machine.describe(), "versions": machine.versions()}
    references: dict[str, np.ndarray] = {}
    chosen = [name for name in PEERS if not peers or name in peers or name == REFERENCE]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(name, Path(folder)))) for name in chosen]
        for turn in range(rounds):
            spent = time.perf_counter() - started
            if turn and spent * (turn + 1) / turn > minutes * 60:
                click.echo(f"stopped after {turn} rounds: {minutes:g} minutes would not do for another")
                break
            first = turn * len(workers) // rounds
            for run in one_round(workers[first:] + workers[:first], plan, lengths, references):
                date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
                results.append(path, {"date": date, "round": turn, **run, **common})
                click.echo(f"{turn} {run['corpus']:14} {run['peer']:32} {run['tokens_per_s']:8,.0f} tokens/s  "
                           f"cosine >= {run['cosine_min']:.6f}")  # fmt: skip
    click.echo(f"{path}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
