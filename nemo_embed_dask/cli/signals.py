"""Signals that stop a command. Imports only fast modules, because a signal may come during imports."""

from __future__ import annotations

import signal

# Windows has no SIGHUP, which is sent when a terminal is closed.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def stopping_signals() -> list[signal.Signals]:
    """Return the signals that stop a command, without those that ``nohup`` or ``&`` made it ignore."""
    signals = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    return [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
