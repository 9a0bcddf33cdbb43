"""Command-line flags from a stage's fields: a new field becomes a flag by itself. Knows click, and no job."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from ..runtimes import RUNTIMES
from ..stages import EmbeddingCreatorStage
from ..vectors.quantization import DTYPES

Command = Callable[..., Any]
# Choices that a field's type does not tell.
_CHOICES = {"embedding_dtype": tuple(DTYPES), "runtime": RUNTIMES}
_SCALARS: dict[Any, click.ParamType[Any]] = {
    bool: click.BOOL, int: click.INT, float: click.FLOAT, str: click.STRING,
}  # fmt: skip


def stage_flags(command: Command) -> Command:
    """Add a flag for every parameter of `EmbeddingCreatorStage`, under its name with dashes."""
    hints, helps = get_type_hints(EmbeddingCreatorStage), _helps(EmbeddingCreatorStage.__doc__ or "")
    for item in reversed(fields(EmbeddingCreatorStage)):
        _flag(item, hints[item.name], helps.get(item.name, ""))(command)
    return command


def stage_from(parameters: dict[str, Any]) -> EmbeddingCreatorStage:
    """The stage that the flags describe; takes its parameters out of ``parameters``."""
    mine = {item.name: parameters.pop(item.name) for item in fields(EmbeddingCreatorStage)}
    return EmbeddingCreatorStage(**mine)


def _flag(item: Field[Any], hint: Any, text: str) -> Callable[[Command], Command]:
    default = item.default if item.default is not MISSING else None
    flag, hidden = item.name.replace("_", "-"), item.name == "hf_token"
    if hint is bool:
        return click.option(f"--{flag}/--no-{flag}", item.name, default=default, show_default=True, help=text)
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    several = get_origin(hint) in {list, tuple}
    return click.option(
        f"--{flag}", item.name, type=_type(item.name, hint, kinds), default=default, multiple=several,
        show_default=default is not None and not hidden, envvar="HF_TOKEN" if hidden else None, help=text,
    )  # fmt: skip


def _type(name: str, hint: Any, kinds: list[Any]) -> click.ParamType[Any]:
    literal = next((kind for kind in (hint, *kinds) if get_origin(kind) is Literal), None)
    choices = _CHOICES.get(name) or (get_args(literal) if literal else ())
    if choices:
        return click.Choice(choices)
    return next((_SCALARS[kind] for kind in kinds if kind in _SCALARS), click.STRING)


def _helps(doc: str) -> dict[str, str]:
    """Each parameter's description in a numpy docstring."""
    body = doc.partition("Parameters\n")[2].partition("Raises\n")[0]
    found = re.findall(r"^    (\w+) : .*\n((?:        .*\n|\s*\n)*)", body, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in found}
