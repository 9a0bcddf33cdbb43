"""Damage a file of a model's directory at random: the result is the right vectors or an EmbedError, nothing else.

Right are the vectors of the undamaged model, or those that sentence-transformers makes of the damaged directory,
unless the file is evidently broken. ``--slow`` tries 1,000 damages, ``--damage-seed 417`` only that one.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import pytest

from nemo_embed_dask import (
    EmbeddingCreatorStage,
    EmbedError,
    RowError,
    embed_parquet,
    plan,
    runtimes,
    to_matrix,
    verify,
)

from ..helpers.cards import load
from ..helpers.damage import damage
from ..helpers.damaged_kinds import KINDS, make
from ..helpers.slow import slow

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "人人生而自由，在尊严和权利上一律平等。",
    "All human beings are born free and equal in dignity and rights. " * 12,
    "a",
    "  blanks before, \tbetween\n and behind  ",
]
# Seconds that a case may take. One takes about 0.3 s.
LIMIT = 60
REMEDY = re.compile(r"\b(ask|fetch|pass|use|remove|convert|load|give|set|save|correct|choose|name|run)\b")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the directories of the undamaged models, and their vectors."""
    root = tmp_path_factory.mktemp("undamaged")
    with quiet():
        paths = {kind: make(kind, root) for kind in KINDS}
        found = {kind: (path, reference(path, root / "base")) for kind, path in paths.items()}
    for path, right in found.values():
        assert same(vectors_of(stage_of(path, root / "base")), right), path
    return found


@contextmanager
def quiet():
    """Ignore the warnings of sentence-transformers and peft."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def within(seconds: int):
    """Raise TimeoutError if the work takes longer."""

    def stop(*_):
        raise TimeoutError(f"longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def reference(path: Path, base: Path):
    """Return the vectors of sentence-transformers, with peft if the directory is one of an adapter."""
    model = load(base if path.name == "adapter" else path)
    transformer = model[0].auto_model
    if path.name == "adapter":
        warnings.filterwarnings("error", message=".*missing adapter keys")
        model[0].auto_model = peft.PeftModel.from_pretrained(transformer, path).merge_and_unload()
    # It truncates texts to the limit that the files state, which may exceed the positions of the model.
    limits = (model.max_seq_length, count_positions(transformer))
    model.max_seq_length = min((limit for limit in limits if limit is not None), default=None)
    return np.concatenate([model.encode([text], show_progress_bar=False) for text in TEXTS])


def count_positions(transformer) -> int | None:
    """Return how many tokens a model has positions for, or None if it has no limit."""
    for module in transformer.modules():
        if hasattr(module, "position_embeddings"):
            table = module.position_embeddings
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return getattr(transformer.config, "max_position_embeddings", None)


def expected(path: Path, base: Path):
    """Return the reference's vectors of a damaged directory, or None if it refuses the directory."""
    try:
        with quiet():
            return reference(path, base)
    except BaseException as error:  # the tokenizers library panics with a BaseException
        if isinstance(error, KeyboardInterrupt | TimeoutError):
            raise
        return None


def stage_of(path: Path, base: Path) -> EmbeddingCreatorStage:
    named = {"model_identifier": str(path)}
    if path.name == "adapter":
        named = {"model_identifier": str(base), "adapter": str(path)}
    return EmbeddingCreatorStage(**named, embedding_pooling="auto", autocast=False)


def try_other_entry(stage: EmbeddingCreatorStage, seed: int, scratch: Path) -> None:
    """Use the model in one of the other ways: each gives a result or an EmbedError."""
    frame = pd.DataFrame({"text": TEXTS * 4})
    entry = seed % 4
    if entry == 0:
        stage.setup()
    elif entry == 1:
        plan(stage, frame, sample_rows=20, seconds=0)
    elif entry == 2:
        for part in stage.decompose():
            frame = part(frame)
    else:
        source = scratch / "texts.parquet"
        frame.to_parquet(source)
        embed_parquet(stage, source, scratch / "out")


def vectors_of(stage: EmbeddingCreatorStage):
    return to_matrix(stage(pd.DataFrame({"text": TEXTS}))["embeddings"])


def same(got, other) -> bool:
    if other is None or got.shape != other.shape:
        return False
    return bool(np.isfinite(other).all()) and np.abs(got - other).max() <= 1e-4 * max(1.0, np.abs(other).max())


def complaint(error: BaseException, path: Path) -> str:
    """Return what is wrong with an error: it must be an EmbedError that names the file and a remedy."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    if not isinstance(error, EmbedError):
        return f"raised {text}"
    if path.name not in text and not isinstance(error, RowError):
        return f"does not name the directory: {text}"
    return "" if REMEDY.search(str(error)) else f"names no remedy: {text}"


def attempt(work, path: Path):
    """Return the result of ``work`` and what is wrong with it; (None, "") if it is rightly refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # peft about transformers
        try:
            result = work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return None, complaint(error, path)
    foreign = [str(one.message)[:200] for one in caught if "nemo_embed_dask" not in one.filename]
    return result, f"warns: {foreign[0]}" if foreign else ""


def judge(model, base: Path, seed: int, scratch: Path) -> tuple[str, str, bool]:
    """Damage a copy of a model and use it; return what was done, what is wrong, and whether there are vectors."""
    undamaged, right = model
    path = scratch / undamaged.name
    shutil.copytree(undamaged, path)
    done = damage(path, random.Random(seed))
    stage = stage_of(path, base)
    got, fault = attempt(lambda: vectors_of(stage), path)
    other_fault = attempt(lambda: try_other_entry(stage, seed, scratch), path)[1]
    verdict, verify_fault = attempt(lambda: verify(stage, TEXTS, threshold=0.9999), path)
    if got is not None and not fault:
        fault = wrong(got, right, done, path, base)
        # sentence-transformers may read a damaged directory in another way: it is no third opinion then.
        if not fault and verdict is not None and (verdict.failed or verdict.minimum < 0.9999):
            fault = f"verify fails on right vectors: {verdict}"
    faults = [
        fault,
        other_fault and f"entry {seed % 4}: {other_fault}",
        verify_fault and f"verify: {verify_fault}",
    ]
    return f"{undamaged.name}/{done}", ", and ".join(filter(None, faults)), got is not None


def wrong(got, right, done, path: Path, base: Path) -> str:
    """Return in what way vectors are wrong, or ""."""
    if same(got, right):
        return ""
    if done.is_plain:
        return "gives other vectors, though the file is evidently broken"
    theirs = expected(path, base)
    if theirs is None:
        return "gives other vectors, and sentence-transformers none"
    return "" if same(got, theirs) else f"vectors differ by {distance(got, theirs)} from sentence-transformers"


def distance(got, theirs) -> str:
    return f"{np.abs(got - theirs).max():.2g}" if got.shape == theirs.shape else f"{got.shape}, {theirs.shape}"


@pytest.mark.parametrize("seeds", [range(100), *slow(range(100, 1000))], ids=str)
def test_a_damaged_model_gives_the_right_vectors_or_an_error(seeds, models, tmp_path, pytestconfig):
    chosen = pytestconfig.getoption("--damage-seed")
    base, faults, embedded = models["adapter"][0].with_name("base"), [], 0
    for seed in seeds if chosen is None else [chosen]:
        scratch = tmp_path / str(seed)
        scratch.mkdir()
        with within(LIMIT):
            done, fault, has_vectors = judge(models[KINDS[seed % len(KINDS)]], base, seed, scratch)
        embedded += has_vectors
        if fault:
            faults.append(f"seed {seed}, {done}: {fault}")
        shutil.rmtree(scratch)
        runtimes.unload()
    print(f"{len(seeds)} damaged models: {embedded} embedded, {len(faults)} faults")
    assert not faults, "\n".join(faults)
