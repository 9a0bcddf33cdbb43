"""`nemo-embed` on a real terminal: what it prints there, and Ctrl-C, which reaches all of its processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..helpers import faults
from ..helpers.slow import slow

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs Linux: processes are found in /proc"
)


def members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


class Terminal:
    """A process in the foreground of a new terminal, and what the terminal shows."""

    def __init__(self, *command: str, columns: int = 80, **more: str) -> None:
        self._own, other = pty.openpty()
        os.set_blocking(self._own, False)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        def take_terminal():
            os.setsid()
            faults.heed_signals()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, *command], env=faults.environment(**more), stdin=other, stdout=other, stderr=other,
            preexec_fn=take_terminal,
        )  # fmt: skip
        os.close(other)
        self.shown = ""

    def press(self, key: bytes) -> None:
        os.write(self._own, key)

    def read(self, until, patience: float = 90) -> bool:
        """Read until a condition holds, or the process has ended and all is read."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            try:
                while data := os.read(self._own, 65536):
                    self.shown += data.decode(errors="replace")
            except OSError:  # nothing there, or closed
                pass
            if until() or ended:
                return until()
            time.sleep(0.05)
        return False

    def close(self) -> None:
        os.close(self._own)


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM, signal.SIGHUP)])
def test_a_signal_to_all_processes_ends_them_without_a_traceback(number, tiny, tmp_path):
    """As a terminal sends them: SIGINT for Ctrl-C, SIGHUP when it is closed."""
    source = faults.write_inputs(tmp_path / "in", files=40, rows=60)
    target = tmp_path / "out"
    command = faults.job_command(source, target, tiny("bert"), "--workers", "2", "--threads", "1")
    terminal = Terminal(*command, **faults.slow(tmp_path / "slow"))
    try:
        session = terminal.process.pid
        assert terminal.read(lambda: any(target.glob("*.parquet"))), terminal.shown
        running = members(session)
        assert len(running) >= 3, "the command and two workers share the terminal"
        if number == signal.SIGINT:
            terminal.press(b"\x03")
        else:
            os.killpg(session, number)
        assert terminal.read(lambda: terminal.process.poll() is not None, 60), terminal.shown
        terminal.read(lambda: False, 1)
    finally:
        terminal.process.kill()
        terminal.close()
    assert terminal.process.returncode == 128 + number, terminal.shown
    assert "Traceback" not in terminal.shown, terminal.shown
    assert f"stopped by {number.name}" in terminal.shown, terminal.shown
    until = time.monotonic() + 20
    while members(session) and time.monotonic() < until:
        time.sleep(0.1)
    assert not members(session), "a worker is left"


@pytest.mark.parametrize("columns", [44, *slow(80)])
def test_the_line_never_wraps(columns, tiny, tmp_path):
    source = faults.write_inputs(tmp_path / "in")
    command = faults.job_command(source, tmp_path / "out", tiny("bert"), "--workers", "1")
    terminal = Terminal(*command, columns=columns)
    try:
        assert terminal.read(lambda: terminal.process.poll() == 0), terminal.shown
        terminal.read(lambda: False, 1)
    finally:
        terminal.process.kill()
        terminal.close()
    shown = [line.partition("\r")[0] for line in terminal.shown.split("\r\x1b[K")[1:]]
    # A message is not a state of the line; a slow machine shows this one.
    states = [line for line in shown if ": waiting until 1 worker has " not in line]
    assert states[-1].startswith("100%") and "24/24 parts" in states[-1], terminal.shown
    assert max(map(len, states)) < columns, states
