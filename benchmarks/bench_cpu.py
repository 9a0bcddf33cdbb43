"""Measure all peers on the same texts, interleaved: ``python -m benchmarks.bench_cpu --rounds 3``.

Each peer runs in a separate process, which loads and warms up its model before the first round. In a round the
peers embed each corpus one after the other, while the others wait; the order rotates from round to round. Each
run gives one JSON line, and its vectors are compared with those of the reference peer.
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
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.tokens.huggingface import Tokenizer

from . import corpora, machine, results
from .peers import PEERS, REFERENCE

CARD = read_card(find_model(ModelRef(MINILM)))


class Worker:
    """The process of one peer."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.vectors = name, folder / f"{name}.npy".replace(" ", "_")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            command = f"{sys.executable} -m benchmarks.worker {self.name!r}"
            raise SystemExit(f"the process of peer {self.name!r} ended; to see why, run: {command}")
        return json.loads(line)

    def run(self, corpus: str, rows: int) -> tuple[dict[str, Any], np.ndarray]:
        """Embed one corpus; return its measurements and its vectors."""
        request = {"corpus": corpus, "rows": rows, "vectors": str(self.vectors)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read(), np.load(self.vectors)

    def close(self) -> None:
        """End the process by closing its standard input."""
        self._process.communicate(timeout=60)


def cosines(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, computed in float64."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def time_fractions(measured: dict[str, Any]) -> dict[str, float | None]:
    """Return the fractions of a run's time that went to tokenizing, to the model and to the rest.

    A fraction is None if the peer does not measure it.
    """
    tokenize, model = (
        measured[key] and measured[key] / measured["seconds"] for key in ("tokenize_s", "model_s")
    )
    rest = None if model is None else max(0.0, 1 - model - (tokenize or 0.0))
    return {"share_tokenize": tokenize, "share_model": model, "share_rest": rest}


def derived_fields(
    measured: dict[str, Any], lengths: np.ndarray, dtype: str, rates: dict[str, float]
) -> results.Run:
    """Return the speeds and fractions that follow from the measurements of one run."""
    seconds, tokens = measured["seconds"], int(lengths.sum())
    return {
        "rows": len(lengths),
        "tokens": tokens,
        "seconds": round(seconds, 4),
        "tokens_per_s": tokens / seconds,
        "documents_per_s": len(lengths) / seconds,
        "padding_waste": 1 - tokens / measured["padded"] if measured["padded"] else None,
        "peak_mib": measured["peak_mib"],
        **time_fractions(measured),
        "matmul_gflops": rates[dtype],
        "matmul_share": machine.flops(CARD.config, lengths) / seconds / 1e9 / rates[dtype],
    }


def one_round(
    workers: list[Worker],
    rows: dict[str, int],
    lengths: dict[str, np.ndarray],
    references: dict[str, np.ndarray],
):
    """Yield one run per corpus and worker. A corpus's first vectors are its reference."""
    for corpus, count in rows.items():
        rates = {
            name: machine.matmul_gflops(CARD.config, getattr(torch, name)) for name in ("float32", "bfloat16")
        }
        for worker in workers:
            measured, vectors = worker.run(corpus, count)
            similarity = cosines(vectors, references.setdefault(corpus, vectors))
            dtype = PEERS[worker.name].dtype
            yield {
                "peer": worker.name,
                "corpus": corpus,
                "dtype": dtype,
                **derived_fields(measured, lengths[corpus], dtype, rates),
                "cosine_min": float(similarity.min()),
                "cosine_mean": float(similarity.mean()),
            }


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3)
@click.option("--out", default=results.FOLDER, type=click.Path(path_type=Path, file_okay=False))
@click.option("--rows", type=int, help="Rows of each corpus, for a quick test. Default: corpora.ROWS.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="Only this peer; repeatable.",
)
@click.option(
    "--corpus",
    "names",
    multiple=True,
    type=click.Choice(list(corpora.ROWS)),
    help="Only this corpus; repeatable.",
)
@click.option("--minutes", default=20.0, help="Do not start a round that would end after this time.")
def main(
    rounds: int, out: Path, rows: int | None, peers: tuple[str, ...], names: tuple[str, ...], minutes: float
) -> None:
    """Measure all peers on all corpora and write one JSON line per run."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"cpu-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}.jsonl"
    plan = {name: rows or corpora.ROWS[name] for name in names or corpora.ROWS}
    tokenizer = Tokenizer.from_directory(CARD.path)
    lengths = {
        name: tokenizer.encode(corpora.texts(name, count), CARD.max_seq_length).ids.lengths
        for name, count in plan.items()
    }
    common = {"machine": machine.describe(), "versions": machine.versions()}
    references: dict[str, np.ndarray] = {}
    chosen = [name for name in PEERS if not peers or name in peers or name == REFERENCE]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = [stack.enter_context(closing(Worker(name, Path(folder)))) for name in chosen]
        for turn in range(rounds):
            elapsed = time.perf_counter() - started
            if turn and elapsed * (turn + 1) / turn > minutes * 60:
                click.echo(f"stopped after {turn} rounds: another would not end within {minutes:g} minutes")
                break
            first = turn * len(workers) // rounds
            for run in one_round(workers[first:] + workers[:first], plan, lengths, references):
                date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
                results.append(path, {"date": date, "round": turn, **run, **common})
                click.echo(
                    f"{turn} {run['corpus']:14} {run['peer']:32} {run['tokens_per_s']:8,.0f} tokens/s  "
                    f"cosine >= {run['cosine_min']:.6f}"
                )
    click.echo(f"{path}: {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
