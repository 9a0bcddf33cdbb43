"""Count the page faults of allocations in a process, to see whether its allocator keeps freed memory."""

import resource

import torch


def count_page_faults() -> int:
    """Return the page faults of 50 allocations of 12 MB, after as many to warm up."""
    _allocate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    _allocate()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def _allocate() -> None:
    for _ in range(50):
        torch.ones(3_000_000)
