"""The types that users see: a wheel is built, unpacked, and a small program is checked against it with mypy --strict."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

from .helpers import faults

BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
# A comment after a line is the message that mypy has to give for it; lines without one are correct.
PROGRAM = """
import pandas as pd

from nemo_embed_dask import (
    Calibration, EmbeddingCreatorStage, EmbeddingModelStage, Plan, Report, Stage, Stats, TokenizerStage, Verdict,
    calibrate, embed, embed_parquet, plan, to_matrix, verify,
)

frame = pd.DataFrame({"text": ["a"]})
embedded: pd.DataFrame = embed(frame, text_field="text", max_seq_length=64)
piped: pd.DataFrame = frame.pipe(embed, text_field="text")
embed(frame, max_seq_lenght=64)  # Unexpected keyword argument "max_seq_lenght" .*did you mean "max_seq_length"
embed(frame, max_seq_length="64")  # Argument "max_seq_length" .*incompatible type "str"
embed()  # Too few arguments
stage = EmbeddingCreatorStage(model_identifier="m", on_error="null", calibration=None)
EmbeddingCreatorStage(on_error="nul")  # incompatible type .*'nul'
EmbeddingCreatorStage(embedding_dtype="int4")  # incompatible type .*'int4'
EmbeddingCreatorStage(overlapp=3)  # Unexpected keyword argument "overlapp" .*did you mean "overlap"
EmbeddingCreatorStage("m")  # Too many positional arguments
TokenizerStage()  # Missing positional argument "model_identifier"
TokenizerStage("m", None)  # Too many positional arguments
EmbeddingModelStage("m", "v", "cls", None, 5, True, "left", False)
EmbeddingModelStage("m", "v", "cls", None, 5, True, "middle")  # incompatible type .*'middle'
halves: list[Stage] = stage.decompose()
estimate: Plan = plan(stage, frame, sample_rows=10)
plan(stage, frame, sample_row=10)  # Unexpected keyword argument "sample_row" .*did you mean "sample_rows"
plan(frame)  # Missing positional argument "ddf"
verdict: Verdict = verify(stage, ["a"])
report: Report = embed_parquet(stage, "in", "out", columns="id")
embed_parquet("in", "out", stage)  # Argument 1 to "embed_parquet" .*expected "EmbeddingCreatorStage"
ranges: Calibration | None = None
rows: int = Stats().rows
width: int = to_matrix(embedded.embeddings).shape[1]
calibrate(stage, ["a"], "ranges.json")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=faults.ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Python of an environment in which the wheel is unpacked, beside the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder), "installed_base": str(folder)}
    packages = folder / sysconfig.get_path("purelib", "venv", vars=scheme)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def test_the_wheel_has_files_that_are_not_code(wheel):
    """The mark for type checkers, and the words of the demo."""
    with zipfile.ZipFile(wheel) as archive:
        assert {"nemo_embed_dask/py.typed", "nemo_embed_dask/cli/demo_words.json"} <= {*archive.namelist()}


@pytest.mark.slow
def test_a_user_s_program_is_checked(python, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", str(python), "--hide-error-context", "program.py"],
        cwd=tmp_path, env=faults.environment(PYTHONPATH="", MYPYPATH=""), capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[int, str] = {}
    for number, message in re.findall(r"^program\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found[int(number)] = f"{found.get(int(number), '')}{message}\n"
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        code, _, expected = line.partition("  # ")
        message = found.pop(number, "")
        assert bool(message) == bool(expected) and re.search(expected, message), (code, message, done.stdout)
    assert not found and done.stdout.rstrip().splitlines()[-1].startswith("Found"), done.stdout + done.stderr
