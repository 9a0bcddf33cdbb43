"""A progress display that records a job's messages."""

from __future__ import annotations

import re
import time

from nemo_embed_dask.jobs.units.progress import Progress


class Recorder(Progress):
    """Records messages with their times, and calls a function when the first part is finished."""

    def __init__(self, at_first_part=lambda: None):
        super().__init__()
        self.times, self.messages, self._at_first_part = [], [], at_first_part

    def info(self, line):
        self.times.append(time.monotonic())
        self.messages.append(line)

    def finished(self, outcome):
        act, self._at_first_part = self._at_first_part, lambda: None
        act()
        super().finished(outcome)

    def matching(self, pattern):
        return [line for line in self.messages if re.search(pattern, line)]
