"""A progress display that records a job's messages."""

from __future__ import annotations

import re
import time

from nemo_embed_dask.jobs.units.progress import Progress


def _nothing() -> None:
    pass


class Recorder(Progress):
    """Records messages with their times.

    Calls one function when the first part is finished, and one at the first message that matches ``pattern``: each
    once, so that a test on a slow machine does not start more and more workers.
    """

    def __init__(self, at_first_part=_nothing, *, pattern="", at_message=_nothing):
        super().__init__()
        self.times, self.messages = [], []
        self._at_first_part, self._pattern, self._at_message = at_first_part, pattern, at_message

    def info(self, line):
        self.times.append(time.monotonic())
        self.messages.append(line)
        if re.search(self._pattern, line):
            act, self._at_message = self._at_message, _nothing
            act()

    def finished(self, outcome):
        act, self._at_first_part = self._at_first_part, _nothing
        act()
        super().finished(outcome)

    def matching(self, pattern):
        return [line for line in self.messages if re.search(pattern, line)]
