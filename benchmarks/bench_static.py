"""Measure static models against their tokenizer and their own library: ``python -m benchmarks.bench_static``.

The models have the sizes of published ones, MiniLM's tokenizer and random vectors. In a round, every peer
embeds every corpus once. model2vec takes part if it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from nemo_embed_dask.engine import embed_texts
from nemo_embed_dask.models.locate import ModelRef, find_model
from nemo_embed_dask.models.names import MINILM
from nemo_embed_dask.models.static import LAYOUTS
from nemo_embed_dask.settings import Settings

from . import corpora, machine

Embed = Callable[[list[str]], object]
# Rows of each corpus: about 400,000 tokens.
ROWS = {"medium_agnews": 7_600, "medium_debian": 4_096}


def make_model(folder: Path, layout: str, dimension: int) -> Path:
    """Write a static model of random vectors: of "model2vec" or of "sentence-transformers"."""
    folder.mkdir()
    tokenizer = Tokenizer.from_file(str(find_model(ModelRef(MINILM)) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    shape = (tokenizer.get_vocab_size(), dimension)
    table = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    save_file({LAYOUTS[layout]: table}, folder / "model.safetensors")
    if layout == "model2vec":
        (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    module = {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}
    (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def make_peers(path: Path, layout: str) -> dict[str, Embed]:
    """Return the functions to measure: the tokenizer alone, this package, and the model's own library."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    settings = Settings(ModelRef(str(path)), pooling="auto")
    peers: dict[str, Embed] = {
        "tokenizer": lambda texts: tokenizer.encode_batch_fast(texts, add_special_tokens=False),
        "this package": lambda texts: embed_texts(texts, settings).matrix,
    }
    if layout == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(path), device="cpu", local_files_only=True, trust_remote_code=False)
        peers[layout] = lambda texts: theirs.encode(texts, show_progress_bar=False)
    elif importlib.util.find_spec(layout):
        from model2vec import StaticModel

        peers[layout] = StaticModel.from_pretrained(path).encode
    return peers


def measure(embed: Embed, texts: list[str]) -> tuple[float, float]:
    """Return the wall and the CPU seconds of one call."""
    os.environ.pop("TOKENIZERS_PARALLELISM", None)  # model2vec sets it
    wall, cpu = time.perf_counter(), time.process_time()
    embed(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


@click.command()
@click.option("--rounds", default=9)
def main(rounds: int) -> None:
    """Print the median seconds of each peer, and their ratio to the tokenizer's in the same round."""
    print(machine.describe(), "torch threads:", torch.get_num_threads())
    folder = Path(tempfile.mkdtemp())
    for layout, dimension in (("model2vec", 256), ("sentence-transformers", 1024)):
        peers = make_peers(make_model(folder / layout, layout, dimension), layout)
        for corpus, rows in ROWS.items():
            texts = corpora.texts(corpus, rows)
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
            for number in range(rounds + 1):
                for name in sorted(peers, reverse=bool(number % 2)):
                    runs[name].append(measure(peers[name], texts))
            print(f"{layout}, {dimension} dimensions, {corpus}:")
            for name, seconds in runs.items():
                report(name, seconds[1:], runs["tokenizer"][1:])
    shutil.rmtree(folder)


def report(name: str, runs: list[tuple[float, float]], tokenizer: list[tuple[float, float]]) -> None:
    """Print medians and the tokenizer's seconds divided by the peer's: 1 is the tokenizer's own rate."""
    for k, kind in enumerate(("wall", "CPU")):
        seconds = [run[k] for run in runs]
        ratios = [alone[k] / run[k] for run, alone in zip(runs, tokenizer, strict=True)]
        print(
            f"  {name:22} {kind:4} median {median(seconds):.3f} s, least {min(seconds):.3f} s, "
            f"of the tokenizer's rate {median(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
