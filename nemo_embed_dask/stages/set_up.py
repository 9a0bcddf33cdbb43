"""Stages that are set up once per process: what setup adds stays in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from dask.base import tokenize

# The last stage of each class that was set up in this process, with its key.
_ready: dict[type, tuple[str, Any]] = {}
_lock = threading.RLock()
_ABSENT = object()
# The attribute with the values, before setup, of all attributes that setup has changed.
_CHANGED = "_changed_by_setup"


def remember_state(setup: Callable[..., None]) -> Callable[..., None]:
    """Return a setup that records which attributes it changes, and changes none if it fails."""

    @wraps(setup)
    def remembering(self: Any, *args: Any, **kwargs: Any) -> None:
        # cloudpickle sends a notebook's classes with what their methods refer to, and cannot send a lock.
        run_setup(self, partial(setup, self, *args, **kwargs))

    return remembering


def run_setup(stage: Any, setup: Callable[[], None]) -> None:
    """Run a stage's setup, and record which attributes it changes."""
    with _lock:
        before, is_nested = dict(stage.__dict__), "_in_setup" in stage.__dict__
        object.__setattr__(stage, "_in_setup", True)
        try:
            setup()
        except BaseException:
            stage.__dict__.clear()
            stage.__dict__.update(before)
            raise
        if not is_nested:
            del stage.__dict__["_in_setup"]
            _record_changes(stage, before)


def _record_changes(stage: Any, before: dict[str, Any]) -> None:
    changed = {
        name: before.get(name, _ABSENT)
        for name, value in stage.__dict__.items()
        if before.get(name, _ABSENT) is not value and name != _CHANGED
    }
    object.__setattr__(stage, _CHANGED, changed | before.get(_CHANGED, {}))


def state_before_setup(state: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a stage without what setup has set."""
    changed = state.get(_CHANGED, {})
    restored = {**state, **changed}
    return {name: value for name, value in restored.items() if value is not _ABSENT and name != _CHANGED}


def set_up(stage: Any) -> Any:
    """Return an equal stage that is set up in this process; threads wait until it is."""
    with _lock:
        if _CHANGED in stage.__dict__:
            return stage
        key = tokenize(stage)
        found = _ready.get(type(stage))
        if found is None or found[0] != key:
            stage.setup()
            found = _ready[type(stage)] = (key, stage)
        return found[1]


def undo_setup(stage: Any) -> None:
    """Drop what setup has set, of this stage and of all others that `set_up` keeps."""
    with _lock:
        state = state_before_setup(dict(stage.__dict__))
        stage.__dict__.clear()
        stage.__dict__.update(state)
        _ready.clear()


def own_classes(cls: type) -> list[type]:
    """Return the classes outside of this package among a class and its bases."""
    inside = ("nemo_embed_dask.", "builtins", "abc", "typing")
    return [each for each in cls.__mro__ if not f"{each.__module__}.".startswith(inside)]


def code_of(cls: type) -> list[Any]:
    """Return the code of a class outside of this package, to tell it from others of the same name."""
    members = [item for each in own_classes(cls) for item in sorted(vars(each).items(), key=lambda it: it[0])]
    return [(name, _code(member)) for name, member in members if not name.startswith("__") or callable(member)]


def _code(member: Any) -> Any:
    function = getattr(member, "__wrapped__", getattr(member, "__func__", member))
    code = getattr(function, "__code__", getattr(function, "fget", None) and function.fget.__code__)
    if code is None:
        return repr(member) if isinstance(member, str | int | float | tuple | bytes) else None
    cells = [_value(cell) for cell in getattr(function, "__closure__", None) or ()]
    return (_code_object(code), cells, repr(getattr(function, "__defaults__", None)))


def _value(cell: Any) -> Any:
    """Return what a function takes from the function around it, if it can be hashed."""
    try:
        value = cell.cell_contents
    except ValueError:  # not assigned yet
        return None
    return repr(value) if isinstance(value, str | int | float | bool | bytes | tuple) else type(value).__name__


def _code_object(constant: Any) -> Any:
    if not hasattr(constant, "co_code"):
        return repr(constant)
    return (constant.co_code, [_code_object(each) for each in constant.co_consts], constant.co_names)
