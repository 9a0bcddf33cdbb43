"""``nemo-embed demo``: a corpus of the project's own, embedded by the main job, and what lies near what."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ..frames import to_matrix
from ..jobs import embed_parquet
from ..jobs.report import Report, describe
from ..jobs.units.state import JobState
from ..stages import EmbeddingCreatorStage
from .demo_corpus import TOPICS
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


def compose(documents: int, seed: int = 0) -> pa.Table:
    """Short documents over all topics: columns ``id``, ``topic``, ``text``; the same for the same seed."""
    pick = random.Random(seed)  # noqa: S311 - prose, no secret
    topics = [pick.choice(list(TOPICS)) for _ in range(documents)]
    texts = [" ".join(_sentence(topic, pick) for _ in range(pick.randint(1, 3))) for topic in topics]
    return pa.table({"id": range(documents), "topic": topics, "text": texts})


def _sentence(topic: str, pick: random.Random) -> str:
    who, does, how = (pick.choice(column.split("|")) for column in TOPICS[topic])
    said = f"{pick.choice(_OPENINGS)}{who} {does} {how}."
    return said[0].upper() + said[1:]


def write_corpus(folder: Path, documents: int) -> None:
    """Write the corpus as a few Parquet files; what is there already is left alone."""
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
    """Compose, embed, and print the summary and the nearest documents of three queries."""
    corpus, vectors = target / f"corpus-{documents}", target / f"embeddings-{documents}"
    write_corpus(corpus, documents)
    report = embed_parquet(stage, str(corpus), str(vectors), client=client, progress=True, state=state)
    show(describe(report))
    frame = pd.read_parquet(vectors, dtype_backend="pyarrow")
    asked = stage(pd.DataFrame({stage.text_field: QUERIES}))
    cosine = to_matrix(asked[stage.embedding_field]) @ to_matrix(frame[stage.embedding_field]).T
    for query, row in zip(QUERIES, cosine, strict=True):
        show(f"\n{query}")
        for i in _nearest(row, frame[stage.text_field]):
            show(f"  {row[i]:.3f}  [{frame['topic'].iloc[i]}] {frame[stage.text_field].iloc[i]}")
    return report


def _nearest(scores: np.ndarray, texts: pd.Series) -> list[int]:
    """The best rows, each text once."""
    best: dict[str, int] = {}
    for i in np.argsort(-scores, kind="stable"):
        best.setdefault(texts.iloc[i], int(i))
        if len(best) == _NEAREST:
            break
    return list(best.values())
