"""Signals that ask a command to stop. Imports nothing that takes long: they may come while imports run."""

from __future__ import annotations

import signal

# Windows has no SIGHUP, which is sent when a terminal is closed.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def stopping_signals() -> list[signal.Signals]:
    """List them without those that this process is to ignore, as ``nohup`` or a shell's ``&`` ask for."""
    signals = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
