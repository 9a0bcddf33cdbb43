"""``nemo-embed demo``: compose a small corpus, embed it as a job, and search it."""

from __future__ import annotations

import json
import random
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..frames import to_matrix
from ..jobs.report import Report, describe
from ..jobs.run import embed_parquet
from ..jobs.units.state import JobState
from ..stages import EmbeddingCreatorStage
from .exit import show

if TYPE_CHECKING:
    from ..jobs.run import Cluster

QUERIES = (
    "How do I get bread with a good crust?",
    "a storm at sea",
    "somebody broke into our computers",
)
_OPENINGS = ("", "", "Today ", "Once more ", "In the end ", "As everybody knows, ", "To our surprise, ")
_FILES, _NEAREST = 4, 4


@cache
def read_topics() -> dict[str, list[list[str]]]:
    """Read the words of the corpus: for each topic who, does what, and how or why."""
    words = resources.files(__package__).joinpath("demo_words.json").read_text(encoding="utf-8")
    topics: dict[str, list[list[str]]] = json.loads(words)
    return topics


def compose(documents: int, seed: int = 0) -> pa.Table:
    """Compose short documents on all topics: columns ``id``, ``topic``, ``text``; one seed, one result."""
    pick = random.Random(seed)  # noqa: S311 - texts, not secrets
    topics = [pick.choice(list(read_topics())) for _ in range(documents)]
    texts = [" ".join(_sentence(topic, pick) for _ in range(pick.randint(1, 3))) for topic in topics]
    return pa.table({"id": range(documents), "topic": topics, "text": texts})


def _sentence(topic: str, pick: random.Random) -> str:
    who, does, how = (pick.choice(words) for words in read_topics()[topic])
    sentence = f"{pick.choice(_OPENINGS)}{who} {does} {how}."
    return sentence[0].upper() + sentence[1:]


def write_corpus(folder: Path, documents: int) -> None:
    """Write the corpus as a few Parquet files; keep files that exist."""
    folder.mkdir(parents=True, exist_ok=True)
    table = compose(documents)
    step = -(-documents // _FILES)
    for i in range(_FILES):
        path = folder / f"corpus-{i}.parquet"
        if not path.exists():
            pq.write_table(table.slice(i * step, step), path)


def run_demo(
    target: Path, documents: int, stage: EmbeddingCreatorStage, client: Cluster, state: JobState
) -> Report:
    """Compose and embed the corpus; print the job's report and the nearest documents of three queries."""
    corpus, vectors = target / f"corpus-{documents}", target / f"embeddings-{documents}"
    write_corpus(corpus, documents)
    report = embed_parquet(stage, str(corpus), str(vectors), client=client, progress=True, state=state)
    show(describe(report))
    frame = pd.read_parquet(vectors, dtype_backend="pyarrow")
    queries = stage(pd.DataFrame({stage.text_field: QUERIES}))
    cosine = to_matrix(queries[stage.embedding_field]) @ to_matrix(frame[stage.embedding_field]).T
    for query, row in zip(QUERIES, cosine, strict=True):
        show(f"\n{query}")
        for i in _nearest(row, frame[stage.text_field]):
            show(f"  {row[i]:.3f}  [{frame['topic'].iloc[i]}] {frame[stage.text_field].iloc[i]}")
    return report


def _nearest(scores: np.ndarray, texts: pd.Series) -> list[int]:
    """Return the rows with the highest scores, each text once."""
    best: dict[str, int] = {}
    for i in np.argsort(-scores, kind="stable"):
        best.setdefault(texts.iloc[i], int(i))
        if len(best) == _NEAREST:
            break
    return list(best.values())
