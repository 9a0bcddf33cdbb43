"""A phase of the benchmark whose peers end in different ways; see test_gpu_processes.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

START_S = 1.0


def case_s(_options):
    return 1.0


def jobs():
    return {"hangs": ("bad",)}


def exits():
    os._exit(3)


def raises():
    raise ValueError("the device is lost")


def is_killed():
    print("the last words")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)


def load(peer, options):
    if peer == "is_never_loaded":
        hangs()

    def measure(case):
        if case == "bad":
            globals()[peer]()
        return {"process": os.getpid(), "scale": options.scale}

    return measure
