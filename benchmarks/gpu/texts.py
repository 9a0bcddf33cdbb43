"""The texts of the GPU benchmark: real ones, or random words from a fixed seed where there are none."""

from __future__ import annotations

import random

import pandas as pd

from .. import corpora

# Corpus -> (file of real text, mean words of a random text, rows, rows of the file per text). A text of
# "stories" is two package descriptions: about 190 tokens, the length of TinyStories, for which Curator's speed
# was published. A run uses as many of the rows as a peer can embed in about a second.
CORPORA = {
    "short": ("short_wordnet", 20, 600_000, 1),
    "medium": ("medium_debian", 75, 240_000, 1),
    "stories": ("medium_debian", 150, 160_000, 2),
    "long": ("long_mix", 400, 30_000, 1),
}
_WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life"]


def texts(name: str, scale: float) -> list[str]:
    """Return a corpus, sampled with replacement and a fixed seed; texts have at most 20,000 characters."""
    file, words, rows, joined = CORPORA[name]
    rows, path = int(rows * scale), corpora.data_dir() / f"{file}.parquet"
    if not path.is_file():
        rng = random.Random(7)
        sample = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 2 * words))) for _ in range(rows)]
        return [f"{i} {text}" for i, text in enumerate(sample)]
    column = pd.read_parquet(path, columns=["text"]).text.str[:20_000]
    found = column.sample(rows * joined, replace=True, random_state=7).tolist()
    # A number makes each text distinct: equal texts would be embedded once.
    return [f"{i} {' '.join(found[joined * i : joined * (i + 1)])}" for i in range(rows)]
