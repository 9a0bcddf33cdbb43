"""Run one peer in a separate process: requests are JSON lines on stdin, replies JSON lines on stdout."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

from . import corpora, machine
from .peers import PEERS, Output


def answer(run: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Embed one corpus, write its vectors to the file in the request, and return the measurements."""
    texts = corpora.texts(request["corpus"], request["rows"])
    machine.reset_peak()
    start = time.perf_counter()
    out: Output = run(texts)
    seconds = out.seconds or time.perf_counter() - start
    peak = machine.peak_mib()
    np.save(request["vectors"], out.vectors)
    return {
        "seconds": seconds,
        "padded": out.padded,
        "tokenize_s": out.tokenize_s,
        "model_s": out.model_s,
        "peak_mib": peak,
    }


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print to stdout would break the replies
    run = PEERS[sys.argv[1]].load()
    run(["the first call also loads what is loaded late"] * 64)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(run, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
