"""Scripts that worker processes would run again: refused before a process is started; all others work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..helpers import faults

STARTS = """
from nemo_embed_dask.clusters.local import local_cluster
def start():
    with local_cluster(use_gpus=False, n_workers=1, dashboard_address=":0", memory_limit=0) as cluster:
        print("STARTED", len(cluster.workers))
"""
CHECKS = """
from nemo_embed_dask.clusters.main_guard import check_main_script
def start():
    check_main_script()
    print("STARTED 1")
"""
GUARD = 'if __name__ == "__main__":\n'
UNGUARDED = {
    "a call": STARTS + "start()\n",
    "a block": CHECKS + "for _ in range(1):\n    if True:\n        start()\n",
    "a guard below": CHECKS + "start()\n" + GUARD + "    print('too late')\n",
    "another use of __name__": CHECKS + "import logging\nlogging.getLogger(__name__)\nstart()\n",
}
GUARDED = {
    "guarded": STARTS + GUARD + "    start()\n",
    "by a function": CHECKS + "def main():\n    start()\n\n" + GUARD + "    main()\n",
    "the other way": CHECKS + 'if __name__ != "__main__":\n    pass\nelse:\n    start()\n',
    "by and": CHECKS + '__name__ == "__main__" and start()\n',
    "by the process": CHECKS
    + "import multiprocessing as m\nif m.current_process().name == 'MainProcess': start()\n",
    "a thread": CHECKS + "import threading\nt = threading.Thread(target=start)\nt.start()\nt.join()\n",
    "workers are threads": STARTS
    + "with local_cluster(use_gpus=False, processes=False) as c: print('STARTED 1')\n",
}


def run(*command, text=None, cwd=None):
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=faults.environment(), cwd=cwd, input=text,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", UNGUARDED)
def test_a_script_without_a_guard_is_refused(kind, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED[kind])
    code, said = run(script)
    assert code == 1 and "STARTED" not in said, said
    assert "ClusterError: " in said and 'if __name__ == "__main__":' in said and "script.py, line " in said, (
        said
    )
    assert said.count("Traceback") == 1, "only this process's own error"


def test_a_module_without_a_guard_is_refused(tmp_path):
    (tmp_path / "script.py").write_text(CHECKS + "start()\n")
    code, said = run("-m", "script", cwd=tmp_path)
    assert code == 1 and 'if __name__ == "__main__":' in said and "STARTED" not in said, said


def test_a_script_from_standard_input_is_refused():
    code, said = run("-", text=CHECKS + 'if __name__ == "__main__":\n    start()\n')
    assert (
        code == 1 and "ClusterError" in said and "save the script to a file" in said and "STARTED" not in said
    ), said


@pytest.mark.parametrize("kind", GUARDED)
def test_a_script_with_a_guard_works(kind, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GUARDED[kind])
    code, said = run(script)
    assert code == 0 and "STARTED" in said, said


def test_other_ways_to_run_code_work(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CHECKS + GUARD + "    start()\n")
    (tmp_path / "console").write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + GUARD + "    import code_of_it\n"
    )
    (tmp_path / "code_of_it.py").write_text(CHECKS + "start()\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(CHECKS + "start()\n")  # workers never import this name
    (tmp_path / "test_it.py").write_text(CHECKS + "def test_it():\n    start()\n")
    again = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    ways = {
        "-c": (("-c", STARTS + "start()"), None),
        "-i": (("-i", script), "exit()\n"),
        "after -i": (("-i", "-c", CHECKS), "start()\n"),
        "runpy": (("-c", again), None),
        "pdb": (("-m", "pdb", "-c", "continue", script), "quit\n"),
        "a console script": ((script.with_name("console"),), None),
        "a folder": ((tmp_path / "folder",), None),
        "pytest": (("-m", "pytest", "-s", "-p", "no:cacheprovider", tmp_path / "test_it.py"), None),
        "ipython": (("-m", "IPython", "--no-banner", script), None),
    }  # fmt: skip
    for way, (command, text) in ways.items():
        _, said = run(*command, text=text, cwd=tmp_path)
        assert "STARTED 1" in said and "ClusterError" not in said, (way, said)
