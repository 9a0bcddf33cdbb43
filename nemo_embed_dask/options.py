"""Parameters as dataclass fields: their help, limits and role in a job's fingerprint, and their checks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError

T = TypeVar("T")
# The headings of the parameters in the help of the command line.
Group = Literal["Model", "Text", "Output", "Computation"]


@dataclass(frozen=True)
class Option:
    """The properties of a parameter, stored in the metadata of its dataclass field.

    ``help``: for docstrings, command line and documentation. ``minimum``: the smallest number, or the
    shortest length of a string. ``keeps_vectors``: results are the same whatever the value, so that a job may
    continue with another one. ``by_content``: a job's fingerprint has the content that the value leads to
    instead of the value. ``secret``: the value is neither shown nor compared. ``group``, ``common``: its
    heading in the help of the command line, and its place there if it comes before others. ``original``: the
    parameter's name where it is declared, if this field has another one.
    """

    help: str
    minimum: int | None = None
    keeps_vectors: bool = False
    by_content: bool = False
    secret: bool = False
    group: Group = "Computation"
    common: int = 0
    original: str = ""


def option(
    default: T,
    *,
    help: str,  # noqa: A002 - as in click and argparse
    minimum: int | None = None,
    keeps_vectors: bool = False,
    by_content: bool = False,
    secret: bool = False,
    group: Group = "Computation",
    common: int = 0,
) -> T:
    """Return a dataclass field for a parameter. Like `dataclasses.field`, it has the type of its default."""
    return cast("T", _field(Option(help, minimum, keeps_vectors, by_content, secret, group, common), default))


def required(
    *,
    help: str,  # noqa: A002 - as in click and argparse
    minimum: int | None = None,
    by_content: bool = False,
    group: Group = "Computation",
    common: int = 0,
) -> Mapping[str, Option]:
    """Return the metadata of a parameter without a default.

    The class calls `dataclasses.field` itself, because mypy takes any other call for a default.
    """
    return {"option": Option(help, minimum, by_content=by_content, group=group, common=common)}


def option_from(group: type, name: str, *, default: Any = MISSING, help: str = "") -> Any:  # noqa: A002
    """Return a field with the properties of a parameter of ``group``, for a class that renames or moves it.

    Example: ``pooling: str = option_from(CuratorNames, "embedding_pooling")``.
    """
    declared: Field[Any] = next(item for item in fields(group) if item.name == name)
    properties = option_of(declared)
    properties = replace(properties, help=help or properties.help, original=original_name(declared))
    return _field(properties, declared.default if default is MISSING else default)


def _field(properties: Option, default: Any) -> Any:
    """Return a dataclass field; a secret is left out of its instance's repr and comparison."""
    public = not properties.secret
    return field(default=default, repr=public, compare=public, metadata={"option": properties})


def option_of(item: Field[Any]) -> Option:
    """Return the properties of a field's parameter; a field without any counts as one that changes vectors."""
    return item.metadata.get("option") or Option("")


def original_name(item: Field[Any]) -> str:
    """Return the parameter's name where it is declared."""
    return option_of(item).original or item.name


def values_for(target: type, source: Any) -> dict[str, Any]:
    """Return the keyword arguments of ``target`` that are parameters of the dataclass instance ``source``.

    Example: for the model stage, from ``EmbeddingCreatorStage(embedding_pooling="cls")``:
    ``{"pooling": "cls", ...}``.
    """
    values = {original_name(item): getattr(source, item.name) for item in fields(source)}
    common = [item for item in fields(target) if original_name(item) in values]
    return {item.name: values[original_name(item)] for item in common}


@cache
def hints_of(cls: Any) -> dict[str, Any]:
    """Return the type hints of a dataclass's fields."""
    return get_type_hints(cls)


def alternatives(hint: Any) -> list[Any]:
    """Return the types that a type hint allows, without None: ``[str, int]`` for ``str | int | None``."""
    types = get_args(hint) if get_origin(hint) in {Union, UnionType} else [hint]
    return [each for each in types if each is not NoneType]


def choices(hint: Any) -> tuple[Any, ...]:
    """Return the values that a type hint with a Literal allows; empty for other hints."""
    for each in alternatives(hint):
        if get_origin(each) is Literal:
            return get_args(each)
    return ()


def check_values(instance: Any) -> None:
    """Check the type and the limits of each parameter of a dataclass instance.

    Raises
    ------
    ConfigError
        A value has the wrong type, is too small, or is none of the choices.
    """
    cls: Any = type(instance)
    hints = hints_of(cls)
    for item in fields(instance):
        properties, value = option_of(item), getattr(instance, item.name)
        problem = _problem(value, hints[item.name], properties.minimum)
        if problem:
            shown = "..." if properties.secret else repr(value)
            raise ConfigError(f"{item.name}={shown} {problem}")


def _problem(value: Any, hint: Any, minimum: int | None) -> str:
    """Return why a value does not fit its type hint; empty if it does."""
    if value is None and NoneType in get_args(hint):
        return ""
    allowed = choices(hint)
    if allowed:
        fits = isinstance(value, str) and value in allowed
        return "" if fits else f"is unknown; choose one of {', '.join(allowed)}"
    types = alternatives(hint)
    if len(types) > 1:  # only ``calibration``, which `load_calibration` checks
        return ""
    check = _CHECKS.get(get_origin(types[0]) or types[0])
    return check(value, minimum) if check else ""


def _problem_of_bool(value: Any, _minimum: int | None) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _problem_of_whole_number(value: Any, minimum: int | None) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool)
    if fits and (minimum is None or value >= minimum):
        return ""
    if minimum == 1:
        return "must be a positive whole number"
    return "must be a whole number" + ("" if minimum is None else f", {minimum} or more")


def _problem_of_text(value: Any, minimum: int | None) -> str:
    if not isinstance(value, str | os.PathLike):
        return "must be a string"
    return "must not be empty" if minimum and value == "" else ""


def _problem_of_tuple(value: Any, _minimum: int | None) -> str:
    fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return "" if fits else "must be a tuple of strings"


_CHECKS: dict[Any, Callable[[Any, int | None], str]] = {
    bool: _problem_of_bool,
    int: _problem_of_whole_number,
    str: _problem_of_text,
    tuple: _problem_of_tuple,
}


def check_parameter_names(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check that all keyword arguments are known.

    Raises
    ------
    ConfigError
        One is not; the message suggests the closest known one.
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"its parameters are {', '.join(names)}"
            raise ConfigError(f"{function} has no parameter {name!r}; {hint}")


def type_name(each: Any) -> str:
    """Return the name of a type as documentation shows it."""
    plain = get_origin(each) or each
    if plain is tuple:
        return "tuple of str"
    if plain is os.PathLike:
        return "path"
    return str(plain.__name__)
