"""The flags that set where a job runs, and the cluster that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .headings import Flag

if TYPE_CHECKING:
    from distributed import Client

    from ..jobs.run import Cluster
    from ..stages import EmbeddingCreatorStage

Command = Callable[..., Any]
# The flags of a local cluster, with their defaults.
_LOCAL: dict[str, Any] = {"workers": None, "threads": None, "memory_limit": "auto"}


def _memory(_: click.Context, __: click.Parameter, value: str) -> str:
    """Check a memory size as Dask reads it."""
    if value != "auto":
        from ..clusters.processes import memory_problem  # Dask takes a while to import

        if problem := memory_problem(value):
            raise click.BadParameter(f"{value!r} {problem}")
    return value


def cluster_flags(command: Command) -> Command:
    """Add the flags that set where a job runs."""
    option = partial(click.option, cls=Flag, group="Cluster")
    options = [
        option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a running Dask cluster, such as tcp://host:8786.",
        ),
        option(
            "--scheduler-file",
            type=click.Path(),
            help="File that the scheduler of a running cluster wrote.",
        ),
        option(
            "--workers",
            type=click.IntRange(1),
            default=_LOCAL["workers"],
            help="Processes of a local cluster. Default: one per 8 cores; with GPUs, one to four per GPU, as "
            "many as have 4 cores each and together at most 1 GiB of weights.",
        ),
        option(
            "--threads",
            type=click.IntRange(1),
            default=_LOCAL["threads"],
            help="Threads per process of a local cluster.",
        ),
        option(
            "--memory-limit",
            default=_LOCAL["memory_limit"],
            show_default=True,
            callback=_memory,
            help="Memory of a local worker, such as 4GB; auto: part of the machine's memory; 0: no limit.",
        ),
    ]
    for add_flag in reversed(options):
        command = add_flag(command)
    return command


@contextmanager
def cluster(parameters: dict[str, Any], stage: EmbeddingCreatorStage) -> Iterator[Cluster]:
    """Yield a client of the cluster that the flags name, or a function that starts one; remove the flags.

    ``stage``: the one that will run; it has the access token.
    """
    from ..jobs.clusters.connect import connect

    context = click.get_current_context()
    address, file = parameters.pop("scheduler"), parameters.pop("scheduler_file")
    local = {name: parameters.pop(name) for name in _LOCAL}
    if address and file:
        raise click.UsageError("pass either --scheduler or --scheduler-file, not both", context)
    if (address or file) and local != _LOCAL:
        raise click.UsageError(
            "--workers, --threads and --memory-limit apply to a local cluster only: leave them out with "
            "--scheduler or --scheduler-file",
            context,
        )
    if not (address or file):
        yield partial(_local, stage, local)
        return
    with connect(address, file) as client:
        yield client


@contextmanager
def _local(stage: EmbeddingCreatorStage, settings: dict[str, Any]) -> Iterator[Client]:
    from distributed import Client

    from ..jobs.clusters.connect import local_cluster

    if stage.hf_token:  # workers are children of this process
        os.environ["HF_TOKEN"] = stage.hf_token
    with local_cluster(**settings, stage=stage) as cluster, Client(cluster) as client:
        yield client
