"""Command-line flags from the parameters of `EmbeddingCreatorStage`, with their help and headings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, get_origin

import click

from ..options import alternatives, choices, hints_of, option_of
from ..settings import CreatorParameters
from .headings import Flag

if TYPE_CHECKING:
    from ..stages import EmbeddingCreatorStage

Command = Callable[..., Any]
_SCALARS: dict[Any, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT}


def stage_flags(command: Command) -> Command:
    """Add a flag for every parameter of `EmbeddingCreatorStage` but dicts, under its name with dashes."""
    hints = hints_of(CreatorParameters)
    # click lists the flag that is added last first.
    for item in reversed(_fields()):
        add_flag = _flag(item, hints[item.name])
        command = add_flag(command)
    return command


def stage_from(parameters: dict[str, Any]) -> EmbeddingCreatorStage:
    """Remove the parameters of the stage from ``parameters``, and return the stage that has them."""
    from ..stages import EmbeddingCreatorStage  # it imports torch, which takes seconds

    values = {item.name: parameters.pop(item.name) for item in _fields()}
    return EmbeddingCreatorStage(**values)


def _fields() -> list[Field[Any]]:
    """Return the parameters that have a flag: all but dicts."""
    hints = hints_of(CreatorParameters)
    return [
        item for item in fields(CreatorParameters) if get_origin(alternatives(hints[item.name])[0]) is not dict
    ]


def _flag(item: Field[Any], hint: Any) -> Callable[[Command], Command]:
    """Return the click decorator that adds the flag of one parameter."""
    properties = option_of(item)
    name = item.name.replace("_", "-")
    text = properties.help.replace("`", "")
    option = partial(
        click.option,
        cls=Flag,
        group=properties.group,
        common=properties.common,
        default=item.default,
        help=text,
    )
    if hint is bool:
        return option(f"--{name}/--no-{name}", item.name, show_default=True)
    return option(
        f"--{name}",
        item.name,
        type=_type(hint),
        multiple=get_origin(hint) is tuple,
        show_default=item.default is not None,
        envvar=item.name.upper() if properties.secret else None,
    )


def _type(hint: Any) -> click.ParamType[Any]:
    allowed = choices(hint)
    if allowed:
        return click.Choice(allowed)
    return _SCALARS.get(alternatives(hint)[0], click.STRING)
