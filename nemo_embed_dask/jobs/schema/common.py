"""One schema over those of all files: for each column the type that most files fit. Reads no file itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from ..formats.widening import UnlikeError, certainly_holds, holds, storable, widen
from .ranges import Ranges, fits
from .survey import Survey


@dataclass(frozen=True)
class Known:
    """What may be asked of files' values."""

    surveys: Sequence[Survey]
    ranges: Ranges

    def not_fitting(self, name: str, dtypes: Container[pa.DataType], wide: pa.DataType) -> int:
        """Count the files whose column, of one of some types, has values that a wider type does not hold."""
        asked = [
            survey
            for survey in self.surveys
            if survey.schema is not None
            and survey.schema.names.count(name) == 1
            and survey.schema.field(name).type in dtypes
        ]
        return sum(not fits(values, wide) for values in self.ranges.of(asked, name))


def common_schema(
    schemas: Sequence[pa.Schema], known: Known, text_field: str, names: Sequence[str] | None
) -> pa.Schema:
    """Find the columns of a job, in the order of their first file, each of a type for most files.

    Files of one schema are taken or left as a whole, those first that fit the most frequent type of each
    column. One that is left decides no type, but gives its own for a column that only such files have and
    that was asked for by name.
    """
    kinds = Counter(schemas)  # keeps the order of first occurrence
    wanted = None if names is None else {text_field, *names}
    draft = _types(kinds, known, wanted)
    fitting = _fitting_kinds(kinds, draft, wanted)
    types = _types({kind: count for kind, count in kinds.items() if kind in fitting}, known, wanted)
    if wanted is not None:
        types = {**draft, **types}
    return pa.schema([_final(field, is_text=name == text_field) for name, field in types.items()])


def _fitting_kinds(
    kinds: Counter[pa.Schema], draft: Mapping[str, pa.Field], wanted: Container[str] | None
) -> set[pa.Schema]:
    """Schemas that have a type in common for each column: as many as can be added one by one."""

    def rank(kind: pa.Schema) -> tuple[bool, int]:
        fits_all = all(holds(draft[field.name].type, field.type) for field in kind if field.name in draft)
        return not fits_all, -kinds[kind]

    found: set[pa.Schema] = set()
    types: dict[str, pa.DataType] = {}
    for kind in sorted(kinds, key=rank):
        with suppress(UnlikeError):
            types |= {
                field.name: widen(types.get(field.name, field.type), field.type)
                for field in kind
                if wanted is None or field.name in wanted
            }
            found.add(kind)
    return found


def _types(kinds: Mapping[pa.Schema, int], known: Known, wanted: set[str] | None) -> dict[str, pa.Field]:
    """Each column's type, widened from the most frequent one on; types that are unlike these are left out."""
    first: dict[str, pa.Field] = {}
    votes: dict[str, Counter[pa.DataType]] = {}
    for schema, count in kinds.items():
        for field in schema:
            if wanted is None or field.name in wanted:
                first.setdefault(field.name, field)
                votes.setdefault(field.name, Counter())[field.type] += count
    return {name: first[name].with_type(_fitting(name, found, known)) for name, found in votes.items()}


def _fitting(name: str, votes: Counter[pa.DataType], known: Known) -> pa.DataType:
    """The type that most files fit, by their types and, where these do not tell, by their values."""
    wide = _widest(votes, holds)
    doubtful = [dtype for dtype in votes if holds(wide, dtype) and not certainly_holds(wide, dtype)]
    too_large = known.not_fitting(name, doubtful, wide) if doubtful else 0
    if not too_large:
        return wide
    exact = _widest(votes, certainly_holds)
    unlike = sum(count for dtype, count in votes.items() if not certainly_holds(exact, dtype))
    return wide if too_large <= unlike else exact


def _widest(votes: Counter[pa.DataType], held: Callable[[pa.DataType, pa.DataType], bool]) -> pa.DataType:
    """The type that holds those of most files: types are put together as far as one holds them."""
    groups: list[tuple[pa.DataType, int]] = []
    for dtype, count in votes.most_common():
        for place, (so_far, files) in enumerate(groups):
            with suppress(UnlikeError):
                wide = widen(so_far, dtype)
                if held(wide, so_far) and held(wide, dtype):
                    groups[place] = wide, files + count
                    break
        else:
            groups.append((dtype, count))
    return max(groups, key=lambda group: group[1])[0]


def _final(field: pa.Field, *, is_text: bool) -> pa.Field:
    """A column as parts have it; nullable, so that no later input makes it another one."""
    text_without_values = is_text and pa.types.is_null(field.type)
    return field.with_type(pa.string() if text_without_values else storable(field.type)).with_nullable(True)
