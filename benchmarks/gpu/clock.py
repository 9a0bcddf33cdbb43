"""Time on the device: when it is done, and when it ran the model.

The driver's counter of utilization samples over up to a second. Instead, an event is recorded on the stream
before and after each call of the model. The times between are those in which the device runs the model, gaps
between its kernels included. On a CPU the host's clock is used in place of events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch

from nemo_embed_dask.engine import Model

from . import DEVICE

Interval = tuple[float, float]


def wait_for_device() -> None:
    """Wait until the device has finished everything that this process queued."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def clocked(work: Callable[[], Any]) -> float:
    """Return the seconds that the work takes, until the device is done."""
    wait_for_device()
    start = time.perf_counter()
    work()
    wait_for_device()
    return time.perf_counter() - start


def _mark() -> Any:
    """Return an event that has been recorded on the stream, or the host's time on a CPU."""
    if DEVICE.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class Recorder:
    """Records when the device runs some functions, in seconds of ``time.perf_counter``.

    On Linux this clock is the same in all processes, so that the intervals of several workers can be combined.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[Any, Any]] = []
        self._start: tuple[Any, float] | None = None

    def start(self) -> None:
        """Forget what was recorded. The device is idle now, so that its clock can be set to the host's."""
        wait_for_device()
        mark = _mark()
        wait_for_device()
        self._start = mark, time.perf_counter()
        self._marks = []

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a mark before and after what it queues on the device."""

        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            first = _mark()
            try:
                return function(*arguments, **options)
            finally:
                self._marks.append((first, _mark()))

        return call

    def intervals(self) -> list[Interval]:
        """Return when the device began and ended each call since the start."""
        wait_for_device()
        return [(self._seconds(first), self._seconds(last)) for first, last in self._marks]

    def _seconds(self, mark: Any) -> float:
        if DEVICE.type != "cuda":
            return mark
        mark_at_start, seconds = self._start
        return seconds + mark_at_start.elapsed_time(mark) / 1e3


RECORDER = Recorder()


def watch_engine() -> None:
    """Record each forward pass of our engine in this process: the transformer and the head."""
    if not hasattr(Model.vectors, "__wrapped__"):
        Model.vectors = RECORDER.timed(Model.vectors)


def start() -> None:
    """Start the recorder of this process; a function, so that Dask can run it on workers."""
    RECORDER.start()


def intervals() -> list[Interval]:
    """Return the intervals of this process."""
    return RECORDER.intervals()


def idle_fraction(found: Iterable[Interval], first: float, last: float) -> float:
    """Return the fraction of the time from ``first`` to ``last`` that lies in none of the intervals."""
    busy, end = 0.0, first
    for start_s, end_s in sorted(found):
        begin, end_s = max(start_s, end), min(end_s, last)
        busy += max(0.0, end_s - begin)
        end = max(end, end_s)
    return 1 - busy / (last - first)
