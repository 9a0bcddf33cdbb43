"""Refuse a main script that worker processes would run again. Knows Python's start of processes, no Dask.

A spawned process imports the main script. One without ``if __name__ == "__main__":`` starts its cluster again
in each worker, which fails there while the script waits for ever.
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

    A case that is not certain passes: a notebook, ``python -c``, code that the script only calls, a source
    that cannot be read.

    Raises
    ------
    ClusterError
        The script has no guard, or is no file.
    """
    path = _imported_by_workers()
    if path is None:
        return
    if not path.exists():
        raise ClusterError(
            f"worker processes import the main script, and {path.name} is no file: save it to a file, with the "
            f"call below a guard:{_EXAMPLE}"
        )
    line = _line_at_top_level(path)
    if line is not None and not _guarded(path, line):
        raise ClusterError(
            f"worker processes import the main script, and would start a cluster again at {path}, line {line}: "
            f"put the call below a guard:{_EXAMPLE}"
        )


_EXAMPLE = '\n    if __name__ == "__main__":\n        main()  # what starts the cluster'


def _imported_by_workers() -> Path | None:
    """The file that a spawned process imports as the main module; None if it imports none."""
    try:
        data = get_preparation_data("worker")
    except AttributeError:  # a debugger that replaces the main module
        return None
    name = data.get("init_main_from_name", "")
    if name and not name.endswith("__main__"):  # `multiprocessing` leaves out the __main__ of a package
        file = getattr(sys.modules["__main__"], "__file__", None)
        return Path(file) if file else None
    path = data.get("init_main_from_path")
    return Path(path) if path and Path(path).stem != "ipython" else None  # it leaves out IPython's command


def _line_at_top_level(path: Path) -> int | None:
    """The line of the main script, outside of functions, that this call comes from; None if there is none."""
    frame: FrameType | None = sys._getframe()
    main = vars(sys.modules["__main__"])
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and frame.f_globals is main and _same(code.co_filename, path):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _same(name: str, path: Path) -> bool:
    try:
        return path.samefile(name)
    except OSError:  # code that was compiled from a string
        return False


def _guarded(path: Path, line: int) -> bool:
    """Whether anything that may be a guard stands at ``line`` or above it."""
    try:
        with tokenize.open(path) as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return True  # not known to be without one
    return any(
        node.lineno <= line and _names(node) & _GUARDS
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.Match)
    )


def _names(node: ast.AST) -> set[str]:
    return {str(getattr(part, "id", getattr(part, "attr", ""))) for part in ast.walk(node)}
