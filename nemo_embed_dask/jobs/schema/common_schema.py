"""Merge the schemas of all inputs into one: each column has a type that holds the values of most inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress

import pyarrow as pa

from ..formats.parquet_types import storable_type
from ..formats.widening import IncompatibleTypesError, always_holds, holds, widen
from .value_ranges import ValueRanges

_TypeTest = Callable[[pa.DataType, pa.DataType], bool]


def common_schema(
    schemas: Sequence[pa.Schema], ranges: ValueRanges, text_field: str, names: Sequence[str] | None
) -> pa.Schema:
    """Return the columns of all inputs, in order of first occurrence, each of a type that most inputs fit.

    Inputs with the same schema fit or fail together. The steps:

    1. Draft a type for each column from all schemas.
    2. Accept schemas that are compatible with each other, first those that fit the draft, then by frequency.
    3. Choose the types again, from the accepted schemas only: an input that will fail decides no type.

    A column that was asked for by name but is in no accepted schema keeps its type of the draft.

    Parameters
    ----------
    schemas : sequence of Schema
        One for each input.
    ranges : ValueRanges
        Of the same inputs.
    text_field : str
    names : sequence of str, optional
        The columns to copy; all if None.
    """
    counts = Counter(schemas)  # keeps the order of first occurrence
    wanted = None if names is None else {text_field, *names}
    draft = _merge_columns(counts, ranges, wanted)
    accepted = _accept_schemas(counts, draft, wanted)
    columns = _merge_columns({s: n for s, n in counts.items() if s in accepted}, ranges, wanted)
    if wanted is not None:
        columns = {**draft, **columns}
    return pa.schema([_part_field(field, is_text=name == text_field) for name, field in columns.items()])


def _accept_schemas(
    counts: Counter[pa.Schema], draft: Mapping[str, pa.Field], wanted: Container[str] | None
) -> set[pa.Schema]:
    """Return schemas whose columns have common types. Add one schema at a time, the best first."""

    def rank(schema: pa.Schema) -> tuple[bool, int]:
        fits = all(holds(draft[field.name].type, field.type) for field in schema if field.name in draft)
        return not fits, -counts[schema]

    accepted: set[pa.Schema] = set()
    types: dict[str, pa.DataType] = {}
    for schema in sorted(counts, key=rank):
        with suppress(IncompatibleTypesError):
            widened = {
                field.name: widen(types.get(field.name, field.type), field.type)
                for field in schema
                if wanted is None or field.name in wanted
            }
            types |= widened
            accepted.add(schema)
    return accepted


def _merge_columns(
    counts: Mapping[pa.Schema, int], ranges: ValueRanges, wanted: Container[str] | None
) -> dict[str, pa.Field]:
    """Return one field for each wanted column. ``counts`` has the number of inputs of each schema."""
    fields: dict[str, pa.Field] = {}
    type_counts: dict[str, Counter[pa.DataType]] = {}
    for schema, count in counts.items():
        for field in schema:
            if wanted is None or field.name in wanted:
                fields.setdefault(field.name, field)
                type_counts.setdefault(field.name, Counter())[field.type] += count
    return {name: fields[name].with_type(_choose_type(name, type_counts[name], ranges)) for name in fields}


def _choose_type(name: str, counts: Counter[pa.DataType], ranges: ValueRanges) -> pa.DataType:
    """Return the type that holds a column of most inputs.

    Example: of 9 inputs with int64 and 1 with double, double holds all, unless there are integers beyond 2^53.
    If 2 inputs have such integers, double makes these 2 fail. int64 makes only 1 input fail, and is chosen.
    """
    wide = _most_common_type(counts, holds)
    uncertain = [dtype for dtype in counts if holds(wide, dtype) and not always_holds(wide, dtype)]
    fail_if_wide = ranges.count_misfits(name, uncertain, wide) if uncertain else 0
    if not fail_if_wide:
        return wide
    certain = _most_common_type(counts, always_holds)
    fail_if_certain = sum(count for dtype, count in counts.items() if not always_holds(certain, dtype))
    return wide if fail_if_wide <= fail_if_certain else certain


def _most_common_type(counts: Counter[pa.DataType], can_hold: _TypeTest) -> pa.DataType:
    """Group types that one type can hold, and return the type of the group with the most inputs."""
    groups: list[tuple[pa.DataType, int]] = []
    for dtype, count in counts.most_common():
        for i, (group_type, group_count) in enumerate(groups):
            wide = _common_type(group_type, dtype, can_hold)
            if wide is not None:
                groups[i] = wide, group_count + count
                break
        else:
            groups.append((dtype, count))
    return max(groups, key=lambda group: group[1])[0]


def _common_type(a: pa.DataType, b: pa.DataType, can_hold: _TypeTest) -> pa.DataType | None:
    try:
        wide = widen(a, b)
    except IncompatibleTypesError:
        return None
    return wide if can_hold(wide, a) and can_hold(wide, b) else None


def _part_field(field: pa.Field, *, is_text: bool) -> pa.Field:
    """Return a column as parts store it. It is nullable, so that it also fits inputs that lack it."""
    is_text_without_values = is_text and pa.types.is_null(field.type)
    dtype = pa.string() if is_text_without_values else storable_type(field.type)
    return field.with_type(dtype).with_nullable(True)
