"""Import layers (declared in pyproject.toml), public names, file lengths, and the effects of an import."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nemo_embed_dask

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "nemo_embed_dask").rglob("*.py"))


def test_imports_go_down_only():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _names(path: Path) -> set[str]:
    """Return the dotted names and the imports in the code of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return names


def _users(*roots: str) -> set[str]:
    """Return the modules whose code names one of these packages."""
    pattern = re.compile("|".join(rf"{re.escape(root)}(\.|$)" for root in roots))
    return {
        str(path.relative_to(ROOT / "nemo_embed_dask"))
        for path in MODULES
        if any(map(pattern.match, _names(path)))
    }


def test_only_device_names_torch_cuda_and_rmm():
    assert _users("torch.cuda", "rmm") <= {"device.py"}


def test_only_the_modules_of_cudf_frames_name_cudf():
    assert _users("cudf", "cupy", "pylibcudf") <= {"frames/cudf.py", "frames/cudf_wordpiece.py"}


def test_importing_loads_no_model_library_and_no_cluster():
    code = (
        "import sys, nemo_embed_dask; heavy = 'torch transformers distributed cudf matplotlib'; "
        "print(sorted({*heavy.split()} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_public_names_exist_and_are_sorted():
    names = nemo_embed_dask.__all__
    assert names == sorted(names)
    assert all(hasattr(nemo_embed_dask, name) for name in names)
    assert {*names} <= {*dir(nemo_embed_dask)}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nemo_embed_dask.nothing


def test_public_names_are_those_that_are_imported():
    """For type checkers, on first use, and in `__all__`: the same names."""
    tree = ast.parse((ROOT / "nemo_embed_dask" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    named = {alias.asname or alias.name for node in imports for alias in node.names}
    assert {name for name in named if not name.startswith("_")} == {*nemo_embed_dask.__all__}
    later = next(node.body for node in tree.body if isinstance(node, ast.If))
    assert {alias.name for node in later for alias in node.names} == nemo_embed_dask._MODULES.keys()


def test_what_public_functions_take_and_return_is_public():
    for name in nemo_embed_dask.__all__:
        thing = getattr(nemo_embed_dask, name)
        for text in getattr(thing, "__annotations__", {}).values() if inspect.isfunction(thing) else ():
            ours = {*re.findall(r"\b[A-Z]\w+", str(text))} - OTHER_TYPES
            assert ours <= {*nemo_embed_dask.__all__}, (name, ours)


# Types of Python, of other libraries, and of the command line; and an alias that the docstring writes out.
OTHER_TYPES = {
    "Any",
    "Client",
    "Cluster",
    "Iterator",
    "JobState",
    "Literal",
    "None",
    "Path",
    "PathLike",
    "Progress",
    "Sequence",
}


def test_no_module_has_the_name_of_a_public_function():
    """An import of that module would replace the function."""
    replaced = {path.stem for path in (ROOT / "nemo_embed_dask").glob("*")} & {*nemo_embed_dask.__all__}
    assert not replaced


def test_no_file_is_too_long():
    long = {path.name: n for path in MODULES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 300}
    assert not long
