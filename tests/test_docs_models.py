"""The table in docs/guide/supported-models.md matches the code and the tests.

To update the table, run ``python -m tests.test_docs_models``.
"""

from __future__ import annotations

from pathlib import Path

from nemo_embed_dask.lists import LIST_COLUMNS
from nemo_embed_dask.models.modules import IGNORED, LAYERS
from nemo_embed_dask.models.static import LAYOUTS
from nemo_embed_dask.runtimes import RUNTIMES
from nemo_embed_dask.vectors.layers import ACTIVATIONS
from nemo_embed_dask.vectors.pooling import POOLINGS
from nemo_embed_dask.vectors.quantization import BITS, DTYPES

from .helpers.tiny import KINDS, MORE

PAGE = Path(__file__).parents[1] / "docs/guide/supported-models.md"
START, END = "<!-- table: tests/test_docs_models.py writes it -->\n", "<!-- end of table -->\n"


def code(names):
    return ", ".join(f"`{name}`" for name in names)


def table():
    rows = [
        ("Architectures tested with all published combinations of pooling and layers", code(KINDS)),
        ("Architectures tested with their usual pooling", code(MORE)),
        ("Static models (a table of token vectors) in the layout of", code(LAYOUTS)),
        ("Poolings, single or joined by `+`", code(POOLINGS)),
        ("Lists per row instead of one vector", code(LIST_COLUMNS)),
        ("Modules after the pooling", f"{code(LAYERS)}; {code(IGNORED)} has no effect at inference"),
        ("Activations of `Dense`", code(ACTIVATIONS)),
        ("Storage types (bits per dimension)", ", ".join(f"`{name}` ({BITS[name]})" for name in DTYPES)),
        ("Runtimes", code(RUNTIMES)),
    ]
    return "".join(f"| {left} | {right} |\n" for left, right in [("What", "Supported"), ("---", "---"), *rows])


def test_the_table_matches_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(START)[2].partition(END)[0] == table(), "run: python -m tests.test_docs_models"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + table() + END + rest.partition(END)[2], encoding="utf-8")
