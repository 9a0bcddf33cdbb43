"""docs/guide/parameters.md has every parameter of a stage, as `nemo_embed_dask.settings` declares it.

To update the page, run ``python -m tests.test_docs_parameters``.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from pathlib import Path

from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.options import alternatives, choices, hints_of, option_of, type_name

PAGE = Path(__file__).parents[1] / "docs/guide/parameters.md"
HEAD = """# Parameters

Parameters of `EmbeddingCreatorStage` and `embed`. Flags of the command line have the same names with dashes
(`--text-field`). `TokenizerStage` and `EmbeddingModelStage` have some of these parameters; the model stage has `pooling`
instead of `embedding_pooling`, and `has_seq_order` instead of `sort_by_length`.

A job cannot continue with another value of a parameter that changes the output. "By content": it can continue if the
content of the file or directory, or the number type of the hardware, is the same.

<!-- python -m tests.test_docs_parameters writes this page -->

| Name | Type | Default | Meaning | Changes the output |
| --- | --- | --- | --- | --- |
"""


def row(item, hint):
    about = option_of(item)
    kinds = [f'`"{value}"`' for value in choices(hint)] or [type_name(kind) for kind in alternatives(hint)]
    default = "" if item.default in (None, MISSING) else f"`{item.default!r}`".replace("'", '"')
    changes = "no" if about.keeps_vectors else "by content" if about.by_content else "yes"
    return f"| `{item.name}` | {', '.join(kinds)} | {default} | {about.help.replace('``', '`')} | {changes} |\n"


def page(stage=EmbeddingCreatorStage):
    hints = hints_of(stage)
    return HEAD + "".join(row(item, hints[item.name]) for item in fields(stage))


def test_the_page_is_what_the_code_declares():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.test_docs_parameters"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
