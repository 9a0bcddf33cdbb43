"""The text that is measured: a fixed sample of each real corpus. Knows no peer and no clock."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

# Rows of each corpus in the main measurement: about 220,000 tokens a round, so that ten peers and three
# rounds take a quarter of an hour on two cores without AMX. The last two are extras: short and long rows.
ROWS = {"medium_agnews": 1536, "medium_debian": 1024, "short_wordnet": 1024, "long_mix": 64}


def data_dir() -> Path:
    """Where the corpora are: ``../shared/data`` beside the checkout, or ``$NEMO_EMBED_DATA``."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("NEMO_EMBED_DATA", beside))


def texts(name: str, rows: int) -> list[str]:
    """``rows`` texts of a corpus, drawn with a fixed seed."""
    path = data_dir() / f"{name}.parquet"
    if not path.is_file():
        raise SystemExit(f"no corpus at {path}; set NEMO_EMBED_DATA to the folder that holds it")
    return pd.read_parquet(path, columns=["text"]).text.sample(rows, random_state=7).tolist()
