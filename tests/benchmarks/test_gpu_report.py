"""Goals and tables of the GPU benchmark, from runs that are made up; and a measurement from start to end."""

from __future__ import annotations

import copy

import pytest
from click.testing import CliRunner

from benchmarks import bench_gpu, results
from benchmarks.gpu import report

MACHINE = {"gpu": "a card", "cpu": "a CPU", "cores": 16, "torch": "2.11.0", "cuda": "13.0"}


def a_run(phase, peer, case="stories", **more):
    return {
        "date": "2026-12-01T10:00:00",
        "phase": phase,
        "peer": peer,
        "case": case,
        "machine": MACHINE,
    } | more


RUNS = [
    a_run("scaling", "ours, parquet to parquet, cudf, 1 workers", documents_per_s=30_000.0, device_idle=0.4),
    a_run(
        "scaling",
        "ours, parquet to parquet, cudf, 4 workers",
        documents_per_s=40_800.0,
        device_idle=0.1,
        cosine_min=0.9999,
        computed_in={"float16": 10, "float32": 1},
        matmul_tflops=700.4,
    ),
    a_run("peers", "sentence-transformers, fp16, 256", documents_per_s=5000.0),
    a_run("peers", "sentence-transformers, fp16, 1024", documents_per_s=8160.0),
    a_run("peers", "sentence-transformers, fp16, 1024, flash", error="killed by SIGABRT; a | b"),
    a_run("peers", "sentence-transformers, fp16, 1024", case="short", documents_per_s=99_999.0),
    a_run("peers", "ours, model alone", case="long", matmul_share=0.4),
    a_run("peers", "ours, model alone", matmul_share=0.6),
    a_run("peers", "wrong", cosine_min=0.5),
]


def test_goals_are_computed_from_runs():
    text = "\n".join(report.goals(RUNS))
    for part in (
        "20.0 x Curator's 2040",
        "5.0 x sentence-transformers, fp16, 1024, the best",
        "idle 10%",
        "40% of the matmul",
        "{'wrong': 0.5}",
    ):
        assert part in text
    assert len(report.goals([])) == 1


def test_the_defaults_of_a_peer_are_not_called_its_best():
    reference = a_run("scaling", report.REFERENCE, documents_per_s=1500.0, cosine_min=1.0)
    assert "sentence-transformers" not in "\n".join(report.goals([*RUNS[:2], reference])[:-1])
    assert "5.0 x sentence-transformers, fp16, 1024" in "\n".join(report.goals([*RUNS, reference]))


def test_a_line_of_a_run_is_short_and_has_its_figures():
    assert report.line(RUNS[1]) == (
        "ours, parquet to parquet, cudf, 4 workers; stories: docs/s 40,800, device idle 10%, cosine min 0.999900"
    )
    assert report.line(RUNS[4]).endswith("flash; stories: killed by SIGABRT; a | b")


def test_the_report_has_a_table_for_each_phase(tmp_path):
    path = tmp_path / "gpu-1.jsonl"
    for run in RUNS:
        results.append(path, run)
    done = CliRunner().invoke(report.main, [str(path)], catch_exceptions=False)
    lines = done.output.splitlines()
    scaling, peers = (lines.index(f"### {phase}") for phase in ("scaling", "peers"))
    assert lines[scaling + 2] == "2026-12-01, a card, 16 cores; torch 2.11.0, cuda 13.0."
    best = next(line for line in lines if "4 workers" in line)
    assert best == (
        "| ours, parquet to parquet, cudf, 4 workers | stories | float16, float32 | 40,800 | - | - | - | 10% | - "
        "| 0.999900 |  |"
    )
    table = [line for line in lines[peers:] if line.startswith("|")]
    assert len(table) == 2 + 7
    assert table[4].endswith("| killed by SIGABRT; a \\| b |")
    assert {line.replace("\\|", "").count("|") for line in table} == {table[0].count("|")}
    assert lines[-5].startswith("- end to end 20.0 x")


def test_only_todays_runs_of_this_machine_are_compared_with_the_goals(tmp_path, monkeypatch):
    today, other = copy.deepcopy(RUNS[0]), copy.deepcopy(RUNS[0])
    today["date"] = bench_gpu.dt.datetime.now(bench_gpu.dt.UTC).isoformat()
    other |= {"date": today["date"], "machine": MACHINE | {"gpu": "another card"}}
    for i, run in enumerate([RUNS[0], other, today]):
        results.append(tmp_path / f"gpu-{i}.jsonl", run)
    assert bench_gpu.runs_today(tmp_path, MACHINE) == [today]


@pytest.mark.slow
def test_a_measurement_end_to_end(data_dir, tmp_path):
    flags = "peers --scale 0.0001 --seconds 0 --peer defaults --peer model --case short".split()
    done = CliRunner().invoke(bench_gpu.main, [*flags, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "2 peers, about 0.4 minutes" in done.output
    runs = results.read(tmp_path.glob("gpu-peers-*.jsonl"))
    assert [(run["peer"], run["case"]) for run in runs] == [
        ("sentence-transformers, defaults", "short"),
        ("ours, model alone", "short"),
    ]
    for run in runs:
        assert run["cosine_min"] > 0.995
        assert run["rows"] == 60
        assert run["machine"]["torch"]
    assert runs[1]["device_idle"] == pytest.approx(0.0, abs=0.9)
    assert "peers with a cosine below 0.995" in done.output
