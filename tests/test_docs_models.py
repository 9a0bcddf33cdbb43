"""README's table of models is what the code supports and the tests prove.

To write it anew: ``python -m tests.test_docs_models``.
"""

from __future__ import annotations

from pathlib import Path

from nemo_embed_dask.models.sentence_transformers import IGNORED, LAYERS
from nemo_embed_dask.runtimes import RUNTIMES
from nemo_embed_dask.vectors.head import _ACTIVATIONS
from nemo_embed_dask.vectors.pooling import POOLINGS
from nemo_embed_dask.vectors.quantization import BITS, DTYPES

from .helpers.tiny import KINDS, MORE

PAGE = Path(__file__).parents[1] / "README.md"
START, END = "<!-- table: tests/test_docs_models.py writes it -->\n", "<!-- end of table -->\n"


def code(names):
    return ", ".join(f"`{name}`" for name in names)


def table():
    rows = [
        ("Proven against sentence-transformers in every combination in the wild", code(KINDS)),
        ("Proven against it with the pooling of their kind", code(MORE)),
        ("Poolings, alone or joined by `+`", code(POOLINGS)),
        ("Modules behind the pooling", f"{code(LAYERS)}; {code(IGNORED)} does nothing at inference"),
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
