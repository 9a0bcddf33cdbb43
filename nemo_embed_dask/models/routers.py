"""Read the Router of an asymmetric model, which has modules of their own for queries and for documents."""

from __future__ import annotations

import ast
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import ModelError
from .json_files import JsonObject, read_json
from .names import model_file, model_name

Task = Literal["document", "query"]
# sentence-transformers named the module Asym before version 5.
ROUTERS = ("Router", "Asym")
# The file that describes the routes, and its name in older versions.
ROUTER_FILES = ("router_config.json", "config.json")


def read_routes(path: Path, folder: str) -> dict[str, list[tuple[str, str]]]:
    """Return the modules of each route of a Router, as (type, folder) with folders relative to the model.

    Raises
    ------
    ModelError
        Its configuration is missing or damaged.
    """
    config = _read_config(path / folder)
    types, structure = config.section("types"), config.section("structure")
    routes = {}
    for route in structure:
        names = structure.list_of_text(route)
        if not names or any(types.text(name) is None for name in names):
            raise ModelError(f"{model_file(config.path)} has a route {route!r} without modules; fetch it again")
        routes[route] = [(str(types[name]), (PurePosixPath(folder) / name).as_posix()) for name in names]
    if not routes:
        raise ModelError(f"{model_file(config.path)} lists no routes; fetch the model again")
    return routes


def choose_route(path: Path, folder: str, task: Task) -> str:
    """Return the route of a Router for texts of a task, as sentence-transformers chooses it.

    Raises
    ------
    ModelError
        The Router has no route for this task. Its default route, which may be that of queries, is taken only
        if it has neither of both.
    """
    config = _read_config(path / folder)
    routes, parameters = [*config.section("structure")], config.section("parameters")
    mapped = {_parse_key(key): route for key, route in parameters.section("route_mappings").items()}
    keys = ((task, "text"), (task, None), (None, "text"), (None, None))
    found = [mapped[key] for key in keys if key in mapped]
    found += [name for name in (task, "text") if name in routes]
    if not found and not {"document", "query"}.intersection(routes):
        found = [name for name in (parameters.text("default_route"),) if name is not None]
    if not found or found[0] not in routes:
        raise ModelError(
            f"model {model_name(path)!r} has no modules for texts of the kind {task!r}: its Router has the "
            f"routes {', '.join(routes)}. Use sentence-transformers, or save one route as a model of its own"
        )
    return str(found[0])


def _parse_key(key: str) -> object:
    """Return a key of ``route_mappings``, which is the text of a pair such as ``('query', None)``."""
    try:
        return ast.literal_eval(key)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return key


def _read_config(folder: Path) -> JsonObject:
    for name in ROUTER_FILES:
        config = read_json(folder / name)
        if config:
            config.require("types", "structure")
            return config
    raise ModelError(
        f"{model_file(folder / ROUTER_FILES[0])} is missing, which lists the routes; fetch it again"
    )
