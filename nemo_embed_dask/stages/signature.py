"""The order, the documentation and the checked names of a stage's parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from inspect import Signature, cleandoc, signature
from textwrap import fill
from typing import Any, TypeVar

from ..options import alternatives, check_parameter_names, choices, hints_of, option_of, type_name

T = TypeVar("T")


def parameters(*first: str) -> Callable[[type[T]], type[T]]:
    """Return a decorator for a dataclass of options that orders, checks and documents its parameters.

    ``first`` are the parameters that come first in signature and documentation; the others follow in the order
    of their declaration. The positions of positional parameters do not change.
    """

    def decorate(cls: type[T]) -> type[T]:
        _order_fields(cls, first)
        _check_names_in_init(cls)
        _document_parameters(cls)
        return cls

    return decorate


def _order_fields(cls: Any, first: tuple[str, ...]) -> None:
    """Put the fields ``first`` before the others, for all that reads `dataclasses.fields`.

    A dataclass lists inherited fields by base class, and cannot list them in another order.
    """
    ordered = {name: cls.__dataclass_fields__[name] for name in first}
    cls.__dataclass_fields__ = ordered | cls.__dataclass_fields__


def _check_names_in_init(cls: Any) -> None:
    """Let the constructor raise ConfigError, with a suggestion, for a keyword that is not a parameter."""
    init = cls.__init__
    names = [item.name for item in fields(cls)]

    @wraps(init)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        check_parameter_names(cls.__name__, kwargs, names)
        init(self, *args, **kwargs)

    cls.__init__ = checked_init
    cls.__init__.__signature__ = _ordered_signature(init, names)


def _ordered_signature(init: Callable[..., None], names: list[str]) -> Signature:
    """Return the signature of a constructor with its parameters in the order of ``names``."""
    known = signature(init).parameters
    found = [known[name] for name in names]
    positional = [each for each in found if each.kind is not each.KEYWORD_ONLY]
    by_keyword = [each for each in found if each.kind is each.KEYWORD_ONLY]
    return Signature([known["self"], *positional, *by_keyword], return_annotation=None)


def _document_parameters(cls: Any) -> None:
    """Add a Parameters section to the docstring, before its Raises section if it has one."""
    before, raises, after = cleandoc(cls.__doc__ or "").partition("\nRaises\n")
    hints = hints_of(cls)
    described = [_description(item, hints[item.name]) for item in fields(cls)]
    section = "\n".join(["Parameters", "----------", *described])
    cls.__doc__ = f"{before.rstrip()}\n\n{section}\n{raises}{after}"


def _description(item: Field[Any], hint: Any) -> str:
    """Return the lines of one parameter: its name, type and default, then its help."""
    indent = " " * 4
    text = fill(option_of(item).help, 100, initial_indent=indent, subsequent_indent=indent)
    return f"{item.name} : {_type_and_default(item, hint)}\n{text}"


def _type_and_default(item: Field[Any], hint: Any) -> str:
    names = [f'"{value}"' for value in choices(hint)] or [type_name(each) for each in alternatives(hint)]
    types = " or ".join(names)
    if item.default is MISSING:
        return types
    if item.default is None:
        return f"{types}, optional"
    return f"{types}, default {item.default!r}"
