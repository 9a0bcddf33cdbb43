"""Ids and positions beyond the model's tables, in a process of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import transformers

from .beyond_tables import BEYOND


def test_rows_beyond_the_tables_fail_and_the_device_still_works(tiny, tmp_path):
    path = shutil.copytree(tiny("bert"), tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens([BEYOND])
    tokenizer.save_pretrained(path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.beyond_tables", str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the device still works" in done.stdout
