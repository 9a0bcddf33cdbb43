"""Peers on texts in memory. Vectors are compared with sentence-transformers in float32."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from nemo_embed_dask import engine
from nemo_embed_dask.models.locate import find_model
from nemo_embed_dask.settings import Settings
from nemo_embed_dask.stats import Stats
from nemo_embed_dask.tokens.reader import find_reader
from nemo_embed_dask.tokens.texts import tokenize_slabs, tokenize_texts

from ..peers import curator as cpu_curator
from . import DEVICE, SETTINGS, Options, Run, crossfit
from .clock import wait_for_device, watch_engine
from .measure import REFERENCE, Prepare, Result, Work, measure_texts

START_S = 10.0


def case_s(options: Options) -> float:
    """Return about how long one corpus takes: texts, choice of rows, warm-up and run."""
    return 1 + 1.6 * options.seconds


def _details(stats: Stats) -> Run:
    names = ("computed_in", "tokenize_s", "model_s", "batches", "padding_waste")
    return {name: getattr(stats, name) for name in names}


def tokenize_alone() -> Prepare:
    """Tokenize as the engine does, in one process with all cores: the most that its host side can give."""
    reader, kind = find_reader(SETTINGS), DEVICE.type
    rows, tokens = engine.SLAB_ROWS[kind], engine._SLAB_TOKENS.get(kind)

    def work(data: list[str]) -> Result:
        deque(tokenize_slabs(data, reader, SETTINGS, max_rows=rows, max_tokens=tokens), maxlen=0)
        return Result()

    return lambda data: partial(work, data)


def model_alone() -> Prepare:
    """Run our device loop on tokens that are prepared before the clock starts."""
    watch_engine()
    model = engine.load_model(SETTINGS)

    def prepare(data: list[str]) -> Work:
        tokens = tokenize_texts(data, SETTINGS)

        def work() -> Result:
            out = engine.embed_tokens(tokens, SETTINGS, model=model)
            return Result(out.matrix, _details(out.stats) | {"packed": not model.runtime.pads})

        return work

    return prepare


def whole_engine(settings: Settings = SETTINGS) -> Prepare:
    """Run our engine, from texts to a matrix on the device; tokenizing and model overlap in time."""
    watch_engine()

    def work(data: list[str]) -> Result:
        out = engine.embed_texts(data, settings)
        return Result(out.matrix, _details(out.stats))

    return lambda data: partial(work, data)


def profiled_engine() -> Prepare:
    """Run our engine under torch's profiler, for the seconds of kernels. The profiler makes it slower."""
    prepare = whole_engine()
    kinds = torch.profiler.ProfilerActivity
    kind = kinds.CUDA if DEVICE.type == "cuda" else kinds.CPU

    def work(inner: Work) -> Result:
        start = time.perf_counter()
        with torch.profiler.profile(activities=[kind]) as profiled:
            result = inner()
            wait_for_device()
            seconds = time.perf_counter() - start
        events = profiled.key_averages()
        name = "self_device_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
        kernels = sum(getattr(event, name) for event in events) / 1e6
        result.details |= {"kernel_s": kernels, "profiled_s": seconds, "idle_by_kernels": 1 - kernels / seconds}
        return result

    return lambda data: partial(work, prepare(data))


def cudf_frame(tokenizer: str) -> Prepare:
    """Run our engine from a cuDF text column to a column of vectors, with either tokenizer."""
    import cudf

    from nemo_embed_dask import embed, to_matrix

    watch_engine()

    def prepare(data: list[str]) -> Work:
        frame = cudf.DataFrame({"text": cudf.Series(data, dtype="str")})
        return lambda: Result(to_matrix(embed(frame, tokenizer=tokenizer, embedding_pooling="auto").embeddings))

    return prepare


def sentence_transformers(*, dtype: torch.dtype, batch_size: int, attention: str | None = None) -> Prepare:
    """Run sentence-transformers' ``encode``, which sorts by length itself. Vectors stay on the device."""
    from sentence_transformers import SentenceTransformer

    model_kwargs = {"dtype": dtype} | ({"attn_implementation": attention} if attention else {})
    path = str(find_model(SETTINGS.model))
    model = SentenceTransformer(path, device=str(DEVICE), model_kwargs=model_kwargs, trust_remote_code=False)
    options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_tensor": True}
    details = {"computed_in": {str(dtype).removeprefix("torch."): None}}
    return lambda data: lambda: Result(model.encode(data, **options), dict(details))


def curator() -> Prepare:
    """Run NeMo Curator's algorithm in the number type of its autocast: float16 on a GPU, bfloat16 on a CPU."""
    dtype = "float16" if DEVICE.type == "cuda" else "bfloat16"
    run = cpu_curator.load(dtype=dtype, device=str(DEVICE))

    def work(data: list[str]) -> Result:
        out = run(data)
        details = {"computed_in": {f"float32, {dtype} autocast": len(data)}, "tokenize_s": out.tokenize_s}
        return Result(torch.from_numpy(out.vectors), details)

    return lambda data: partial(work, data)


_FP16 = partial(sentence_transformers, dtype=torch.float16)
_FLASH = "flash_attention_2"
# The most important ones first, because a measurement may be stopped.
PEERS: dict[str, Callable[[], Prepare]] = {
    REFERENCE: partial(sentence_transformers, dtype=torch.float32, batch_size=32),
    "ours, engine": whole_engine,
    "ours, model alone": model_alone,
    "ours, tokenizer alone": tokenize_alone,
    "sentence-transformers, fp16, 1024": partial(_FP16, batch_size=1024),
    "curator's algorithm": curator,
    "ours, cuDF frame": partial(cudf_frame, "huggingface"),
    "ours, cuDF frame, WordPiece on the GPU": partial(cudf_frame, "cudf"),
    "ours, engine, compile=True": partial(whole_engine, replace(SETTINGS, compile=True)),
    "sentence-transformers, fp16, 256": partial(_FP16, batch_size=256),
    "sentence-transformers, fp16, 1024, flash-attention": partial(_FP16, batch_size=1024, attention=_FLASH),
    "ours, engine, under the profiler": profiled_engine,
    crossfit.NAME: crossfit.load,
}


def jobs() -> dict[str, tuple[str, ...]]:
    """Return each peer with its corpora: all embed "stories"; ours also those that show its limits."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(PEERS, ("stories",))
    return found | {"ours, engine": ("stories", "short"), "ours, model alone": ("stories", "long")}


def load(peer: str, options: Options) -> Callable[[str], Run]:
    """Load a peer, and return a function that measures it on a corpus."""
    prepare = PEERS[peer]()
    return lambda corpus: measure_texts(peer, prepare, corpus, options)
