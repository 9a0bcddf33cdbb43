"""Command-line flags from the parameters of `EmbeddingCreatorStage`, with their help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any, get_origin

import click

from ..options import alternatives, choices, hints_of, option_of
from ..stages import EmbeddingCreatorStage

Command = Callable[..., Any]
_SCALARS: dict[Any, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT}


def stage_flags(command: Command) -> Command:
    """Add a flag for every parameter of `EmbeddingCreatorStage` but dicts, under its name with dashes."""
    hints = hints_of(EmbeddingCreatorStage)
    # click lists the flag that is added last first.
    for item in reversed(_fields()):
        add_flag = _flag(item, hints[item.name])
        command = add_flag(command)
    return command


def stage_from(parameters: dict[str, Any]) -> EmbeddingCreatorStage:
    """Remove the parameters of the stage from ``parameters``, and return the stage that has them."""
    values = {item.name: parameters.pop(item.name) for item in _fields()}
    return EmbeddingCreatorStage(**values)


def _fields() -> list[Field[Any]]:
    """Return the parameters that have a flag: all but dicts."""
    hints = hints_of(EmbeddingCreatorStage)
    return [
        item
        for item in fields(EmbeddingCreatorStage)
        if get_origin(alternatives(hints[item.name])[0]) is not dict
    ]


def _flag(item: Field[Any], hint: Any) -> Callable[[Command], Command]:
    """Return the click decorator that adds the flag of one parameter."""
    properties = option_of(item)
    name = item.name.replace("_", "-")
    text = properties.help.replace("`", "")
    if hint is bool:
        return click.option(
            f"--{name}/--no-{name}", item.name, default=item.default, show_default=True, help=text
        )
    return click.option(
        f"--{name}",
        item.name,
        type=_type(hint),
        default=item.default,
        multiple=get_origin(hint) is tuple,
        show_default=item.default is not None,
        envvar=item.name.upper() if properties.secret else None,
        help=text,
    )


def _type(hint: Any) -> click.ParamType[Any]:
    allowed = choices(hint)
    if allowed:
        return click.Choice(allowed)
    return _SCALARS.get(alternatives(hint)[0], click.STRING)
