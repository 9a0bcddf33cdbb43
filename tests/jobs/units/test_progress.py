"""The progress display: counts, rate, time left; one line on a terminal, many lines in a log."""

from __future__ import annotations

import io
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from nemo_embed_dask.jobs.files.file_identity import FileIdentity
from nemo_embed_dask.jobs.files.inputs import InputFile, Unit
from nemo_embed_dask.jobs.units.progress import Progress, format_count, format_duration
from nemo_embed_dask.jobs.units.progress_outputs import PlainOutput, TerminalOutput
from nemo_embed_dask.jobs.units.records import Record
from nemo_embed_dask.jobs.units.state import JobState
from nemo_embed_dask.jobs.units.work import Outcome
from nemo_embed_dask.stats import Stats

UNITS = [Unit(InputFile(name, "parquet", FileIdentity(100, "")), name, rows=10, size=100) for name in "abcd"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def done(unit):
    return Outcome(unit, "done", Record(unit.name, "", "", Stats(rows=10, tokens=1000)))


def test_the_line_has_documents_tokens_and_the_time_left():
    progress = Progress()
    state = JobState(parts=5, whole={"e": done(UNITS[0]).record})
    progress.begin(UNITS, state)
    state.whole["a"] = done(UNITS[0]).record
    progress.finished(done(UNITS[0]))
    progress.tick("b", 5, 500)
    line = progress.line(elapsed=30)
    assert line == " 38%  15 documents  1,500 tokens  50 tokens/s  2/5 parts  0:50 left"


def test_a_terminal_shows_one_line_and_a_log_many():
    for stream, rewritten in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream)
        progress.begin(UNITS, JobState(parts=4))
        progress.finished(Outcome(UNITS[0], "failed", reason="a: cannot be read"))
        progress.end()
        assert ("\r" in stream.getvalue()) == rewritten
        assert "a: cannot be read\n" in stream.getvalue()


def test_a_file_name_cannot_control_the_terminal_or_break_the_line():
    progress = Progress(stream := io.StringIO())
    progress.begin(UNITS, JobState(parts=4))
    progress.finished(Outcome(UNITS[0], "failed", reason="a\x1b[31m\nb: cannot be read"))
    assert stream.getvalue() == "a\\x1b[31m\\nb: cannot be read\n"


@pytest.mark.parametrize("documents", [10, 10**6, 10**12])
def test_the_line_fits_the_width_and_keeps_the_main_figures(documents):
    progress = Progress()
    whole = dict.fromkeys(map(str, range(99_996)), done(UNITS[0]).record)
    progress.begin(UNITS, JobState(parts=100_000, whole=whole))
    progress.tick("a", documents, documents * 150)
    longest = progress.line(3_600_000)
    assert progress.line(3_600_000, len(longest)) == longest, "nothing is left out without need"
    for width in range(40, 201):
        line = progress.line(3_600_000, width)
        assert len(line) <= width and line.startswith(" 25%") and line.endswith(" left"), line
        assert width < 44 or "99996/100000 parts" in line, line
        assert width < 80 or "documents" in line, line
    assert len(progress.line(3_600_000, 10)) <= 10


def test_numbers_are_shortened():
    numbers = (0, 999, 1000, 12_345, 1_234_567, 98_765_432_100, 3e12)
    assert [format_count(n) for n in numbers] == ["0", "999", "1.0k", "12.3k", "1.2M", "98.8B", "3.0T"]


def test_warnings_are_logged_if_nothing_is_shown(caplog):
    shown = Terminal()
    Progress(shown).warn("a worker is paused")
    assert shown.getvalue() == "\r\x1b[Ka worker is paused\n" and not caplog.records
    Progress().warn("a worker is paused")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message) == (
        "nemo_embed_dask",
        "WARNING",
        "a worker is paused",
    )


def test_durations_are_formatted():
    assert [format_duration(n) for n in (0, 61, 3723)] == ["0:00", "1:01", "1:02:03"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("output", [PlainOutput, TerminalOutput])
def test_a_full_disk_loses_lines_of_the_log_and_raises_nothing(output):
    full = Path("/dev/full").open("w")  # noqa: SIM115 - which cannot be closed either
    shown = output(full)
    for show in (shown.print_line, shown.show_state):
        show("a line")
    shown.end()
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_a_closed_pipe_ends_the_job():
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), os.fdopen(writing, "w") as pipe, pytest.raises(BrokenPipeError):
        PlainOutput(pipe).print_line("a line")


def test_a_slow_block_warns_and_one_with_progress_does_not(caplog):
    progress = Progress()
    with progress.warn_if_slow("at work on a.parquet", 2):
        for _ in range(30):
            progress.tick("a", 1, 1)
            time.sleep(0.1)
        assert not caplog.messages
        time.sleep(5)
    said = list(caplog.messages)
    assert said and all(line.endswith("at work on a.parquet") and "no progress for" in line for line in said)
    time.sleep(3)
    assert caplog.messages == said, "it goes on after the block"


def test_the_first_warning_may_come_earlier(caplog):
    progress = Progress()
    with progress.warn_if_slow("loading", 60, 0.1):
        time.sleep(1)
    assert [line.split(": ")[-1] for line in caplog.messages] == ["loading"]
