"""Run each peer in a process of its own, so that a crash, a hang or a lost device costs one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .. import results
from . import Options, Run


def run_peer(phase: str, peer: str, cases: tuple[str, ...], options: Options, timeout: float) -> Iterator[Run]:
    """Yield one run per case. A case that fails gives a run with the reason as its field ``error``.

    The cases after it are measured in a new process. ``timeout``: the most seconds of one process.
    """
    left = list(cases)
    while left:
        for found in _run_process(phase, peer, left, options, timeout):
            yield {"peer": peer, "case": left.pop(0)} | found


def _run_process(phase: str, peer: str, cases: list[str], options: Options, timeout: float) -> list[Run]:
    """Return the runs of one process; the last has an error if the process ended before it had measured all."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows, log = Path(folder, "rows.jsonl"), Path(folder, "log")
        request = {
            "phase": phase,
            "peer": peer,
            "cases": cases,
            "options": options.to_json(),
            "rows": str(rows),
        }
        command = [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(request)]
        end = _wait(command, log, timeout)
        runs = results.read([rows]) if rows.is_file() else []
        if len(runs) < len(cases) and not any("error" in run for run in runs):
            runs.append({"error": f"{end}; {_last_line(log)}"[:300]})
        return runs


def _wait(command: list[str], log: Path, timeout: float) -> str:
    """Run a command with all processes that it starts, and return how it ended."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
