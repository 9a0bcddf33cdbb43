"""Speed on one card: ``python -m benchmarks.bench_gpu PHASE --out FOLDER``, one JSON line a run.

Every phase embeds the same texts: real ones where the corpora are ($NEMO_EMBED_DATA), else made up from a
fixed seed. Host and device are told apart by running the model on tokens made beforehand (``model``) and the
whole way from texts (``engine``) or from Parquet to Parquet (``cluster``). Peers run in the same process.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nemo_embed_dask import EmbeddingCreatorStage, embed_cluster, engine, runtimes
from nemo_embed_dask.cards import read_card
from nemo_embed_dask.device import release_memory, settle
from nemo_embed_dask.models import MINILM, ModelRef, find_model
from nemo_embed_dask.ragged import Ragged
from nemo_embed_dask.runtimes.torch import TorchRuntime
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.tokenizing import tokenize_texts

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETTINGS = Settings(ModelRef(MINILM))
# Corpus -> (file of real text, words of made-up text, rows): 3 to 12 million tokens each.
CORPORA = {
    "short": ("short_wordnet", 20, 200_000),
    "medium": ("medium_debian", 75, 100_000),
    "long": ("long_mix", 400, 20_000),
}
PACKAGES = ("torch", "transformers", "tokenizers", "cudf-cu13", "dask", "dask-cuda", "sentence-transformers")
QWEN3 = {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151_936,
}  # fmt: skip
Run = dict[str, Any]


def texts(name: str, scale: float) -> list[str]:
    """A corpus, drawn with a fixed seed and with repeats; rows of 20,000 characters at most."""
    file, words, rows = CORPORA[name]
    rows, path = int(rows * scale), Path(os.environ.get("NEMO_EMBED_DATA", "../shared/data"), f"{file}.parquet")
    if path.is_file():
        drawn = pd.read_parquet(path, columns=["text"]).text.sample(rows, replace=True, random_state=7)
        # Numbered, for equal texts are embedded once, and that is not what is measured.
        return [f"{i} {text}" for i, text in enumerate(drawn.str[:20_000])]
    pick, some = random.Random(7), ["time", "year", "people", "way", "day", "man", "thing", "woman", "life"]
    return [" ".join(pick.choices(some, k=pick.randint(1, 2 * words))) for _ in range(rows)]


def flops(config: Any, lengths: np.ndarray) -> float:
    """Multiply-adds (times 2) of linear layers and attention, without padding."""
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = getattr(config, "head_dim", None) or hidden // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    gates = 3 if config.model_type == "qwen3" else 2
    linear = 2 * hidden * (2 * heads * width + 2 * groups * width + gates * inner)
    pairs = 4 * heads * width * float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * (linear * float(lengths.sum()) + pairs)


def matmul_rate(size: int = 8192, passes: int = 10) -> float:
    """FLOP/s of one bf16 matrix product on random data: this card's own ceiling."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    return 2 * size**3 * passes / clocked(lambda: [a @ b for _ in range(passes)])


def clocked(work: Callable[[], Any]) -> float:
    """Seconds that the work takes, the device's share included."""
    settle(DEVICE)
    start = time.perf_counter()
    work()
    settle(DEVICE)
    return time.perf_counter() - start


def model_alone(data: list[str]) -> Run:
    """The device loop on tokens made beforehand."""
    tokens = tokenize_texts(data, SETTINGS)
    runtime = engine.load(SETTINGS)
    few = np.arange(min(1000, len(data)))
    engine.embed_tokens(tokens.ids.take(few), tokens.valid[few], SETTINGS)
    seconds = clocked(lambda: engine.embed_tokens(tokens.ids, tokens.valid, SETTINGS))
    return {
        "seconds": seconds, "tokenize_s": tokens.stats.tokenize_s, "packed": not runtime.pads,
        "budget": runtime.budget,
        "flops": flops(runtime.model.config, tokens.ids.lengths),
    }  # fmt: skip


def whole_engine(data: list[str]) -> Run:
    """Texts to a matrix on the device."""
    engine.embed_texts(data[:1000], SETTINGS)
    out = []
    seconds = clocked(lambda: out.append(engine.embed_texts(data, SETTINGS)))
    stats = out[0].stats
    return {
        "seconds": seconds,
        "tokenize_s": stats.tokenize_s,
        "model_s": stats.model_s,
        "batches": stats.batches,
    }


def sentence_transformers(data: list[str], *, dtype: torch.dtype, batch_size: int) -> Run:
    """As a user would call it; it sorts by length itself."""
    from sentence_transformers import SentenceTransformer

    path = str(find_model(SETTINGS.model))
    model = SentenceTransformer(path, device=str(DEVICE), model_kwargs={"dtype": dtype})
    call = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_tensor": True}
    model.encode(data[:1000], **call)
    return {"seconds": clocked(lambda: model.encode(data, **call))}


def curator(data: list[str]) -> Run:
    """NeMo Curator's algorithm, stated again: padded Python lists, ascending length, 1,024 rows, autocast."""
    import transformers

    path = str(find_model(SETTINGS.model))
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval().to(DEVICE)

    def run(some: list[str]) -> None:
        tokens = tokenizer(some, padding="max_length", truncation=True, max_length=256)
        ids, masks = (torch.tensor(tokens[key]) for key in ("input_ids", "attention_mask"))
        order = masks.sum(1).argsort(stable=True)
        for rows in order.split(1024):
            longest = int(masks[rows].sum(1).max())
            block = {
                "input_ids": ids[rows, :longest].to(DEVICE),
                "attention_mask": masks[rows, :longest].to(DEVICE),
            }
            with torch.inference_mode(), torch.autocast(DEVICE.type):
                states = model(**block)[0]
            weights = block["attention_mask"][:, :, None].float()
            pooled = (states.float() * weights).sum(1) / weights.sum(1)
            torch.nn.functional.normalize(pooled, dim=1).cpu()

    run(data[:1000])
    return {"seconds": clocked(lambda: run(data))}


PEERS: dict[str, Callable[[list[str]], Run]] = {
    "ours, model alone": model_alone,
    "ours, engine": whole_engine,
    "sentence-transformers, defaults": lambda data: sentence_transformers(
        data, dtype=torch.float32, batch_size=32
    ),
    "sentence-transformers, bf16, 256": lambda data: sentence_transformers(
        data, dtype=torch.bfloat16, batch_size=256
    ),
    "sentence-transformers, bf16, 1024": lambda data: sentence_transformers(
        data, dtype=torch.bfloat16, batch_size=1024
    ),
    "curator's algorithm": curator,
}


def peers(scale: float) -> Iterator[Run]:
    """Every peer on every corpus."""
    rate = matmul_rate()
    for corpus in CORPORA:
        data = texts(corpus, scale)
        tokens = int(tokenize_texts(data, SETTINGS).ids.lengths.sum())
        for name, peer in PEERS.items():
            yield measured(
                {"peer": name, "corpus": corpus, "rows": len(data), "tokens": tokens}, peer, data, rate
            )


def measured(run: Run, peer: Callable[[list[str]], Run], data: list[str], rate: float | None) -> Run:
    """One run, with what is derived from it; an error is a result too."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        run |= peer(data)
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others are measured
        return run | {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        runtimes.unload()
        release_memory(DEVICE)
    if rate and "flops" in run:
        run["matmul_share"] = run["flops"] / run["seconds"] / rate
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None
    return run | {
        "tokens_per_s": run["tokens"] / run["seconds"], "documents_per_s": run["rows"] / run["seconds"],
        "peak_mib": peak, "matmul_tflops": rate and rate / 1e12,
    }  # fmt: skip


def scaling(scale: float) -> Iterator[Run]:
    """Parquet to Parquet through dask_cudf, by 1, 2 and 4 workers that share the card."""
    stage = EmbeddingCreatorStage()
    for corpus in ("short", "medium"):
        data = texts(corpus, scale)
        tokens = int(tokenize_texts(data, SETTINGS).ids.lengths.sum())
        for workers in (1, 2, 4):
            run: Run = {
                "peer": "ours, parquet to parquet",
                "corpus": corpus,
                "rows": len(data),
                "tokens": tokens,
            }
            yield measured(
                run | {"workers": workers}, lambda some, n=workers: parquet(some, stage, n), data, 1.0
            )


def parquet(data: list[str], stage: EmbeddingCreatorStage, workers: int) -> Run:
    """16 files in, 16 files out; the cluster's start is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        for i, rows in enumerate(np.array_split(np.arange(len(data)), 16)):
            pd.DataFrame({"text": data[rows[0] : rows[-1] + 1]}).to_parquet(source / f"{i}.parquet")
        with embed_cluster(stage, n_workers=workers, dashboard_address=":0"):
            if DEVICE.type == "cuda":
                import dask_cudf

                read = dask_cudf.read_parquet(source, blocksize=None)
            else:
                import dask.dataframe as dd

                read = dd.read_parquet(source)
            return {"seconds": clocked(lambda: read.pipe(stage).to_parquet(target))}


def decoder(scale: float) -> Iterator[Run]:
    """A decoder of Qwen3-0.6B's shape with random weights: ours, and padded SDPA in plain transformers."""
    import transformers

    rate, rng = matmul_rate(), np.random.default_rng(0)
    config = transformers.Qwen3Config(**QWEN3, use_cache=False)
    model = transformers.AutoModel.from_config(config, dtype=torch.bfloat16).eval().to(DEVICE)
    for length in (32, 256, 1024):
        rows = max(2, int(65_536 * scale) // length)
        lengths = rng.integers(length // 2, length + 1, rows)
        ids = Ragged.from_lengths(rng.integers(0, 150_000, int(lengths.sum())).astype(np.int32), lengths)
        block = torch.from_numpy(ids.pad()).long().to(DEVICE)
        mask = torch.from_numpy(ids.mask()).long().to(DEVICE)
        common = {"corpus": f"{length} tokens", "rows": rows, "tokens": int(lengths.sum())}

        def padded(block: torch.Tensor = block, mask: torch.Tensor = mask) -> None:
            with torch.inference_mode():
                model(input_ids=block, attention_mask=mask)

        model.set_attn_implementation("sdpa")
        ways = {"transformers, padded SDPA": padded}
        for name, work in ways.items():
            yield measured(common | {"peer": name}, lambda _, w=work, n=lengths: timed(w, config, n), [], rate)
        runtime = TorchRuntime(model, DEVICE, torch.bfloat16)

        def ours(runtime: TorchRuntime = runtime, ids: Ragged = ids) -> None:
            runtime.states(ids)

        run = common | {"peer": "ours, model alone", "packed": not runtime.pads}
        yield measured(run, lambda _, w=ours, n=lengths: timed(w, config, n), [], rate)


def timed(work: Callable[[], Any], config: Any, lengths: np.ndarray) -> Run:
    """The median of five passes after one."""
    work()
    return {"seconds": float(np.median([clocked(work) for _ in range(5)])), "flops": flops(config, lengths)}


PHASES = {"peers": peers, "scaling": scaling, "decoder": decoder}


def describe() -> Run:
    """The card, the host, and versions of what decides a speed."""
    found: Run = {"cores": len(os.sched_getaffinity(0)), "cuda": torch.version.cuda}
    found["card"] = torch.cuda.get_device_name() if DEVICE.type == "cuda" else None
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=["all", "versions", *PHASES])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--scale", type=float, default=1.0, help="Share of the rows, for a quick look.")
    parser.add_argument("--minutes", type=float, default=9.0, help="Begin no run after so long.")
    given = parser.parse_args()
    common = describe() | {"max_seq_length": read_card(find_model(SETTINGS.model)).max_seq_length}
    print(json.dumps(common), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    started = dt.datetime.now(dt.UTC)
    path = given.out / f"gpu-{started:%Y%m%dT%H%M%S}.jsonl"
    phases = {"all": list(PHASES), "versions": []}.get(given.phase, [given.phase])
    for name in phases:
        for run in PHASES[name](given.scale):
            now = dt.datetime.now(dt.UTC)
            line = {"date": now.isoformat(timespec="seconds"), "phase": name, **run, "machine": common}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps({key: run[key] for key in run if key != "flops"}), flush=True)
            if (now - started).total_seconds() > given.minutes * 60:
                print(f"stopped: {given.minutes:g} minutes are over; {path} has what was measured")
                return


if __name__ == "__main__":
    main()
