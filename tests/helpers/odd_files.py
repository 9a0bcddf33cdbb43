"""Build a folder of inputs with unusual types, names and contents, and the expected result; see tests/jobs/test_odd.py."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .file_names import not_unicode
from .odd_types import TEXTS, WIDENED, every_type

NAMES = [
    "a b.parquet", "naïve 漢字.parquet", "#?&%20%.parquet", "*.parquet", "[1].parquet", "-dash.parquet", "two\nlines.parquet",
    "x" * 242 + ".parquet", "'\"`$HOME`.parquet", "a::b.parquet", "c=d.parquet", "~.PARQUET", *not_unicode(b"\xff\xfe.parquet"),
    " .pq", "a.b..parq",
]  # fmt: skip
LINES = [
    {"text": "one", "j_int": 1, "j_float": 1, "j_big": 1, "j_word": "ß", "j_null": None, "j_empty": {}, "j_none": []},
    {"text": None, "j_int": -(2**63), "j_float": -0.0, "j_big": 2**70, "j_u64": 2**64 - 1, "j_list": [[1, None], [], None]},
    {"text": "two words", "j_int": 2**63 - 1, "j_float": 2**53, "j_big": -5, "j_word": "\U0001f600", "j_objects": [{}, {"a": 1}]},
    {}, {"text": "", "j_float": 0.1, "j_objects": [{"b": {"c": [True, None]}}, None], "j_word": "\x00\u2028\\ud800", "j.b": 1},
    {"text": "one", "j_float": 1e308, "j_list": [], "j_nested": {"": {"x y": [{"z": "\U0001f600"}]}}, "j_empty": {}},
    {"text": "čtyři", "j_float": float("nan"), "j_bool": False, "j_late": "late", "quote'd": 1.5},
]  # fmt: skip
# Lines that are not JSON objects or cannot be embedded, and the row that the part has for each.
BAD_LINES: list[tuple[bytes, dict]] = [
    (b"{broken", {}), (b'[1, {"text": "no"}]', {}), (b'"text"', {}), (b"5", {}), (b"null", {}), (b'{"text": "x", }', {}),
    (b'{"text": 7, "j_int": 7}', {"text": None, "j_int": 7}), (b'{"text": ["a", "b"]}', {"text": None}),
    (b'{"text": {"a": 1}}', {"text": None}), (b'{"text": true}', {"text": None}),
    (b'{"text": "\\ud800 lone", "j_int": 3}', {"text": "? lone", "j_int": 3}),
    (b'{"text": "fine", "j_objects": [{"b": {"c": null}, "s": "\\udc00"}]}', {"text": "fine", "j_objects": [{"b": {"c": None}, "s": "?"}]}),
    (b'{"text": "\xff raw"}', {"text": "? raw"}),
]  # fmt: skip


@dataclass
class Odd:
    """The folder ``root``, its good files, and its bad files with a pattern of the expected error.

    ``lines`` has, for each JSON file, the expected rows and the positions of those that cannot be embedded.
    """

    root: Path
    good: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    lines: dict[str, tuple[list[dict], set[int]]] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str, table: pa.Table, bad: str = "", **how) -> None:
        with self.place(name).open("wb") as sink:  # pyarrow cannot open a name that is not UTF-8
            pq.write_table(table, sink, **how)
        self._note(name, bad)

    def bytes(self, name: str, data: bytes, bad: str = "") -> None:
        self.place(name).write_bytes(data)
        self._note(name, bad)

    def jsonl(self, name: str, data: bytes, rows: list[dict], odd: set[int]) -> None:
        self.bytes(name, data)
        self.lines[name] = rows, odd

    def link(self, name: str, target: str | Path) -> None:
        self.place(name).symlink_to(target)

    def _note(self, name: str, bad: str) -> None:
        if bad:
            self.bad[name] = bad
        else:
            self.good.append(name)


def build(folder: Path) -> Odd:
    odd = Odd(folder / "in")
    for make in (parquet_files, widened_files, json_files, names, links, hive, hidden, damaged, unlike):
        make(odd)
    return odd


def texts(count: int = len(TEXTS)) -> pa.Table:
    return pa.table({"text": (TEXTS * count)[:count], "id": range(count)})


def parquet_files(odd: Odd) -> None:
    table = every_type()
    odd.table("types/all.parquet", table, row_group_size=2)
    backwards = table.select(table.column_names[::-1])
    odd.table("types/backwards.parquet", backwards, compression="none", use_dictionary=False)
    odd.table("types/version1.parquet", table.select(["text", "int64", "string", "list"]), version="1.0")
    odd.table("types/pages2.parquet", table.drop_columns(["null"]), data_page_version="2.0", compression="gzip")
    odd.table("types/none.parquet", table.slice(0, 0))
    for name, slices in {"groups": [0, 2, 0, 1, 3, 0], "nothing": []}.items():
        with pq.ParquetWriter(odd.place(f"types/{name}.parquet"), table.schema) as writer:
            for start, rows in enumerate(slices):
                writer.write_table(table.slice(start, rows))
        odd.good.append(f"types/{name}.parquet")
    for name, dtype in {
        "dictionary": pa.dictionary(pa.int8(), pa.string()), "large": pa.large_string(), "view": pa.string_view(), "null": pa.null(),
    }.items():  # fmt: skip
        column = pa.nulls(5) if name == "null" else pa.array([*TEXTS, None][:5]).cast(dtype)
        odd.table(f"texts/{name}.parquet", pa.table({"id": range(5), "text": column}))


def widened_files(odd: Odd) -> None:
    """Two files with the same columns in different types and order, and a third that lacks most of them."""
    for i, name in enumerate(("a", "b")):
        columns = {column: arrays[i] for column, (*arrays, _) in WIDENED.items()}
        order = list(columns)[:: 1 - 2 * i]
        odd.table(f"wide/{name}.parquet", pa.table({"text": TEXTS[:3], **{key: columns[key] for key in order}}))
    odd.table("wide/c.parquet", pa.table({"w_int": pa.array([5], pa.int16()), "text": ["only one"]}))


def json_files(odd: Odd) -> None:
    raw = [json.dumps(row, ensure_ascii=i % 2 == 0).encode() for i, row in enumerate(LINES)]
    plain = b"\n".join(raw)
    good = LINES, set()
    odd.jsonl("json/plain.jsonl", plain, *good)
    odd.jsonl("json/a.jsonl.gz", gzip.compress(plain[:200]) + gzip.compress(plain[200:]), *good)
    odd.jsonl("json/a.ndjson.bz2", bz2.compress(plain), *good)
    odd.jsonl("json/a.JSONL.XZ", lzma.compress(plain), *good)
    odd.jsonl("json/a.jsonl.zst", pa.Codec("zstd").compress(plain, asbytes=True), *good)
    odd.jsonl("json/mark.jsonl", b"\xef\xbb\xbf" + plain, *good)
    odd.jsonl("json/crlf.jsonl", b"\r\n".join(raw) + b"\r\n", *good)
    odd.jsonl("json/blank.jsonl", b"\n \n\t\r\n" + b"\n\n".join(raw) + b"\n\n\n", *good)
    odd.jsonl("json/empty.jsonl", b"", [], set())
    odd.jsonl("json/empty.jsonl.gz", gzip.compress(b""), [], set())
    odd.jsonl("json/only-blank.jsonl", b"\n\n \n", [], set())
    bad, rows = zip(*BAD_LINES, strict=True)
    places = set(range(len(LINES), len(LINES) + len(bad)))
    odd.jsonl("json/bad-lines.jsonl", b"\n".join([*raw, *bad, *raw]), [*LINES, *rows, *LINES], places)


def names(odd: Odd) -> None:
    for folder in ("names", "names/same names", "names/x.parquet"):
        for name in NAMES:
            odd.table(f"{folder}/{name}", texts(2))
    odd.table("names/x.parquet/part-0.parquet", texts(3))


def links(odd: Odd) -> None:
    away = odd.root.parent / "elsewhere"
    Odd(away).table("folder/real.parquet", texts(3))
    odd.link("links/relative.parquet", "../../elsewhere/folder/real.parquet")
    odd.link("links/absolute.parquet", away / "folder" / "real.parquet")
    odd.link("links/chain.parquet", "relative.parquet")
    odd.link("links/folder", "../../elsewhere/folder")
    odd.link("links/loop/back", "..")
    odd.link("links/loop/self", ".")
    hub = "hub/datasets--x--y"
    for i in range(2):
        Odd(odd.root).table(f"{hub}/blobs/{'0' * 63}{i}", texts(2 + i))
        odd.link(f"{hub}/snapshots/abc/data/train-{i}.parquet", f"../../../blobs/{'0' * 63}{i}")
        odd.good.append(f"{hub}/snapshots/abc/data/train-{i}.parquet")
    odd.good += [f"links/{name}.parquet" for name in ("relative", "absolute", "chain", "folder/real")]
    for name, target in (("dangling", "nothing.parquet"), ("self", "self.parquet")):
        odd.link(f"links/{name}.parquet", target)
        odd.bad[f"links/{name}.parquet"] = "link"


HIVE = [
    "lang=en/year=2024/no=007",
    "lang=__HIVE_DEFAULT_PARTITION__/year=2025/no=7",
    "lang=a%20b%2Fc=d/year=-1/no=x",
    "lang=漢",
]


def hive(odd: Odd) -> None:
    for folder in HIVE:
        odd.table(f"hive/{folder}/x.parquet", texts(2))
        odd.jsonl(
            f"hive/{folder}/y.jsonl",
            b'{"text": "hive"}\n{"text": null}',
            [{"text": "hive"}, {"text": None}],
            set(),
        )
    odd.table(
        "hive/lang=en/year=2024/no=1/own.parquet", texts(2).append_column("year", pa.array([1, 2], pa.int16()))
    )
    for folder in ("k=%FF", *not_unicode(b"k=\xff")):
        odd.table(f"hive/{folder}/x.parquet", texts(1), "UTF-8|Unicode")


def hidden(odd: Odd) -> None:
    never = pa.table({"text": ["hidden"], "hidden": ["hidden"]})
    for name in (".a.parquet", "_a.parquet", ".git/a.parquet", "_temporary/0/a.parquet", "names/._a.parquet"):
        Odd(odd.root).table(name, never)
    for name in ("README", "a.txt", "a.parquet.crc", "a.parquet.gz", "_SUCCESS", "data.json"):
        Odd(odd.root).bytes(name, b"no input")


def damaged(odd: Odd) -> None:
    sink, pick = pa.BufferOutputStream(), random.Random(0)
    rows = pa.table({"id": range(3000), "text": [pick.randbytes(20).hex() for _ in range(3000)]})
    pq.write_table(rows, sink, compression="snappy")
    whole = sink.getvalue().to_pybytes()
    middle = len(whole) // 2
    odd.bytes("bad/cut.parquet", whole[:middle], "cannot be read")
    odd.bytes("bad/page.parquet", whole[:middle] + bytes(5000) + whole[middle + 5000 :], "cannot be read")
    odd.bytes("bad/not.parquet", b"no Parquet at all" * 10, "cannot be read")
    odd.bytes("bad/zero.parquet", b"", "cannot be read")
    lines = b"".join(b'{"text": "%s"}\n' % pick.randbytes(20).hex().encode() for _ in range(3000))
    packed = {
        "gz": gzip.compress(lines),
        "bz2": bz2.compress(lines),
        "xz": lzma.compress(lines),
        "zst": pa.Codec("zstd").compress(lines, asbytes=True),
    }
    for ending, data in packed.items():
        odd.bytes(f"bad/cut.jsonl.{ending}", data[: len(data) // 2], "cannot be read")
        odd.bytes(f"bad/not.jsonl.{ending}", lines, "cannot be read")
    odd.bytes("bad/binary.jsonl", bytes(range(256)) * 20, "no line of it is a JSON object")
    os.mkfifo(odd.place("bad/fifo.parquet"))
    odd.bad["bad/fifo.parquet"] = "not a regular file"


def unlike(odd: Odd) -> None:
    """Undamaged files with values that the columns of the other files cannot hold."""
    table = pa.table({"text": ["a"]})
    odd.table("unlike/strings.parquet", table.append_column("w_int", [["007"]]), "'w_int' has type string")
    zoned = pa.array([0], pa.timestamp("us", "UTC"))
    odd.table(
        "unlike/zoned.parquet", table.append_column("w_naive", zoned), "'w_naive' has type timestamp.us, tz=UTC"
    )
    large = pa.array([2**53 + 1])
    odd.table("unlike/large.parquet", table.append_column("w_float64", large), "'w_float64' has a value")
    odd.table("unlike/no-text.parquet", pa.table({"body": ["a"]}), "no column 'text'")
    odd.table("unlike/number.parquet", pa.table({"text": [1]}), "'text' has type int64")
    odd.table(
        "unlike/twice.parquet",
        pa.Table.from_arrays([["a"], [1], [2]], ["text", "id", "id"]),
        "2 columns named 'id'",
    )
    odd.bytes("unlike/no-text.jsonl", b'{"id": 1}\n', "no line has a field 'text'")
    odd.bytes(
        "unlike/mixed.jsonl",
        b'{"text": "a", "j_int": 1}\n{"text": "b", "j_int": "1"}',
        "'j_int' mixes integers and strings .see row 1",
    )
    odd.bytes("unlike/mixed2.jsonl", b'{"text": "a", "j_word": {}}\n', "'j_word'")
