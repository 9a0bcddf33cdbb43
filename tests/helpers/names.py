"""Check the names of our packages in code that cannot run here: that they exist, and that calls fit signatures."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("nemo_embed_dask", "benchmarks", "tests")


class Unread:
    """A module that cannot be imported here because it needs cuDF: its names without their values."""

    def __init__(self, name: str) -> None:
        found = importlib.util.find_spec(name)
        body = ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
        for node in body:
            for target in getattr(node, "targets", [getattr(node, "target", node)]):
                names = [alias.asname or alias.name for alias in getattr(target, "names", [])]
                for one in [*names, getattr(target, "name", None) or getattr(target, "id", None)]:
                    if one:
                        setattr(self, one, self)


def load(name: str) -> object:
    """Return a module, or its names if it needs cuDF and that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in OURS:
            raise
        return Unread(name)


def imported(tree: ast.AST, package: str) -> tuple[dict[str, object], list[str]]:
    """Return what the imports of our packages bind, by name, and those that fail."""
    bound: dict[str, object] = {}
    wrong: list[str] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        if name.split(".")[0] not in OURS:
            continue
        for alias in node.names:
            try:
                module = load(name)
                if not hasattr(module, alias.name):
                    module = load(f"{name}.{alias.name}")
                    bound[alias.asname or alias.name] = module
                else:
                    bound[alias.asname or alias.name] = getattr(module, alias.name)
            except ModuleNotFoundError:
                wrong.append(f"line {node.lineno}: {name} has no {alias.name}")
    return bound, wrong


def resolve(node: ast.expr, bound: dict[str, object]) -> object | None:
    """Return what ``a.b.c`` is if ``a`` is imported and ``a.b`` is a module or a class; raise if it is missing."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    base = resolve(node.value, bound)
    known = inspect.ismodule(base) or inspect.isclass(base) or isinstance(base, Unread)
    return getattr(base, node.attr) if known else None


def wrong_names(path: Path) -> list[str]:
    """Return the imports, attributes and calls of our packages in a file that do not fit the code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.relative_to(ROOT).parent.parts)
    bound, wrong = imported(tree, package)
    local = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    local |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound = {name: value for name, value in bound.items() if name not in local}
    for node in ast.walk(tree):
        try:
            if isinstance(node, ast.Attribute):
                resolve(node, bound)
            elif isinstance(node, ast.Call) and (called := resolve(node.func, bound)) is not None:
                bind(called, node)
        except (AttributeError, TypeError) as error:
            wrong.append(f"line {node.lineno}: {ast.unparse(node)[:80]}: {error}")
    return [f"{path.relative_to(ROOT)}, {line}" for line in wrong]


def bind(called: object, node: ast.Call) -> None:
    """Raise a TypeError if a call does not fit the signature. Calls with ``*`` or ``**`` are not checked."""
    if isinstance(called, Unread) or any(isinstance(a, ast.Starred) for a in node.args):
        return
    if all(keyword.arg for keyword in node.keywords):
        inspect.signature(called).bind(*node.args, **{keyword.arg: None for keyword in node.keywords})
