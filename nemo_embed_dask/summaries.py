"""Results that are shown as lines of text, and in notebooks as an HTML table of the same lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape

# Colours and borders are the notebook's, so that tables fit light and dark themes. These class names keep
# Jupyter from reading dollar signs as formulas.
_CLASSES = "tex2jax_ignore mathjax_ignore"
_CELL = "text-align: left; vertical-align: top; overflow-wrap: anywhere"


class Summary(ABC):
    """Base class of results with a caption and named figures."""

    def __str__(self) -> str:
        return "\n".join([self._caption, *(f"{name}: {value}" for name, value in self._rows.items())])

    def _repr_html_(self) -> str:
        return html_table(self._caption, self._rows)

    @property
    @abstractmethod
    def _caption(self) -> str: ...

    @property
    @abstractmethod
    def _rows(self) -> dict[str, str]: ...


def html_table(caption: str, rows: Mapping[str, str]) -> str:
    """Return a table with one row per item of ``rows``: its key as the heading, its value as the text.

    All texts are escaped, and line breaks in values are kept. There are no scripts and no links.
    """
    body = "".join(
        f'<tr><th scope="row" style="{_CELL}">{_escaped(name)}</th>'
        f'<td style="{_CELL}; white-space: pre-wrap">{_escaped(value)}</td></tr>\n'
        for name, value in rows.items()
    )
    title = f'<caption style="text-align: left; font-weight: bold">{_escaped(caption)}</caption>\n'
    return f'<table class="{_CLASSES}">\n{title}<tbody>\n{body}</tbody>\n</table>\n'


def _escaped(text: str) -> str:
    """Escape HTML, and bytes of file names that are not UTF-8, which a notebook could not store."""
    return escape(text.strip("\n").encode(errors="backslashreplace").decode())
