"""Peers of the GPU benchmark in processes of their own: a peer that dies costs one run."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks import bench_gpu
from benchmarks.gpu import Options
from benchmarks.gpu.processes import run_peer

from ..helpers.slow import slow

BAD = "tests.benchmarks.bad_peers"


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("is_killed", "killed by SIGKILL; the last words"),
        *slow(
            ("exits", "ended with exit code 3; it printed nothing"),
            ("raises", "ValueError: the device is lost"),
        ),
    ],
)
def test_a_peer_that_dies_costs_one_run(peer, reason, tmp_path):
    runs = list(run_peer(BAD, peer, ("a", "bad", "b"), Options(0.5, 0, tmp_path), timeout=100))
    assert [run["case"] for run in runs] == ["a", "bad", "b"]
    assert runs[1] == {"peer": peer, "case": "bad", "error": reason}
    assert runs[0]["process"] != runs[2]["process"]
    assert runs[2]["scale"] == 0.5


@pytest.mark.slow
def test_a_peer_that_hangs_is_stopped_with_its_children(tmp_path):
    (run,) = run_peer(BAD, "hangs", ("bad",), Options(1, 0, tmp_path), timeout=20)
    child = int(re.fullmatch(r"stopped after 20 s; (\d+)", run["error"])[1])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("peer", "cases", "processes"),
    [("exits", ("bad", "b", "bad", "bad"), 3), *slow(("raises", ("a", *["bad"] * 7), 2))],
)
def test_a_peer_that_fails_twice_in_the_same_way_is_given_up(peer, cases, processes, tmp_path, monkeypatch):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **b: started.append(a) or start(*a, **b))
    runs = list(run_peer(BAD, peer, cases, Options(1, 0, tmp_path), timeout=100))
    assert [run["case"] for run in runs] == list(cases)
    assert ["error" in run for run in runs] == [case == "bad" for case in cases]
    assert len(started) == processes


@pytest.mark.parametrize("peer", [*slow("hangs"), "is_never_loaded"])
def test_all_cases_of_a_peer_end_by_one_deadline(peer, tmp_path):
    start = time.monotonic()
    runs = list(run_peer(BAD, peer, ("bad",) * 3, Options(1, 0, tmp_path), timeout=15))
    assert time.monotonic() - start < 20
    assert len(runs) == 3
    assert {run["error"][:18] for run in runs} == {"stopped after 15 s"}


def test_a_run_is_given_before_the_next_one_is_measured(tmp_path):
    runs = run_peer(BAD, "hangs", ("a", "bad"), Options(1, 0, tmp_path), timeout=50)
    start = time.monotonic()
    assert next(runs)["case"] == "a"
    assert time.monotonic() - start < 40
    runs.close()


def test_a_measurement_that_is_stopped_ends_its_peer(tmp_path):
    code = f"from benchmarks import bench_gpu as b; b.PHASES['ways'] = {BAD!r}; b.main(['ways', '--out', {str(tmp_path)!r}])"
    process = psutil.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(found := process.children(recursive=True)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(found) == 2  # the worker and its child
    process.terminate()
    assert process.wait(30) == 1
    _, alive = psutil.wait_procs(found, 10)
    assert not alive


def test_a_peer_that_cannot_be_loaded_has_an_error_in_each_run(tmp_path):
    runs = list(run_peer("benchmarks.gpu.peers", "unknown", ("a", "b"), Options(1, 0, tmp_path), timeout=100))
    assert [run["error"] for run in runs] == ["KeyError: 'unknown'"] * 2


def test_no_peer_is_started_that_would_not_end_in_time(tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    options = Options(1, 5, tmp_path)
    bench_gpu.measure("peers", {"x": ("stories",)}, options, path=path, minutes=0.1, common={})
    assert not path.exists()
    assert "peers, x: not started, because 6 s are left of 19" in capsys.readouterr().out
