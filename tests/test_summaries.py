"""Results in a notebook: an HTML table with the lines of the text, in which every value is escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from nemo_embed_dask import Plan, Report, Verdict
from nemo_embed_dask.stats import Stats

NASTY = "<script>alert('1')</script><b>&amp;\"$x$"
STEPS = {"read": 1.0, "tokenize": 2.0, "model": 3.0, "write": 4.0}
WORKERS = {"tcp://h:1": STEPS, "tcp://h:2": STEPS}
PLAN = Plan(
    rows=1000,
    sample=100,
    dimension=8,
    workers=2,
    tokens=(9.5, 10.5),
    truncated=(0.0, 0.05),
    tokens_per_s=(1e3, 2e3),
    hours=(0.001, 0.002),
    memory=3 * 10**8,
    output={"float32": 32_000_000, "int8": 8_000_000},
    max_rows_per_partition=300,
    partition_rows=500,
    device_memory={"weights": 10**9, "vectors": 5 * 10**8},
)
VERDICT = Verdict(
    rows=2,
    minimum=0.5,
    mean=0.75,
    worst=[(1, 0.5), (0, 1.0)],
    norms=(1.0, 1.0),
    failed=[1],
    truncated=0.5,
    threshold=0.999,
    no_third_opinion=NASTY,
    texts=["fine", NASTY],
)
REPORT = Report(
    target=f"/{NASTY}/out",
    parts=3,
    parts_whole=2,
    seconds=2.0,
    total=Stats(rows=7, tokens=70),
    run=Stats(rows=7, tokens=70),
    failed={f"in/{NASTY}.parquet": f"no Parquet: {NASTY}"},
    workers=WORKERS,
)


def tables(result):
    """The captions and rows of a result's tables, as a parser for XML reads them; it has nothing else."""
    root = ElementTree.fromstring(f"<div>{result._repr_html_()}</div>")
    assert {element.tag for element in root.iter()} == {"div", "table", "caption", "tbody", "tr", "th", "td"}
    assert {name for element in root.iter() for name in element.attrib} == {"class", "style", "scope"}
    return [
        (
            table.findtext("caption"),
            {row.findtext("th"): row.findtext("td") for row in table.findall("tbody/tr")},
        )
        for table in root
    ]


def words(text):
    return re.findall(r"\S+", text)


@pytest.mark.parametrize("result", [PLAN, VERDICT])
def test_the_table_of_a_check_has_the_lines_of_its_text(result):
    ((caption, rows),) = tables(result)
    text = "\n".join([caption, *(f"{name}: {value}" for name, value in rows.items())])
    assert words(text) == words(str(result))


def test_the_table_of_a_report_has_the_lines_of_its_text_and_its_failed_inputs():
    (caption, rows), (_, failed) = tables(REPORT)
    assert caption == "job not complete"
    assert words("\n".join(f"{name} {value}" for name, value in rows.items())) == words(str(REPORT))
    assert failed == REPORT.failed


def test_figures_are_in_the_tables():
    ((caption, rows),) = tables(PLAN)
    assert caption.startswith("1,000 rows") and rows["tokens per row"] == "9.5 to 10.5"
    assert rows["GPU memory"].startswith("1.50 GB (weights 1.00, vectors 0.50)")
    assert rows["output as int8"] == "0.008 GB" and rows["rows per partition"].endswith(
        "(TOO LARGE: repartition)"
    )
    ((caption, rows),) = tables(VERDICT)
    assert caption.startswith("FAILED: 2 texts") and rows["cosine to sentence-transformers"] == NASTY
    assert rows["worst rows"].splitlines() == [f"  1: 0.5000000 {NASTY!r}", "  0: 1.0000000 'fine'"]
    (_, rows), _ = tables(REPORT)
    assert rows["target"] == REPORT.target and rows["tokens/s"] == "35"


def test_names_of_files_that_no_notebook_could_store():
    (_, _), (_, failed) = tables(Report("/out", failed={"in/\udcff\n.parquet": "gone\x1b[31m"}))
    assert failed == {r"in/\udcff\n.parquet": r"gone\x1b[31m"}


def test_only_some_of_many_failed_inputs_are_shown():
    (_, _), (_, failed) = tables(Report("/out", failed={f"in/{i}": "no Parquet" for i in range(1020)}))
    assert len(failed) == 21 and failed["..."] == "1,000 more, listed by nemo-embed errors"


def test_a_report_that_is_complete_has_one_table():
    ((caption, _),) = tables(Report("/out", parts=1, parts_whole=1))
    assert caption == "job complete"


def test_a_report_is_plotted_with_the_seconds_of_each_worker():
    figure = REPORT.plot()
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["h:1", "h:2"]
    ends = {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}
    assert ends == {name: [seconds, seconds] for name, seconds in STEPS.items()}
