"""Help, suggestions and shell completion of the command line; all of them without importing torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.options import Group, option_of

from ..helpers import faults

HEADINGS = ["Model", "Text", "Output", "Cluster", "Job", "Computation", "Other"]


def help_of(*command):
    result = CliRunner().invoke(main, [*command, "--help"], terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def flags_by_heading(text):
    """The first name of each flag in a help text, by heading."""
    sections = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)[1:]
    pairs = zip(sections[::2], sections[1::2], strict=True)
    return {heading: re.findall(r"^  --([\w-]+)", below, re.MULTILINE) for heading, below in pairs}


def test_flags_of_a_job_are_under_their_headings_the_common_ones_first():
    found = flags_by_heading(help_of("run"))
    assert list(found) == HEADINGS
    for item in fields(EmbeddingCreatorStage):
        if item.name != "transformers_init_kwargs":
            assert item.name.replace("_", "-") in found[option_of(item).group]
    assert {*get_args(Group)} < {*HEADINGS}
    assert [found[name][0] for name in ("Model", "Text", "Output", "Cluster", "Job")] == [
        "model-identifier", "text-field", "embedding-field", "scheduler", "update",
    ]  # fmt: skip
    assert found["Other"] == ["traceback", "help"]


@pytest.mark.parametrize("command", [(), ("run",), ("report",), ("errors",), ("verify",), ("plan",), ("demo",)])
def test_help_fits_a_terminal_of_80_columns(command):
    text = help_of(*command)
    assert max(map(len, text.splitlines())) <= 80 and "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("reprot", "out"), "'report'"),
        (("verfy", "in"), "'verify'"),
        (("report", "out", "--pictur", "x"), "'--picture'"),
        (("--text-feild", "body", "in", "out"), "'--text-field'"),
        (("in", "out", "--tracebak"), "'--traceback'"),
        (("in", "out", "--model", "m"), "'--model-identifier'"),
        (("in",), "the command takes INPUTS... OUTPUT"),
        (("report",), "the command takes TARGET"),
        (("in", "out", "--on-error", "nul"), "'null'"),
    ],
)
def test_a_misspelled_or_missing_argument_is_one_line_with_the_right_one(arguments, near):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert near in result.stderr and result.stderr.count("\n") == 1 and "one of:" not in result.stderr


def test_a_file_may_have_nearly_the_name_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    result = CliRunner().invoke(main, ["reports", "out"])
    assert result.exit_code == 2 and "has no input" in result.stderr


# ---- completion in a real shell -----------------------------------------------------------------

# A module of this name in front of the path fails any command that imports torch.
NO_TORCH = "raise SystemExit('torch was imported')\n"
COMPLETE = """
PATH={folder}:$PATH
eval "$(_NEMO_EMBED_COMPLETE=bash_source nemo-embed)"
complete -p nemo-embed
complete_words() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _nemo_embed_completion nemo-embed 2> >(grep -v compopt >&2)
    echo "${{COMPREPLY[@]}}"
}}
compopt() {{ echo "$2"; }}
"""
# What bash is asked to complete -> what it offers; "default" stands for the names of files.
WORDS = {
    "nemo-embed re": "default report",
    "nemo-embed --text-": "--text-field",
    "nemo-embed texts out --emb": "--embedding-field --embedding-pooling --embedding-dtype",
    "nemo-embed run a b --on-error ''": "raise null",
    "nemo-embed --traceback plan a --work": "--workers",
    "nemo-embed a b --model-identifier d": "default",
}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_flags_choices_and_files_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text(NO_TORCH)
    command = tmp_path / "nemo-embed"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/nemo-embed.py "$@"\n')
    command.chmod(0o755)
    (tmp_path / "nemo-embed.py").write_text(
        f"import sys\nsys.argv[0] = {str(command)!r}\nfrom nemo_embed_dask.__main__ import main\nmain()\n"
    )
    lines = [f"complete_words {words}" for words in WORDS]
    done = subprocess.run(
        ["bash", "-c", "\n".join([COMPLETE.format(folder=tmp_path), *lines])],
        env=faults.environment(**faults.importing_from(tmp_path)), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stderr == "", done.stderr
    setup, *found = done.stdout.replace("default\n", "default ").splitlines()
    assert "_nemo_embed_completion nemo-embed" in setup
    assert [" ".join(sorted(line.split())) for line in found] == [
        " ".join(sorted(words.split())) for words in WORDS.values()
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["errors", "nowhere"]])
def test_help_and_errors_do_not_import_torch(arguments, tmp_path):
    (tmp_path / "torch.py").write_text(NO_TORCH)
    done = subprocess.run(
        [sys.executable, "-m", "nemo_embed_dask", *arguments],
        env=faults.environment(**faults.importing_from(tmp_path)), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "torch was imported" not in done.stderr and done.returncode in {0, 2}
