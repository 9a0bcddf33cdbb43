"""The table of docs/models.md is what the code supports and the tests prove.

To write it anew: ``python -m tests.test_docs_models``.
"""

from __future__ import annotations

from pathlib import Path

from nemo_embed_dask.head import _ACTIVATIONS
from nemo_embed_dask.layouts import IGNORED, LAYERS
from nemo_embed_dask.pooling import POOLINGS
from nemo_embed_dask.runtimes import RUNTIMES
from nemo_embed_dask.storage import BITS, DTYPES

from .tiny import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
START, END = "<!-- table: tests/test_docs_models.py writes it -->\n", "<!-- end of table -->\n"


def code(names):
    return ", ".join(f"`{name}`" for name in names)


def table():
    rows = [
        ("Architectures proven against sentence-transformers", code(KINDS)),
        ("Poolings, alone or joined by `+`", code(POOLINGS)),
        ("Modules behind the pooling", code(LAYERS)),
        ("Modules that do nothing at inference", code(IGNORED)),
        ("Activations of `Dense`", code(_ACTIVATIONS)),
        ("Storage types (bits a dimension)", ", ".join(f"`{name}` ({BITS[name]})" for name in DTYPES)),
        ("Runtimes", code(RUNTIMES)),
    ]
    return "".join(f"| {left} | {right} |\n" for left, right in [("What", "Supported"), ("---", "---"), *rows])


def test_the_table_is_what_the_code_supports():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(START)[2].partition(END)[0] == table(), "run: python -m tests.test_docs_models"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + START + table() + END + rest.partition(END)[2], encoding="utf-8")
