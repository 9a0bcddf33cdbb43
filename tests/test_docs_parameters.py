"""docs/parameters.md lists every parameter of a stage, as `nemo_embed_dask.settings` declares it.

To write it anew: ``python -m tests.test_docs_parameters``.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from pathlib import Path

from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.options import alternatives, choices, hints_of, option_of, type_name

PAGE = Path(__file__).parents[1] / "docs" / "parameters.md"
HEAD = """# Parameters

Parameters of `EmbeddingCreatorStage`, of `embed`, and, with dashes, flags of the command line (`--text-field`).
`TokenizerStage` and `EmbeddingModelStage` take those that concern them; the model stage calls `embedding_pooling`
`pooling`, and `sort_by_length` `has_seq_order`. "Changes the output" says whether a job can be continued with
another value: "no" if it can; "by content" if what counts is not the value but what it leads to, such as a file's
content or the number type of the computation. Written by `python -m tests.test_docs_parameters`.

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
