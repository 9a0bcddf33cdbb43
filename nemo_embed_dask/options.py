"""Parameters as dataclass fields with help, limits, and their role in a job's fingerprint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Signature, cleandoc, signature
from textwrap import fill
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from .errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is known of a parameter: metadata of its field.

    ``help``: for docstrings, command line and documentation. ``least``: the least value of a number, or the
    least length of a string. ``keeps_vectors``: the value does not decide the vectors, so that a job may
    continue with another one. ``by_content``: a job's fingerprint has the content that the value leads to
    instead of the value. ``secret``: the value is neither shown nor compared. ``original``: the parameter's
    name where it is declared, if this field has another one.
    """

    help: str
    least: int | None = None
    keeps_vectors: bool = False
    by_content: bool = False
    secret: bool = False
    original: str = ""


def option(
    default: T,
    *,
    help: str,  # noqa: A002 - as in click and argparse
    least: int | None = None,
    keeps_vectors: bool = False,
    by_content: bool = False,
    secret: bool = False,
) -> T:
    """Return a dataclass field for a parameter. Like `dataclasses.field`, it has the type of its default."""
    about = Option(help, least, keeps_vectors, by_content, secret)
    return cast("T", _field(about, default=default))


def required(*, help: str, least: int | None = None, by_content: bool = False) -> Mapping[str, Option]:  # noqa: A002
    """Return the metadata of a parameter without a default, for `dataclasses.field`."""
    return {"option": Option(help, least, by_content=by_content)}


def same(group: type, name: str, *, default: Any = MISSING, help: str = "") -> Any:  # noqa: A002
    """Return a field for a parameter that ``group`` declares, for a class that renames or moves it."""
    declared: Field[Any] = next(item for item in fields(group) if item.name == name)
    about = option_of(declared)
    about = replace(about, help=help or about.help, original=original_name(declared))
    return _field(about, default=declared.default if default is MISSING else default)


def _field(about: Option, default: Any) -> Any:
    shown = not about.secret
    return field(default=default, repr=shown, compare=shown, metadata={"option": about})


def option_of(item: Field[Any]) -> Option:
    """Return what is known of a field's parameter; a field without an option decides vectors."""
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
    return {item.name: values[name] for item in fields(target) if (name := original_name(item)) in values}


@cache
def hints_of(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(cls)


def alternatives(hint: Any) -> list[Any]:
    """Return the types that a parameter's value may have, without None."""
    kinds = get_args(hint) if get_origin(hint) in {Union, UnionType} else [hint]
    return [kind for kind in kinds if kind is not NoneType]


def choices(hint: Any) -> tuple[Any, ...]:
    """Return the allowed values of a parameter; empty if it has a type instead."""
    return tuple(
        value for kind in alternatives(hint) if get_origin(kind) is Literal for value in get_args(kind)
    )


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
        value, hint = getattr(instance, item.name), hints[item.name]
        optional = NoneType in get_args(hint)
        if not (optional and value is None):
            problem = _problem(value, hint, option_of(item).least)
            if problem:
                shown = "..." if option_of(item).secret else repr(value)
                raise ConfigError(f"{item.name}={shown} {problem}")


def _problem(value: Any, hint: Any, least: int | None) -> str:
    """Return why a value does not fit; empty if it does."""
    if allowed := choices(hint):
        known = isinstance(value, str) and value in allowed
        return "" if known else f"is unknown; choose one of {', '.join(allowed)}"
    (kind, *others) = alternatives(hint)
    if others:  # the parameter is read by its own function, which checks it
        return ""
    check = _CHECKS.get(get_origin(kind) or kind)
    return check(value, least) if check else ""


def _problem_of_bool(value: Any, _least: int | None) -> str:
    return "" if isinstance(value, bool) else "must be True or False"


def _problem_of_number(value: Any, least: int | None) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool)
    if fits and (least is None or value >= least):
        return ""
    return "must be a positive whole number" if least == 1 else f"must be a whole number, {least} or more"


def _problem_of_text(value: Any, least: int | None) -> str:
    if not isinstance(value, str | os.PathLike):
        return "must be a string"
    return "must not be empty" if least and value == "" else ""


def _problem_of_tuple(value: Any, _least: int | None) -> str:
    fits = isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
    return "" if fits else "must be a tuple of strings"


_CHECKS: dict[Any, Callable[[Any, int | None], str]] = {
    bool: _problem_of_bool,
    int: _problem_of_number,
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


def parameters(*first: str) -> Callable[[type[T]], type[T]]:
    """Return a class decorator for dataclasses with options: it orders, documents and checks parameters.

    ``first`` are the parameters that come first in signature and documentation; the others follow in the order
    of their declaration. The positions of positional parameters do not change.
    """

    def decorate(cls: type[T]) -> type[T]:
        plain: Any = cls
        known = {item.name: item for item in fields(plain)}
        ordered = {name: known[name] for name in dict.fromkeys([*first, *known])}
        plain.__dataclass_fields__ = ordered | plain.__dataclass_fields__
        plain.__init__ = _checked_init(plain, list(ordered))
        plain.__doc__ = _with_parameters(plain)
        return cls

    return decorate


def _checked_init(cls: Any, names: list[str]) -> Any:
    init = cls.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        check_parameter_names(cls.__name__, kwargs, names)
        init(self, *args, **kwargs)

    found = signature(init).parameters
    in_order = sorted([found[name] for name in names], key=lambda parameter: parameter.kind)
    cast("Any", checked).__signature__ = Signature([found["self"], *in_order], return_annotation=None)
    return checked


def _with_parameters(cls: Any) -> str:
    """Return the docstring with a Parameters section, before its Raises section if it has one."""
    before, raises, after = cleandoc(cls.__doc__ or "").partition("\nRaises\n")
    section = "\n".join(["Parameters", "----------", *_described(cls)])
    return f"{before.rstrip()}\n\n{section}\n{raises}{after}"


def _described(cls: Any) -> Iterator[str]:
    hints = hints_of(cls)
    for item in fields(cls):
        yield f"{item.name} : {type_text(hints[item.name], item)}"
        yield fill(option_of(item).help, 100, initial_indent=" " * 4, subsequent_indent=" " * 4)


def type_text(hint: Any, item: Field[Any]) -> str:
    """Return a parameter's type and default as a docstring shows them."""
    names = [f'"{value}"' for value in choices(hint)] or [type_name(kind) for kind in alternatives(hint)]
    default = "" if item.default in (MISSING, None) else f", default {item.default!r}"
    return " or ".join(names) + (", optional" if item.default is None else default)


def type_name(kind: Any) -> str:
    """Return the name of a type as documentation shows it."""
    plain = get_origin(kind) or kind
    return "tuple of str" if plain is tuple else "path" if plain is os.PathLike else str(plain.__name__)
