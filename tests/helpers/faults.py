"""Helpers for the fault tests: inputs, an undisturbed run to compare with, real processes to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet

ROOT = Path(__file__).resolve().parents[2]
# Python imports a `sitecustomize` module from its path when it starts.
SLOW = """
import time
import nemo_embed_dask.jobs.units.work as work

def attempt(*arguments, real=work.attempt):
    time.sleep(0.4)
    return real(*arguments)

work.attempt = attempt
"""
WORDS = "river stone cloud market violin engine harvest winter letter copper garden signal".split()
NAUGHTY = [
    "", " ", "\t\n\r", "\x00", "a\x00b", "\ufeffbom", "\u200b\u200c\u200d", "\u202eright to left", "\uffff",
    "e\u0301" * 50, "Z\u0351\u036b\u0343\u036a" * 80, "👩‍👩‍👧‍👦" * 30, "🇩🇪🇯🇵", "漢字かなカナ", "مرحبا بالعالم", "ﷺ" * 40,
    "DROP TABLE x; --", "<script>alert(1)</script>", "../../etc/passwd", "%s%n{0}${x}", "NaN", "null", "None",
    "[CLS] [SEP] [MASK] [PAD]", "<s></s><|end|>", "##ing ##", "1e999", "-0.0", "a" * 100_000, "word " * 20_000,
    "\\ud800", "\N{COMBINING ENCLOSING KEYCAP}", "\U0010ffff", "½⅓①", "ſﬁ", "İı", "ß" * 300, "\x1b[31mred", "\x7f\x80",
]  # fmt: skip


def text_of(i: int) -> str | None:
    rng = np.random.default_rng(i)
    return None if i % 37 == 5 else " ".join(rng.choice(WORDS, int(rng.integers(1, 20))))


def write_inputs(folder: Path, files: int = 8, rows: int = 60) -> Path:
    folder.mkdir(parents=True)
    for k in range(files):
        ids = list(range(k * rows, (k + 1) * rows))
        table = pa.table({"id": ids, "text": [text_of(i) for i in ids], "url": [f"u/{i}" for i in ids]})
        pq.write_table(table, folder / f"in-{k:02}.parquet", row_group_size=rows // 3)
    return folder


def stage(model: Path, **more) -> EmbeddingCreatorStage:
    return EmbeddingCreatorStage(model_identifier=str(model), autocast=False, **more)


def vectors(target: Path | str, filesystem=None) -> dict[int, tuple]:
    """id -> (text, url, vector or None), each id once, of all parts of a target."""
    return rows_by_id(pq.read_table(str(target), filesystem=filesystem))


def rows_by_id(table: pa.Table) -> dict[int, tuple]:
    """id -> (text, url, vector or None), each id once."""
    table = table.sort_by("id")
    ids = table["id"].to_pylist()
    assert len(ids) == len(set(ids)), "rows are doubled"
    column = table["embeddings"]
    rows = zip(table["text"].to_pylist(), table["url"].to_pylist(), column.to_pylist(), strict=True)
    return dict(zip(ids, rows, strict=True))


def assert_same(target: Path | str, expected: dict[int, tuple], filesystem=None) -> None:
    """All rows once, other columns untouched, vectors equal to those of an undisturbed run."""
    assert_same_rows(vectors(target, filesystem), expected)


def assert_same_rows(found: dict[int, tuple], expected: dict[int, tuple]) -> None:
    assert found.keys() == expected.keys()
    for i, (text, url, vector) in expected.items():
        assert found[i][:2] == (text, url)
        assert (vector is None) == (found[i][2] is None), (i, text)
        if vector is not None:
            np.testing.assert_allclose(found[i][2], vector, atol=2e-6)


def undisturbed(source: Path, target: Path, model: Path) -> dict[int, tuple]:
    report = embed_parquet(stage(model), str(source), str(target))
    assert report.complete and (target / "_SUCCESS").is_file()
    return vectors(target)


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **more}


def importing_from(folder: Path) -> dict[str, str]:
    """The variable with which a process imports modules from a folder before any other."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), environment()["PYTHONPATH"]])}


def slow(folder: Path) -> dict[str, str]:
    """The variable with which a process takes at least 0.4 s per unit, so that a test can interrupt it in time."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOW)
    return importing_from(folder)


def without_privileges(script: str, *arguments: object) -> str:
    """What a script prints in a process that has no right to read what its file modes deny, root's or not."""
    drop = [] if os.getuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", script, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def heed_signals() -> None:
    """Restore the default signal handlers in a new process: under nohup, for example, SIGHUP is ignored."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)


def start(*command: str, **more: str) -> subprocess.Popen:
    """A process in a group of its own, so that a signal reaches only it; ``more`` is for its environment."""
    return subprocess.Popen(
        [sys.executable, *command], env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True, preexec_fn=heed_signals,
    )  # fmt: skip


def job_command(source: Path, target: Path, model: Path, *more: str) -> tuple[str, ...]:
    return (
        "-m", "nemo_embed_dask", "run", str(source), str(target), "--model-identifier", str(model),
        "--no-autocast", "--rows-per-part", "20", *more,
    )  # fmt: skip


def wait_for_parts(target: Path, count: int, process: subprocess.Popen) -> None:
    """Wait until a job has committed so many parts, or has ended."""
    until = time.monotonic() + 90
    while len([*target.glob("*.parquet")]) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


@dataclass
class Cluster:
    """A scheduler and two workers as processes, as a user starts them by command line."""

    folder: Path
    scheduler: subprocess.Popen | None = None
    workers: list | None = None

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def start_scheduler(self) -> None:
        self.file.unlink(missing_ok=True)
        self.scheduler = self._start("scheduler", "--scheduler-file", str(self.file), "--port", "0",
                                     "--no-dashboard", "--host", "127.0.0.1")  # fmt: skip

    def start_worker(self, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        self.workers = [
            *(self.workers or []),
            self._start("worker", "--scheduler-file", str(self.file), "--nthreads", "1", "--no-dashboard",
                        "--no-nanny", "--death-timeout", "60", "--local-directory", str(self.folder), cwd=cwd, **more),
        ]  # fmt: skip
        return self.workers[-1]

    def _start(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]], env=environment(**more),
            cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def start(self, workers: int = 2) -> None:
        self.start_scheduler()
        for _ in range(workers):
            self.start_worker()

    def stop(self) -> None:
        for process in [*(self.workers or []), *([self.scheduler] if self.scheduler else [])]:
            process.kill()
            process.wait()
        self.workers, self.scheduler = [], None
