"""Measure one peer in this process: ``python -m benchmarks.gpu.worker REQUEST``, see `processes`.

Loading and each case give one JSON line in the file of the request. After an error the process ends, because
the device may be lost to it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from .. import results
from . import Options


def main() -> None:
    request = json.loads(sys.argv[1])
    options = Options(**request["options"] | {"folder": Path(request["options"]["folder"])})
    rows = Path(request["rows"])
    try:
        measure = importlib.import_module(request["phase"]).load(request["peer"], options)
        results.append(rows, {"loaded": True})
        for case in request["cases"]:
            results.append(rows, measure(case))
    except Exception as error:
        results.append(rows, {"error": f"{type(error).__name__}: {error}"[:300]})
        raise


if __name__ == "__main__":
    main()
