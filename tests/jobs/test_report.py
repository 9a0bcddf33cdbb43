"""The report of a job. If it is damaged or cannot be drawn, one line says what to do."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from nemo_embed_dask import JobError
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.report import REPORT, describe, load_report, make_report, save_report
from nemo_embed_dask.jobs.units.records import Record
from nemo_embed_dask.jobs.units.state import JobState
from nemo_embed_dask.stats import Stats


@pytest.fixture
def target(tmp_path):
    """A target with the report of a job of two parts, one of which failed."""
    store = Target(str(tmp_path / "out"))
    record = Record("a.parquet", "key", "in/a.parquet", Stats(rows=3, tokens=40), rows=3, worker="tcp://h:1")
    records = {"a.parquet": record}
    state = JobState(parts=2, started=True, whole=records, written=records, seconds=2.0)
    report = make_report(store.address, state, {"in/b.parquet": "no Parquet"})
    save_report(store, report, [record])
    return store


def report(*arguments):
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert result.exit_code in {0, 2}, result.output
    return result


def without(name):
    return lambda figures: json.dumps({key: value for key, value in figures.items() if key != name})


def replaced(name, value):
    return lambda figures: json.dumps(figures | {name: value})


DAMAGED = {
    "empty": lambda _: "",
    "cut": lambda figures: json.dumps(figures)[:100],
    "no JSON": lambda _: "PAR1" * 9,
    "no Unicode": lambda _: b"\xff\xfe\x00",
    "a list": lambda _: "[1, 2]",
    "null": lambda _: "null",
    "another shape": lambda _: '{"a": 1}',
    "deeply nested": lambda _: "[" * 100_000,
    "without total": without("total"),
    "without target": without("target"),
    "without parts": without("parts"),
    "parts are text": replaced("parts", "two"),
    "total is a list": replaced("total", [1]),
    "total has text": replaced("total", {"rows": "three"}),
    "failed is null": replaced("failed", None),
    "workers is a list": replaced("workers", [1]),
    "a worker without times": replaced("workers", {"w": {"model": 1.0}}),
    "times are text": replaced("workers", {"w": dict.fromkeys(("read", "tokenize", "model", "write"), "x")}),
    "seconds is text": replaced("seconds", "long"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_report_gives_a_one_line_error(kind, target, tmp_path):
    content = DAMAGED[kind](json.loads(target.read(REPORT)))
    target.write(REPORT, content if isinstance(content, bytes) else content.encode())
    result = report(target.address, "--picture", tmp_path / "x.png")
    assert result.exit_code == 2 and len(result.output.splitlines()) == 1, result.output
    assert f"{target.address}/{REPORT} is damaged (" in result.output
    assert "remove that one file and run the job's command again" in result.output


def test_a_report_is_read_back_as_it_was_written(target):
    found = load_report(target.address)
    assert (
        found.total.tokens == 40
        and found.rate("tokens") == 20
        and found.failed == {"in/b.parquet": "no Parquet"}
    )
    assert "1 of 2 whole" in describe(found) and found.workers["tcp://h:1"].keys() >= {"read", "model"}


def test_a_report_says_in_which_number_types_the_documents_were_computed(target):
    state = JobState(parts=2, started=True, seconds=2.0)
    for name, stats in {"a": {"float16": 1200, "float32": 1}, "b": {"float16": 30, "bfloat16": 7}}.items():
        state.whole[name] = Record(name, "key", name, Stats(rows=3, computed_in=stats))
    save_report(target, make_report(target.address, state, {}), [])
    found = load_report(target.address)
    assert found.total.computed_in == {"float16": 1230, "float32": 1, "bfloat16": 7}
    assert "computed in  float16 (1,230), bfloat16 (7), float32 (1)" in describe(found)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("r.foo", "the name of a picture must end in .png, .svg, .pdf, .jpg"),
        ("r", "the name of a picture must end in .png, .svg, .pdf, .jpg"),
        ("nowhere/r.png", "nowhere/r.png cannot be written (No such file or directory); choose another place"),
        ("file/r.png", "file/r.png cannot be written (Not a directory); choose another place"),
        ("/proc/r.png", "/proc/r.png cannot be written ("),
    ],
)
def test_a_picture_that_cannot_be_drawn_gives_a_one_line_error(picture, message, target, tmp_path):
    (tmp_path / "file").touch()
    result = report(target.address, "--picture", tmp_path / picture)
    assert result.exit_code == 2, result.output
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("picture", ["r.png", "r.SVG", "r.pdf"])
def test_the_ending_of_the_picture_decides_its_format(picture, target, tmp_path):
    assert report(target.address, "--picture", tmp_path / picture).exit_code == 0
    assert (tmp_path / picture).stat().st_size > 1000


def test_a_report_hides_secrets_of_the_address():
    made = make_report("ftp://me:SECRET@host/out", JobState(), {})
    assert made.target == "ftp://***@host/out" and "SECRET" not in describe(made)


def test_control_characters_in_a_folder_name_are_escaped(target):
    lines = describe(make_report("/a\nb\x1b[31m", JobState(), {})).splitlines()
    assert (
        lines[0].endswith(r"/a\nb\x1b[31m")
        and len(lines) == len(describe(load_report(target.address)).splitlines()) - 1
    )


def test_a_missing_report_is_an_error(tmp_path):
    with pytest.raises(JobError, match="is not the target of a job; name the folder that a job writes to"):
        load_report(str(tmp_path))
    (tmp_path / "_nemo_embed").mkdir()
    (tmp_path / "_nemo_embed" / "manifest.json").write_text("{}")
    with pytest.raises(
        JobError, match="has no report yet, because no run of its job has ended; nemo-embed errors"
    ):
        load_report(str(tmp_path))


def test_a_run_that_was_stopped_says_how_to_continue():
    lines = describe(make_report("/out", JobState(parts=5), {})).splitlines()
    assert lines[1].split(None, 1) == [
        "parts",
        "0 of 5 whole, 0 by this run: run the job's command again to continue",
    ]
    assert "to continue" not in describe(make_report("/out", JobState(parts=5), {"bad.parquet": "is damaged"}))
