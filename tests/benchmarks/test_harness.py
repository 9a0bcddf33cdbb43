"""The benchmark harness: vectors of peers, measurements of runs, tables and pictures."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import transformers
from click.testing import CliRunner

from benchmarks import bench_cpu, bench_dask_layer, bench_job_overhead, machine, plot, results, summarize
from benchmarks.peers import PEERS, REFERENCE, curator

from ..helpers.tiny import TEXT
from ..helpers.versions import NEEDS_OPENVINO

ENGINE = "ours float32, engine"


def a_run(peer, turn, speed, **more):
    return {
        "peer": peer,
        "round": turn,
        "corpus": "c",
        "dtype": "float32",
        "rows": 10,
        "tokens": 1000,
        "tokens_per_s": speed,
        "cosine_min": 0.9,
        "cosine_mean": 0.95,
        "matmul_gflops": 50.0,
        "date": "2026-01-01",
        "machine": {"cpu": "x", "cores": 2, "amx_bf16": False, "avx512_bf16": True},
        **more,
    }


RUNS = [a_run(REFERENCE, i, s) for i, s in enumerate((10.0, 20.0, 40.0))] + [
    a_run(ENGINE, i, s, cosine_min=0.5 + i / 10) for i, s in enumerate((20.0, 50.0, 120.0))
]


@pytest.mark.filterwarnings("ignore")  # OpenVINO traces with torch.jit, which torch deprecates
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("openvino bfloat16", marks=NEEDS_OPENVINO),
        pytest.param("openvino float32", marks=[NEEDS_OPENVINO, pytest.mark.slow]),
        "curator's algorithm",
        ENGINE,
    ],
)
def test_a_peer_gives_the_reference_vectors(name, minilm, monkeypatch):
    pytest.importorskip(PEERS[name].module if name.startswith("openvino") else "torch")
    monkeypatch.setattr(curator, "ROWS", 3)  # several batches, whose rows must come back in order
    texts = [*TEXT, "short", " ".join(TEXT * 9)]
    expected = PEERS[REFERENCE].load()(texts)
    out = PEERS[name].load()(texts)
    similarity = bench_cpu.cosines(out.vectors, expected.vectors)
    assert similarity.min() > (0.99999 if PEERS[name].dtype == "float32" else 0.995)
    assert np.allclose(np.linalg.norm(out.vectors, axis=1), 1, atol=1e-3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    ids = tokenizer(texts, truncation=True, max_length=256).input_ids
    assert out.padded >= sum(map(len, ids))


@pytest.mark.parametrize(
    "flags",
    [("--parts", "2", "5", "--in-process"), ("--parts", "3", "--scheduler-apart"), ("--bookkeeping", "4")],
    ids=["process", "cluster", "bookkeeping"],
)
def test_the_overhead_of_jobs_is_measured(flags, tmp_path):
    command = [sys.executable, bench_job_overhead.__file__, *flags, "--out", tmp_path / "runs.jsonl"]
    subprocess.run(command, check=True, timeout=300)
    runs = results.read([tmp_path / "runs.jsonl"])
    assert [run["parts"] for run in runs] == [int(flag) for flag in flags if flag.isdigit()]


def test_flops_match_the_weights_and_the_attention_of_the_model():
    config = transformers.BertConfig(
        vocab_size=10, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20
    )
    encoder = transformers.BertModel(config, add_pooling_layer=False).encoder
    weights = sum(p.numel() for p in encoder.parameters() if p.ndim == 2)
    lengths = np.array([5, 2])
    attention = 3 * 2 * 2 * 8 * (25 + 4)  # layers, two products, multiply and add, width, pairs
    assert machine.flops(config.to_dict(), lengths) == 2 * weights * 7 + attention


def test_peak_memory_counts_from_the_last_reset():
    _ = np.ones(1 << 26, dtype=np.uint8)
    del _
    machine.reset_peak()
    before = machine.peak_mib()
    block = np.ones(1 << 26, dtype=np.uint8)
    assert 55 < machine.peak_mib() - before < 90, block.nbytes
    machine.reset_peak()


@pytest.mark.slow
def test_a_measurement_end_to_end(data_dir, tmp_path):
    options = {"rounds": 2, "rows": 12, "corpus": "short_wordnet", "peer": ENGINE, "out": tmp_path}
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", str(value))]
    done = CliRunner().invoke(bench_cpu.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    runs = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [(run["round"], run["peer"]) for run in runs] == [
        (0, REFERENCE),
        (0, ENGINE),
        (1, ENGINE),
        (1, REFERENCE),
    ]
    for run in runs:
        assert run["cosine_min"] > 0.99999
        assert run["tokens_per_s"] == pytest.approx(run["tokens"] / run["seconds"], rel=1e-2)
        assert 0 <= run["padding_waste"] < 1
        assert run["matmul_share"] > 0
        assert run["peak_mib"] > 100


def test_ratios_are_taken_within_a_round():
    assert summarize.ratios(RUNS[3:], RUNS[:3]) == [2.0, 2.5, 3.0]
    line = next(line for line in summarize.table(RUNS).splitlines() if ENGINE in line)
    assert "| 50 | 2.50 (2.00 to 3.00) |" in line
    assert line.endswith("| 0.500000 |")


def test_the_plot_is_a_png_file(tmp_path):
    plot.picture(RUNS, tmp_path / "cpu.png")
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_read_and_grouped(tmp_path):
    for run in RUNS:
        results.append(tmp_path / "cpu-1.jsonl", run)
    groups = results.group_by(results.read([tmp_path / "cpu-1.jsonl"]), "peer")
    assert {key: len(group) for key, group in groups.items()} == {(REFERENCE,): 3, (ENGINE,): 3}
    assert results.median_of(groups[REFERENCE,], "tokens_per_s") == 20
    assert results.median_of(groups[REFERENCE,], "share_model") is None


def test_paired_measurements_alternate():
    calls = []
    bench_dask_layer.paired(lambda: calls.append("a"), lambda: calls.append("b"), 2)
    assert "".join(calls) == "ab" + "ba" + "ab"
