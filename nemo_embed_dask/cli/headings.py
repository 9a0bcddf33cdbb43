"""Flags under headings in ``--help``, and what the shell completes for them."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

# In this order. Flags without a heading are a command's own "Options"; those of every command come last.
_HEADINGS = ("Options", "Model", "Text", "Output", "Cluster", "Job", "Computation", "Other")


class Flag(click.Option):
    """A flag with its heading in the help, and its place there if it comes before others."""

    def __init__(self, *names: Any, group: str, common: int = 0, **properties: Any) -> None:
        super().__init__(*names, **properties)
        self.group, self.common = group, common

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete choices, and file names for any text."""
        if self.type is click.STRING:
            return complete_files(ctx, self, incomplete)
        return super().shell_complete(ctx, incomplete)


class CommandWithHeadings(click.Command):
    """A command whose help lists the flags under headings, and whose errors say what it takes instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; for an unknown flag, suggest the shortest that begins with it, or the nearest.

        Raises
        ------
        click.UsageError
            A flag is unknown, or an argument is missing.
        """
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            names = (name for param in self.params for name in param.opts)
            longer = min((name for name in names if name.startswith(error.option_name)), key=len, default="")
            near = longer or next(iter(error.possibilities or ()), "")
            if not near:
                raise
            message = f"No such option {error.option_name!r}. Did you mean {near!r}?"
            raise click.UsageError(message, ctx) from None
        except click.MissingParameter as error:
            if not isinstance(error.param, click.Argument):
                raise
            arguments = [param for param in self.params if isinstance(param, click.Argument)]
            takes = " ".join(piece for param in arguments for piece in param.get_usage_pieces(ctx))
            raise click.UsageError(f"an argument is missing: the command takes {takes}", ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per heading."""
        flags = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        flags = sorted(flags, key=lambda flag: getattr(flag, "common", 0) or len(flags))
        for heading in _HEADINGS:
            below = [flag for flag in flags if _heading_of(flag) == heading]
            if records := [record for flag in below if (record := flag.get_help_record(ctx))]:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _heading_of(flag: click.Option) -> str:
    return str(getattr(flag, "group", "Other" if "--help" in flag.opts else "Options"))


def complete_files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete names of files and folders."""
    return [CompletionItem(incomplete, type="file")]
