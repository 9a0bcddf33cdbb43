"""An extension of griffe, which reads the sources: what the decorator ``parameters`` makes of a stage."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import griffe

_KINDS = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
}


class StageParameters(griffe.Extension):
    """Give each stage the docstring and the signature that it has at run time."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Replace docstring and signature of a stage."""
        is_dataclass = any("dataclass" in str(each.value) for each in cls.decorators)
        if cls.docstring and is_dataclass and cls.module.path.startswith("nemo_embed_dask.stages."):
            stage = getattr(import_module(cls.module.path), cls.name)
            cls.docstring.value = inspect.cleandoc(stage.__doc__)
            given = [_parameter(each) for each in inspect.signature(stage.__init__).parameters.values()]
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*given)))


def _parameter(given: inspect.Parameter) -> griffe.Parameter:
    has_default = given.default is not inspect.Parameter.empty
    default = repr(given.default) if has_default else None
    return griffe.Parameter(given.name, kind=_KINDS[given.kind], default=default)
