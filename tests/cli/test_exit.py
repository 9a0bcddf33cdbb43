"""How a command ends: whatever is raised is one line and a documented exit code, in real processes too."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemo_embed_dask import ModelError
from nemo_embed_dask.cli.main import DefaultGroup
from nemo_embed_dask.errors import TargetError
from nemo_embed_dask.jobs.files.target import Target
from nemo_embed_dask.jobs.report import make_report, save_report
from nemo_embed_dask.jobs.units.state import JobState

from ..helpers import faults


class Odd(Exception):
    def __str__(self):
        return ""


def nested(depth=0):
    return nested(depth + 1)


def exited(code):
    def leave():
        sys.exit(code)

    return leave


def grouped():
    raise ExceptionGroup("several", [ValueError("first\nsecond"), OSError("x")])


def thrown(error):
    def throw():
        raise error

    return throw


# What goes wrong -> what is told of it.
ENDS = {
    "of this package": (thrown(ModelError("no\n model")), "nemo-embed: no model\n"),
    "KeyError": (thrown(KeyError("x")), "KeyError: 'x'; "),
    "RuntimeError": (thrown(RuntimeError("first\nsecond")), "RuntimeError: first; "),
    "empty": (thrown(Odd()), "Odd; "),
    "assertion": (thrown(AssertionError()), "AssertionError; "),
    "group": (grouped, "ValueError: first, and 1 more errors; "),
    "SystemExit of a library": (exited(0), "SystemExit: 0; "),
    "SystemExit with a text": (exited("bye"), "SystemExit: bye; "),
    "cancelled": (thrown(CancelledError()), "CancelledError; "),
    "cancelled by asyncio": (thrown(asyncio.CancelledError()), "CancelledError; "),
    "recursion": (nested, "RecursionError: maximum recursion depth exceeded"),
    "memory": (thrown(MemoryError()), "MemoryError; "),
    "file": (lambda: Path("/nowhere/x\n").read_text(), r"/nowhere/x\n: No such file or directory; "),
    "no file": (thrown(OSError(errno.EIO, "Input/output error")), "nemo-embed: Input/output error; "),
    "a pipe of a library": (thrown(BrokenPipeError(errno.EPIPE, "Broken pipe")), "nemo-embed: Broken pipe; "),
    "secret": (thrown(TargetError("s3://a:SECRET@b/x?sig=SECRET")), "s3://***@b/x?sig=***"),
}


def ended(work, *flags, parts=0):
    """The end of a command that does ``work``, after its job has begun on so many parts."""

    @click.group(cls=DefaultGroup)
    def group():
        """A group like the real one."""

    @group.command()
    @click.pass_obj
    def run(ending):
        ending.state.parts, ending.state.started = parts, parts > 0
        work()

    return CliRunner().invoke(group, ["run", *flags])


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize(("parts", "code"), [(0, 2), (5, 3)])
def test_an_error_is_one_line_and_an_exit_code(kind, parts, code):
    work, told = ENDS[kind]
    result = ended(work, parts=parts)
    assert result.exit_code == code and result.stdout == ""
    assert told in result.stderr and result.stderr.endswith("\n")
    assert result.stderr.startswith("nemo-embed: ") and result.stderr[:-1].isprintable(), result.stderr
    assert "SECRET" not in result.stderr


@pytest.mark.parametrize("kind", ENDS)
def test_traceback_shows_where_it_arose(kind):
    work, told = ENDS[kind]
    result = ended(work, "--traceback")
    assert result.exit_code == 2 and "Traceback (most recent call last)" in result.stderr
    assert told in result.stderr.splitlines(keepends=True)[-1] and Path(__file__).name in result.stderr
    assert "SECRET" not in result.stderr


def test_what_went_well_or_was_wrong_with_the_command_line_stays_as_it_is():
    assert ended(lambda: None).exit_code == 0
    assert ended(lambda: click.get_current_context().exit(1)).exit_code == 1
    unknown = ended(lambda: None, "--nope")
    # click 8.2 and newer versions.
    options = ("nemo-embed: No such option: --nope (", "nemo-embed: No such option '--nope'")
    assert unknown.exit_code == 2 and unknown.stderr.startswith(options)
    assert unknown.stderr.endswith("run --help lists the flags)\n") and unknown.stderr.count("\n") == 1
    assert ended(lambda: None, "--help").exit_code == 0


SIGNALLED = """
import os, sys, time
from nemo_embed_dask.cli.exit import Ending, report_errors
ending = Ending()
ending.state.parts = 5
with report_errors(ending):
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(30)
"""


@pytest.mark.parametrize("number", faults.STOPPING)
def test_a_signal_says_what_to_do_next(number):
    """In a process of its own: other tests load libraries that share this one's signals."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(int(number))],
        env=faults.environment(),
        preexec_fn=faults.heed_signals,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 128 + number
    assert "stopped by SIG" in done.stderr
    assert "0 of 5 parts are whole: run the same command again" in done.stderr


def test_an_interrupt_that_a_library_raises_is_one_too():
    result = ended(thrown(KeyboardInterrupt()), parts=5)
    assert result.exit_code == 130 and "stopped by SIGINT" in result.stderr


# ---- the real command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A target that has a report and nothing else."""
    store = Target(str(tmp_path_factory.mktemp("report") / "out\udcff\n"))
    save_report(store, make_report(store.address, JobState(), {}), [])
    return store.address


def command(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "nemo_embed_dask", *arguments], env=faults.environment(), stderr=subprocess.PIPE,
        check=False, timeout=120, **more,
    )  # fmt: skip


@pytest.mark.parametrize("number", faults.STOPPING)
def test_a_signal_while_the_imports_run_is_one_line(number, tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "nemo_embed_dask", "in", "out"],
        env=faults.environment(**faults.importing_from(tmp_path)),
        preexec_fn=faults.heed_signals,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert process.stderr.read() == f"nemo-embed: stopped by {signal.Signals(number).name}\n"
    assert process.returncode == 128 + number


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = ended(lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 0


LOGGED = """
import logging, sys, warnings
from nemo_embed_dask.cli.exit import Ending, report_errors
with report_errors(Ending(traceback="--traceback" in sys.argv)):
    logging.getLogger("azure.identity").warning("many\\nlines")
    logging.getLogger("asyncio").error("more")
    logging.getLogger("nemo_embed_dask.jobs").warning("ours")
    raise ValueError("x")
"""


@pytest.mark.parametrize(("flags", "count"), [([], 2), (["--traceback"], 11)])
def test_what_libraries_log_is_shown_with_tracebacks_only(flags, count, tmp_path):
    script = tmp_path / "logged.py"  # of code after -c, tracebacks show the line since Python 3.13 only
    script.write_text(LOGGED)
    done = subprocess.run(
        [sys.executable, str(script), *flags], env=faults.environment(), capture_output=True, text=True
    )
    told = done.stderr.splitlines()
    assert "ours" in told and told[-1].startswith("nemo-embed: ValueError: x; ")
    assert len(told) == count and ("lines" in told) == bool(flags), done.stderr


def test_output_that_nobody_reads_ends_it_in_silence(target, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = command("report", target, "--picture", tmp_path / "x.png", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_one_line(target, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = command("report", target, "--picture", tmp_path / "x.png", stdout=full)
    assert done.returncode == 3
    assert done.stderr.startswith(b"nemo-embed: standard output cannot be written (No space left on device); ")
    assert done.stderr.count(b"\n") == 1


def test_any_name_can_be_printed(target, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1:strict")
    done = command("report", target, "--picture", tmp_path / "猫.png", stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"out\udcff\n" in done.stdout and rb"\u732b.png" in done.stdout


@pytest.mark.parametrize("flags", [("--traceback", "report"), ("report", "--traceback")])
def test_the_flag_may_stand_before_or_after_the_command(flags, tmp_path):
    done = command(*flags, tmp_path)
    assert (
        done.returncode == 2
        and b"Traceback" in done.stderr
        and b"is not the target of a job" in done.stderr.splitlines()[-1]
    )
