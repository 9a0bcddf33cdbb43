"""The group of commands ``nemo-embed``: its default command, its suggestions and completions."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .exit import Ending, report_errors
from .headings import CommandWithHeadings, Flag, complete_files

TRACEBACK = "--traceback"
_DEFAULT = "run"


class DefaultGroup(click.Group):
    """A group with the default command ``run``: ``nemo-embed IN OUT``."""

    command_class = CommandWithHeadings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert ``run``, unless the arguments start with a command or a flag of the group."""
        known = {"--help", "--version", *self.commands}
        flags = list(takewhile(lambda arg: arg == TRACEBACK, args))
        rest = args[len(flags) :]
        if rest and rest[0] not in known:
            rest = [_DEFAULT, *rest]
        return super().parse_args(ctx, [*flags, *rest])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command and its arguments; raise if its first input is a misspelled command."""
        word = args[1] if len(args) > 1 and args[0] == _DEFAULT else ""
        close = get_close_matches(word, self.commands, n=1, cutoff=0.75)
        if close and word.isalpha() and not Path(word).exists() and not ctx.resilient_parsing:
            raise click.UsageError(f"no command and no file is named {word!r}. Did you mean {close[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they were added, which is that of their use."""
        return list(self.commands)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command with the flag ``--traceback``."""
        cmd.params.append(traceback_flag())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report its errors in one line."""
        with report_errors(ctx.ensure_object(Ending)):
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands, and the flags and inputs of the default command."""
        own = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return [*complete_files(ctx, ctx.command.params[0], incomplete), *own]  # bash: files come first
        known = {item.value for item in own}
        return own + [item for item in self._flags_of_default(ctx, incomplete) if item.value not in known]

    def _flags_of_default(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        command = self.commands[_DEFAULT]
        with command.make_context(_DEFAULT, [], parent=ctx, resilient_parsing=True) as inner:
            return command.shell_complete(inner, incomplete)


def traceback_flag() -> Flag:
    """Return the flag that every command has, before or after its name."""

    def set_traceback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Ending).traceback = True

    text = "Also show the traceback of an error."
    return Flag([TRACEBACK], is_flag=True, expose_value=False, callback=set_traceback, help=text, group="Other")
