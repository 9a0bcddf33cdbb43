"""JSON lines become Arrow arrays with every value unchanged; errors name the first value that does not fit."""

from __future__ import annotations

import codecs
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_embed_dask.jobs.formats import jsonlines
from nemo_embed_dask.jobs.formats.json_types import MixedValuesError, infer_type, to_array
from nemo_embed_dask.jobs.formats.jsonlines import Line, parse_lines

from ...helpers.arrow_values import same

thorough = settings(max_examples=200)
words = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
small = st.integers(-(2**53), 2**53)
large = st.integers(1 - 10**38, 10**38 - 1)
floats = st.floats(allow_nan=True)
# One strategy per column, so that the values of a column are compatible.
_leaves = st.sampled_from([words, st.booleans(), small, large, floats, small | floats, st.none()])


def _nested(inner):
    """Strategies of lists and objects whose values come from one strategy, or one for each name."""
    lists = inner.map(lambda values: st.lists(values | st.none(), max_size=3))
    objects = st.dictionaries(words, inner, max_size=3).map(_objects)
    return lists | objects


def _objects(fields):
    """Objects that may lack any of their names."""
    return st.fixed_dictionaries({}, optional={name: values | st.none() for name, values in fields.items()})


columns = st.recursive(_leaves, _nested, max_leaves=5)
objects = st.dictionaries(words, columns, max_size=4).map(_objects)
rows = objects.flatmap(lambda row: st.lists(row, max_size=6))


def plain(value: Any) -> Any:
    """Convert values read from Arrow to those of JSON: large integers are read as decimals."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return int(value) if isinstance(value, Decimal) else value


def parsed(data: bytes) -> list[Line]:
    return [line for piece in parse_lines(data.splitlines(keepends=True)) for line in piece]


def encoded(values: list[dict], end: bytes = b"\n") -> bytes:
    return b"".join(json.dumps(value).encode() + end for value in values)


@thorough
@given(rows)
@example([{"a": {}}, {"a": {"b": []}}, {}])
@example([{"": [[], [None]]}, {"": None}])
@example([{"a": 2**64 - 1}, {"a": 0}])
@example([{"a": -0.0}, {"a": 3}])
def test_columns_have_every_value(rows):
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        array = to_array(values)
        assert array.type == infer_type(values) and len(array) == len(values)
        for before, after in zip(values, array.to_pylist(), strict=True):
            assert (before is None) == (after is None)
            assert same(before, plain(after)), (before, after)


@thorough
@given(
    rows,
    st.integers(1, 4),
    st.integers(1, 300),
    st.sampled_from([b"\n", b"\r\n", b"\n\n", b" \n \t\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_lines_are_parsed_once_and_in_order_whatever_the_pieces(rows, most, size, end, mark, is_ascii):
    lines = [json.dumps(row, ensure_ascii=is_ascii).encode() for row in rows]
    data = (codecs.BOM_UTF8 if mark else b"") + b"".join(line + end for line in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonlines, "PIECE_ROWS", most)
        patch.setattr(jsonlines, "PIECE_BYTES", size)
        pieces = list(parse_lines(data.split(b"\n")))
    found = [line for piece in pieces for line in piece]
    assert all(0 < len(piece) <= most for piece in pieces)
    assert [line.problem for line in found] == [""] * len(rows)
    assert len(found) == len(rows)
    for before, after in zip(rows, found, strict=True):
        assert before.keys() == after.row.keys() and same(before, after.row)


def test_a_last_line_without_an_end_and_lines_that_are_only_blank():
    assert [line.row for line in parsed(b'{"a": 1}\n\n{"a": 2}')] == [{"a": 1}, {"a": 2}]
    assert parsed(b"") == parsed(b"\n \t\r\n\n") == parsed(codecs.BOM_UTF8) == []


def test_pieces_are_bounded_by_what_lines_take_as_objects():
    """A short line with many brackets takes more memory than its text."""
    line = b'{"a": [' + b",".join([b"[[]]"] * 100_000) + b"]}\n"
    pieces = list(parse_lines([line] * 8))
    assert sum(map(len, pieces)) == 8 and len(pieces) > 1


@pytest.mark.parametrize(("values", "place"), [
    ([1, None, "a"], 2), (["a", 1], 1), ([True, 1], 1), ([1, True], 1), ([None, [], {}], 2), ([[], "a"], 1),
    ([[1], ["a"]], 1), ([[], [None], [1], [[1]]], 3), ([{"a": 1}, {"b": "x"}, {"a": "x"}], 2),
    ([{"a": [{"b": 1}]}, {"a": []}, {"a": [{"b": {}}]}], 2), ([[1, "a"], [1]], 0), ([[1], [1, "a"]], 1),
    ([1, 10**38], 1), ([1, -(10**38), 2], 1), ([0.5, 2**53 + 1], 1), ([2**53 + 1, 0.5], 1),
    ([1, 2**53 + 1, 2, 0.5, 3], 3), ([0.5, 1, 2**64], 2), ([[2**60], [1], [0.5]], 2),
    ([{"a": 0.5}, {"a": 2**53}, {"a": 2**53 + 1}], 2), ([10**37, 1, 0.5], 2),
])  # fmt: skip
def test_the_first_value_that_does_not_fit_is_named(values, place):
    with pytest.raises(MixedValuesError) as caught:
        to_array(values)
    assert caught.value.position == place
    assert caught.value.reason


@thorough
@given(st.lists(small, max_size=5), st.lists(large, max_size=5), st.lists(floats, max_size=5))
def test_integers_beyond_2_53_are_not_mixed_with_floats(low, high, fractions):
    values = [*low, *high, *fractions]
    beyond = any(abs(value) > 2**53 for value in [*low, *high])
    if fractions and beyond:
        with pytest.raises(MixedValuesError):
            to_array(values)
    else:
        assert all(map(same, values, plain(to_array(values).to_pylist())))


@pytest.mark.parametrize(("values", "dtype"), [
    ([2**63 - 1, -(2**63)], pa.int64()), ([2**63, 0], pa.uint64()), ([2**64 - 1, None], pa.uint64()),
    ([2**63, -1], pa.decimal128(38, 0)), ([2**64], pa.decimal128(38, 0)), ([-(2**63) - 1], pa.decimal128(38, 0)),
    ([10**38 - 1, 1 - 10**38], pa.decimal128(38, 0)), ([2**53, 0.5], pa.float64()), ([None, None], pa.null()),
    ([{}, None], pa.struct([])), ([[], None], pa.list_(pa.null())), ([1.0, 2], pa.float64()),
])  # fmt: skip
def test_the_narrowest_type(values, dtype):
    array = to_array(values)
    assert array.type == dtype and plain(array.to_pylist()) == values


NO_ROW = [b"nothing", b"{", b'{"a": 1}}', b'{"a": 1} {"a": 2}', b"[1]", b'"a"', b"1", b"null", b"true", b"\xff", b"{'a': 1}",
          b"[" * 100_000, b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"a": ' + b"9" * 10_000 + b"}", b"\x00",
          b'{"a": 01}', b'{"a": "\n', codecs.BOM_UTF8 + b"{}", b'{"a": "\x01"}']  # fmt: skip


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' appears twice"),
        (b'{"b": [{"a": 1, "a": 1}]}', "the key 'a' appears twice"),
        (b'{"a": -1e400}', "float64 cannot hold the number -1e400"),
        (b'{"a": [1.5E+400]}', "float64 cannot hold the number 1.5E+400"),
    ],
)
def test_lines_whose_values_python_would_change_are_refused(line, problem):
    """The JSON reader of pyarrow refuses such lines too."""
    with pytest.raises(pa.ArrowInvalid):
        pyarrow.json.read_json(pa.BufferReader(line))
    [bad, good] = parsed(line + b'\n{"a": 1e308}')
    assert bad.row == {} and problem in bad.problem
    assert good == Line({"a": 1e308})


@pytest.mark.parametrize("line", NO_ROW, ids=lambda line: repr(line[:12]))
def test_a_line_that_is_no_object_costs_only_its_row(line):
    before, odd, after = parsed(b'{"a": 1}\n' + line.replace(b"\n", b"") + b'\n{"a": 2}\n')
    assert (before.row, after.row) == ({"a": 1}, {"a": 2}) and not before.problem and not after.problem
    assert odd.row == {} and odd.problem and len(odd.problem) <= 200 and "\n" not in odd.problem


def _at(depth: int, text: str, as_name: bool) -> Any:
    value: Any = {text: 1} if as_name else text
    for level in range(depth):
        value = [value, "x"] if level % 2 else {"in": value, "by": "x"}
    return value


@given(
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from(["\ud800", "a\udfffb", "\udc00\ud800", "\udcff"]),
    st.booleans(),
)
def test_lone_surrogates_mark_their_row_and_keep_all_else(depth, as_name, text, raw):
    row = {"a": _at(depth, text, as_name), "b": [1, 2.5, {"c": None}]}
    bad = json.dumps(row, ensure_ascii=not raw).encode("utf-8", "surrogatepass") + b"\n"
    good = encoded([{"a": "\U0001f600", "b": "\ud83d\ude00"}])
    first, odd, last = parsed(good + bad + good)
    assert not first.problem and not last.problem and first == last
    assert "'a'" in odd.problem and odd.row["b"] == row["b"]
    json.dumps(odd.row, ensure_ascii=False).encode()
    pa.array([json.dumps(odd.problem)])


@pytest.mark.parametrize("depth", [300, 600, 900, 3000, 100_000])
def test_a_deep_row_with_a_lone_surrogate_is_a_bad_row(depth):
    bad = b'{"a": "b", "x": ' + b"[" * depth + b'"\\ud800"' + b"]" * depth + b"}\n"
    first, odd, last = parsed(encoded([{"a": "a"}]) + bad + encoded([{"a": "c"}]))
    assert odd.problem and not first.problem and not last.problem


@given(st.binary(min_size=1, max_size=6))
def test_invalid_utf8_marks_its_row(harm):
    harm = harm.translate(None, b'"\\\n\r' + bytes(range(32)))
    try:
        harm.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    (line,) = parsed(b'{"a": "x' + harm + b'", "b": 1}\n')
    assert bool(line.problem) != valid
    assert line.row["b"] == 1
    line.row["a"].encode()


def test_pairs_of_surrogates_and_escaped_backslashes_are_text():
    (line,) = parsed(rb'{"a": "\ud83d\ude00", "b": "\\ud800", "\uD83D\uDE00": 1}')
    assert line == Line({"a": "😀", "b": "\\ud800", "😀": 1})
