"""Texts for the benchmarks: a fixed sample of each real corpus."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

# Rows of each corpus in the main measurement: about 220,000 tokens per round, so that ten peers and three
# rounds take a quarter of an hour on two cores without AMX. The last two corpora have very short and long rows.
ROWS = {"medium_agnews": 1536, "medium_debian": 1024, "short_wordnet": 1024, "long_mix": 64}


def data_dir() -> Path:
    """Return the folder of the corpora: ``$NEMO_EMBED_DATA``, or ``shared/data`` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("NEMO_EMBED_DATA", default))


def texts(name: str, rows: int) -> list[str]:
    """Return ``rows`` texts of a corpus, sampled with a fixed seed."""
    path = data_dir() / f"{name}.parquet"
    if not path.is_file():
        raise SystemExit(f"no corpus at {path}; set NEMO_EMBED_DATA to the folder that contains it")
    return pd.read_parquet(path, columns=["text"]).text.sample(rows, random_state=7).tolist()
