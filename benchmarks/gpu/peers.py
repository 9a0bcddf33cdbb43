"""Peers on texts in memory, in one process. Vectors are compared with sentence-transformers in float32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from nemo_embed_dask import engine
from nemo_embed_dask.models.card import read_card
from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.rows import Embedded
from nemo_embed_dask.tokens.texts import tokenize_texts

from . import (
    CORPORA,
    DEVICE,
    HEAD,
    SETTINGS,
    Result,
    Run,
    Work,
    clocked_with_idle,
    crossfit,
    device_seconds,
    flops,
    matmul_rate,
    measured,
    texts,
)


def model_alone() -> Work:
    """Return our device loop, on tokens that are prepared before the clock starts."""

    def work(data: list[str]) -> Result:
        tokens = tokenize_texts(data, SETTINGS)
        runtime = engine.load_runtime(SETTINGS)
        embed = partial(engine.embed_tokens, tokens, SETTINGS)
        results: list[Embedded] = []
        details: Run = {}
        seconds = clocked_with_idle(details, lambda: results.append(embed()))
        details |= {
            "tokenize_s": tokens.stats.tokenize_s,
            "packed": not runtime.pads,
            "budget": runtime.budget,
            "flops": flops(runtime.model.config, tokens.ids.lengths),
            "batches": results[0].stats.batches,
        }
        return Result(results[0].matrix, seconds, details)

    return work


def whole_engine() -> Work:
    """Return our engine, from texts to a matrix on the device; tokenizing and model overlap in time."""

    def work(data: list[str]) -> Result:
        out = engine.embed_texts(data, SETTINGS)
        stats = out.stats
        details = {"tokenize_s": stats.tokenize_s, "model_s": stats.model_s, "batches": stats.batches}
        return Result(out.matrix, details=details)

    return work


def profiled_engine() -> Work:
    """Return our engine under torch's profiler, for the device seconds. The profiler makes it slower."""
    engine_work = whole_engine()

    def work(data: list[str]) -> Result:
        results: list[Result] = []
        start = time.perf_counter()
        device_s = device_seconds(lambda: results.append(engine_work(data)))
        result = results[0]
        result.seconds = time.perf_counter() - start
        result.details["device_s"] = device_s
        if device_s is not None:
            result.details["idle_by_kernels"] = 1 - device_s / result.seconds
        return result

    return work


def cudf_frame(tokenizer: str) -> Work:
    """Return our engine from a cuDF text column to a column of vectors, with either tokenizer."""
    import cudf

    from nemo_embed_dask import embed, to_matrix

    def work(data: list[str]) -> Result:
        frame = cudf.DataFrame({"text": cudf.Series(data, dtype="str")})
        embedded: list[cudf.DataFrame] = []
        details: Run = {}
        run = partial(embed, frame, tokenizer=tokenizer, embedding_pooling="auto")
        seconds = clocked_with_idle(details, lambda: embedded.append(run()))
        return Result(to_matrix(embedded[0].embeddings), seconds, details)

    return work


def sentence_transformers(*, dtype: torch.dtype, batch_size: int, attention: str | None = None) -> Work:
    """Return sentence-transformers' ``encode``, which sorts by length itself."""
    from sentence_transformers import SentenceTransformer

    model_kwargs = {"dtype": dtype} | ({"attn_implementation": attention} if attention else {})
    path = str(find_model(SETTINGS.model))
    model = SentenceTransformer(path, device=str(DEVICE), model_kwargs=model_kwargs, trust_remote_code=False)
    options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_tensor": True}
    return lambda data: Result(model.encode(data, **options).float())


def curator() -> Work:
    """Return NeMo Curator's algorithm: padded lists, sorted by length, batches of 1,024 rows, autocast."""
    import transformers

    path = str(find_model(SETTINGS.model))
    limit = read_card(find_model(SETTINGS.model)).max_seq_length
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    model = transformers.AutoModel.from_pretrained(path, trust_remote_code=False).eval().to(DEVICE)

    def work(data: list[str]) -> Result:
        tokens = tokenizer(data, padding="max_length", truncation=True, max_length=limit)
        ids, masks = (torch.tensor(tokens[key]) for key in ("input_ids", "attention_mask"))
        order, parts = masks.sum(1).argsort(stable=True), []
        for rows in order.split(1024):
            longest = int(masks[rows].sum(1).max())
            block = {
                "input_ids": ids[rows, :longest].to(DEVICE),
                "attention_mask": masks[rows, :longest].to(DEVICE),
            }
            with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16):
                states = model(**block)[0]
            weights = block["attention_mask"][:, :, None].float()
            pooled = (states.float() * weights).sum(1) / weights.sum(1)
            parts.append(torch.nn.functional.normalize(pooled, dim=1).cpu())
        return Result(torch.cat(parts)[order.argsort()])

    return work


REFERENCE = "sentence-transformers, defaults"
_BF16 = partial(sentence_transformers, dtype=torch.bfloat16)
_FLASH = partial(_BF16, attention="flash_attention_2")
PEERS: dict[str, Callable[[], Work]] = {
    REFERENCE: partial(sentence_transformers, dtype=torch.float32, batch_size=32),
    "ours, model alone": model_alone,
    "ours, engine": whole_engine,
    "ours, engine, under the profiler": profiled_engine,
    "ours, cuDF frame": partial(cudf_frame, "huggingface"),
    "ours, cuDF frame, WordPiece on the GPU": partial(cudf_frame, "cudf"),
    "sentence-transformers, bf16, 256": partial(_BF16, batch_size=256),
    "sentence-transformers, bf16, 1024": partial(_BF16, batch_size=1024),
    "sentence-transformers, bf16, 1024, flash-attention": partial(_FLASH, batch_size=1024),
    "curator's algorithm": curator,
    crossfit.NAME: crossfit.load,
}


def peers(scale: float) -> Iterator[Run]:
    """Measure each peer on each corpus."""
    rate = matmul_rate()
    for corpus in CORPORA:
        data = texts(corpus, scale)
        tokens = tokenize_texts(data, SETTINGS).ids.lengths
        common = {"corpus": corpus, "rows": len(data), "tokens": int(np.sum(tokens))}
        expected = PEERS[REFERENCE]()(data[:HEAD]).vectors
        for name, load in PEERS.items():
            yield measured({"peer": name} | common, load, data, rate=rate, expected=expected)
