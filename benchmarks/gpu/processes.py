"""Run each peer in a process of its own, so that a crash, a hang or a lost device costs one run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from . import Options, Run

_stopped = False


def stop(*_: Any) -> None:
    """End the measurement soon; a handler of signals, in which an exception could be raised inside any lock."""
    global _stopped
    _stopped = True


def run_peer(phase: str, peer: str, cases: tuple[str, ...], options: Options, timeout: float) -> Iterator[Run]:
    """Yield one run per case, as soon as it is measured; one that fails has the reason as its field ``error``.

    The cases after it are measured in a new process. If the peer could not be loaded, has no time left, or
    failed twice in the same way, they get its reason. ``timeout``: the most seconds of all processes together.
    """
    left, end, kind = list(cases), time.monotonic() + timeout, ""
    while left:
        first, loaded, error, before = left[0], False, "", kind
        for found in _run_process(phase, peer, left, options, end):
            if "loaded" in found:
                loaded = True
                continue
            error = found.get("error", "")
            kind = re.split("[:;]", error)[0]
            again = left[0] == first and kind == before
            yield {"peer": peer, "case": left.pop(0)} | found
        if not loaded or again or time.monotonic() >= end:
            yield from ({"peer": peer, "case": case, "error": error} for case in left)
            return


def _run_process(phase: str, peer: str, cases: list[str], options: Options, end: float) -> Iterator[Run]:
    """Yield the runs of one process; the last has an error if the process ended before it had measured all."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows, log = Path(folder, "rows.jsonl"), Path(folder, "log")
        rows.touch()
        request = {
            "phase": phase,
            "peer": peer,
            "cases": cases,
            "options": options.to_json(),
            "rows": str(rows),
        }
        command = [sys.executable, "-m", "benchmarks.gpu.worker", json.dumps(request)]
        missing, start, how = len(cases), time.monotonic(), ""
        with rows.open(encoding="utf-8") as file, _process(command, log) as process:
            while not how:
                time.sleep(0.05)
                how = _how_it_ended(process, start, end)
                for run in _new_lines(file):
                    missing = 0 if "error" in run else missing - ("loaded" not in run)
                    yield run
        if missing:
            yield {"error": f"{how}; {_last_line(log)}"[:300]}


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; at the end, kill it with all processes that it started."""
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _how_it_ended(process: subprocess.Popen[bytes], start: float, end: float) -> str:
    """Return how a process ended or why it has to, or nothing if it may go on."""
    if _stopped:
        sys.exit(1)
    if (code := process.poll()) is not None:
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"stopped after {end - start:.0f} s" if time.monotonic() >= end else ""


def _new_lines(file: IO[str]) -> Iterator[Run]:
    """Yield the runs that were appended since the last call; the next call reads what is left of a line."""
    while True:
        place = file.tell()
        if not (line := file.readline()).endswith("\n"):
            file.seek(place)
            return
        yield json.loads(line)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
