"""Refuse a main script that worker processes would run again.

A spawned process imports the main script. A script without ``if __name__ == "__main__":`` starts its cluster
again in each worker, which fails there while the script waits forever.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import FrameType

from ..errors import ClusterError

# A condition with one of these may be a guard.
_GUARDS = {"__name__", "current_process"}


def check_main_script() -> None:
    """Raise if worker processes could not import the main script, or would run the calling statement again.

    Uncertain cases pass: a notebook, ``python -c``, code in imported modules, an unreadable source.

    Raises
    ------
    ClusterError
        The script has no guard, or was not read from a file.
    """
    path = _main_script()
    if path is None:
        return
    if not path.exists():
        raise ClusterError(
            f"worker processes import the main script, but {path.name} is not a file: save the script to a "
            f"file, with the call below a guard:{_EXAMPLE}"
        )
    line = _line_at_top_level(path)
    if line is not None and not _has_guard(path, line):
        raise ClusterError(
            f"worker processes import the main script, and would start a cluster again at {path}, line {line}: "
            f"put the call below a guard:{_EXAMPLE}"
        )


_EXAMPLE = '\n    if __name__ == "__main__":\n        main()  # starts the cluster'


def _main_script() -> Path | None:
    """Return the file that a spawned process imports as the main module, or None."""
    try:
        data = get_preparation_data("worker")
    except AttributeError:  # a debugger that replaces the main module
        return None
    name = data.get("init_main_from_name", "")
    if name and not name.endswith("__main__"):  # `multiprocessing` leaves out the __main__ of a package
        file = getattr(sys.modules["__main__"], "__file__", None)
        return Path(file) if file else None
    path = data.get("init_main_from_path")
    if not path or Path(path).stem == "ipython":  # `multiprocessing` leaves out IPython's command
        return None
    return Path(path)


def _line_at_top_level(path: Path) -> int | None:
    """Return the line of the main script, outside of functions, that led to this call, or None."""
    frame: FrameType | None = sys._getframe()
    main = vars(sys.modules["__main__"])
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and frame.f_globals is main and _is_file(code.co_filename, path):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_file(name: str, path: Path) -> bool:
    """Return whether a file name of a code object is this file."""
    try:
        return path.samefile(name)
    except OSError:  # code that was compiled from a string
        return False


def _has_guard(path: Path, line: int) -> bool:
    """Return whether there is something like a guard at ``line`` or above it."""
    try:
        with tokenize.open(path) as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return True  # uncertain
    return any(
        node.lineno <= line and _names(node) & _GUARDS
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match)
    )


def _names(node: ast.AST) -> set[str]:
    """Return all names and attributes in an expression."""
    return {str(getattr(part, "id", getattr(part, "attr", ""))) for part in ast.walk(node)}
