"""95 % intervals of a mean and of a fraction."""

from __future__ import annotations

from typing import Any

import numpy as np

Interval = tuple[float, float]


def mean_interval(values: Any) -> Interval:
    """Return the 95 % interval of the mean; its lower end is at least a tenth of the mean."""
    mean, error = float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return max(mean / 10, mean - error), mean + error


def fraction_interval(hits: int, count: int) -> Interval:
    """Return Wilson's 95 % interval of a fraction, which is also right near 0 and 1."""
    z, p = 1.96, hits / count
    centre, spread = p + z * z / (2 * count), z * (p * (1 - p) / count + z * z / (4 * count * count)) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
