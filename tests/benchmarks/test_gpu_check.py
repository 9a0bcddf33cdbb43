"""The tests and scripts for a machine with a GPU, as far as they can be checked without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import bench_gpu
from benchmarks.gpu import clusters

from ..helpers.names import wrong_names

ROOT = Path(__file__).resolve().parents[2]
FOR_GPUS = sorted(
    [*ROOT.glob("tests/gpu/*.py"), *ROOT.glob("benchmarks/gpu/*.py"), ROOT / "benchmarks" / "bench_gpu.py"]
)


@pytest.mark.parametrize("path", FOR_GPUS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_name_of_ours_exists_and_every_call_fits(path):
    assert wrong_names(path) == []


def test_a_stale_name_and_a_stale_call_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.helpers.names.ROOT", tmp_path)
    code = """
        from nemo_embed_dask import engine, nothing
        from nemo_embed_dask.frames import cudf as ops
        from nemo_embed_dask.ragged import Ragged
        engine._gone(1)
        engine.embed_texts([], None, threads=2)
        engine.embed_texts([], None, n_threads=2)
        Ragged.from_rowz([])
        ops.gone(1)
    """
    (tmp_path / "m.py").write_text(re.sub(r"(?m)^ {8}", "", code))
    lines = {int(re.search(r"line (\d+)", line)[1]) for line in wrong_names(tmp_path / "m.py")}
    assert lines == {2, 5, 6, 8, 9}


@pytest.mark.slow
def test_tests_of_gpus_are_rehearsed_on_the_cpu():
    """They run here with a few short texts and without what only a GPU has, so that they cannot become stale."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "--rehearse",
            "tests/gpu",
            "-p",
            "no:cacheprovider",
        ],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(re.search(r"(\d+) tests of GPUs passed on the CPU", done.stdout)[1]) >= 20
    assert "not rehearsed: " in done.stdout


def run_script(name, *arguments, root=ROOT, **environment):
    """Run a script of benchmarks/ with the Python of these tests, without GPUs; return its result."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", f"benchmarks/{name}", *map(str, arguments)],
        cwd=root,
        env=os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def phases_of_the_plan():
    """Return the minutes of the phases for the first half hour, and of those for later."""
    lines = run_script("gpu_check.sh", "--plan").stdout.splitlines()
    found = {"first": {}, "later": {}}
    for line in lines[1:-1]:
        name, minutes, when, _ = line.split(maxsplit=3)
        found[when][name] = float(minutes)
    return found


def test_the_plan_fits_in_25_minutes_with_the_transfers():
    found = phases_of_the_plan()
    assert "transfers" in found["first"]
    assert sum(found["first"].values()) <= 25
    assert max((found["first"] | found["later"]).values()) <= 9  # a command may take ten
    assert run_script("gpu_check.sh").stdout == run_script("gpu_check.sh", "--plan").stdout
    assert run_script("gpu_check.sh", "no-such-phase").returncode == 2


def test_the_docs_have_the_minutes_of_the_plan():
    found = phases_of_the_plan()
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \|", (ROOT / "docs/guide/gpu.md").read_text(encoding="utf-8"), re.M
    )
    assert {name: float(minutes) for name, minutes in rows} | {"transfers": found["first"]["transfers"]} == (
        found["first"] | found["later"]
    )
    assert (
        f"{sum(found['first'].values()):.1f} minutes with the transfers"
        in (ROOT / "docs/guide/gpu.md").read_text()
    )


def test_every_benchmark_is_part_of_the_plan_and_fits_its_minutes(tmp_path):
    plan = phases_of_the_plan()
    minutes = plan["first"] | plan["later"]
    for name, module in bench_gpu.PHASES.items():
        jobs, options = import_module(module).jobs(), bench_gpu.Options(1.0, 5.0, tmp_path)
        if name == "scaling":  # as on a GPU; two workers run if time is left
            jobs = {peer: cases for peer, cases in clusters.jobs("cuda").items() if "2 workers" not in peer}
            assert len(jobs) == 5
        assert bench_gpu.estimate(import_module(module), jobs, options) / 60 <= minutes[name], name


def write_wheel(folder, name, version="1.0"):
    """Write a wheel with one empty module."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow
def test_wheels_beside_an_unpacked_stack_are_used(tmp_path):
    stack = tmp_path / "a stack, it's here"
    for name in ("cudf", "dask_cudf"):
        (stack / name).mkdir(parents=True)
        (stack / name / "__init__.py").touch()
    whole = write_wheel(stack, "dask_cuda").read_bytes()
    next(stack.glob("*.whl")).rename(stack / "w")
    for i, part in enumerate((whole[:100], whole[100:])):
        (stack / f"dask_cuda-1.0-py3-none-any.whl.0{i}").write_bytes(part)
    folders = {"NEMO_EMBED_STACK": str(stack), "NEMO_EMBED_SITE": str(tmp_path / "site"), "OUT": str(tmp_path)}
    done = run_script("gpu_check.sh", "frames", **folders)
    assert "unpacked dask_cuda-1.0-py3-none-any.whl" in done.stdout
    missing = re.search(r"MISSING MODULES: (.*)\.", done.stdout)
    assert not missing or not {"cudf", "dask_cudf", "dask_cuda"} & {*missing[1].split()}
    assert "==== frames: exit 0" in done.stdout, done.stdout + done.stderr
    assert "NO GPU FOUND" in done.stdout
    assert done.returncode == 1  # a check without a GPU has failed
    log = (tmp_path / "frames.log").read_text()
    assert "skipped" in log
    assert log in done.stdout


@pytest.mark.slow
def test_a_phase_that_hangs_is_stopped_and_keeps_its_output(tmp_path):
    """A python3 that hangs in pytest takes the place of the real one."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(
        '#!/bin/sh\ncase "$*" in *pytest\\ -q*) echo "tests may take $PYTEST_TIMEOUT s"; sleep 60;; '
        f'*) exec {sys.executable} "$@";; esac\n'
    )
    python.chmod(0o755)
    folders = {"NEMO_EMBED_SITE": str(tmp_path / "site"), "OUT": str(tmp_path), "NEMO_EMBED_STACK": ""}
    path = f"{python.parent}:{os.environ['PATH']}"
    done = run_script("gpu_check.sh", "frames", "kernels", PATH=path, NEMO_EMBED_LIMIT_S="25", **folders)
    assert "==== frames: exit 124" in done.stdout, done.stdout + done.stderr
    assert "==== kernels: no time left" in done.stdout
    assert (tmp_path / "frames.log").read_text() == "tests may take 90 s\n"


@pytest.mark.parametrize("pieces", [(0,), (1,), (0, 2)])
def test_a_missing_piece_of_a_wheel_is_named(pieces, tmp_path):
    stack = tmp_path / "stack"
    stack.mkdir()
    wheel = write_wheel(stack, "model")
    whole = wheel.read_bytes()
    wheel.unlink()
    for i in pieces:
        (stack / f"{wheel.name}.0{i}").write_bytes(whole[100 * i : 100 * i + 100])
    folders = {"NEMO_EMBED_STACK": str(stack), "NEMO_EMBED_SITE": str(tmp_path / "site"), "OUT": str(tmp_path)}
    done = run_script("gpu_check.sh", "frames", **folders)
    assert done.returncode == 1
    first = min({0, 1, 2} - {*pieces})
    assert f"cannot unpack {wheel.name} of {stack}: {wheel.name}.0{first} is missing" in done.stderr


@pytest.fixture
def prepared(tmp_path):
    """Run gpu_prepare.sh over small files in a repository of its own; return that, the wheel and the result."""
    pytest.importorskip("pip", reason="gpu_prepare.sh runs pip, which environments made by uv lack")
    root, stack, wheels = (tmp_path / name for name in ("checkout", "stack", "wheels"))
    for folder in (root / "benchmarks", stack, wheels):
        folder.mkdir(parents=True)
    for name in ("benchmarks/gpu_prepare.sh", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    for name in ("take.sh", "pieces.count", *(f"r.tar.xz.0{i}" for i in range(3))):
        (stack / name).write_text(name)
    for name in ("short_wordnet.parquet", "medium_agnews.parquet", "medium_debian.parquet", "long_mix.parquet"):
        (stack / name).write_text(name)
    (stack / "stsb_test.tsv").write_text("")
    for name in ("toolz", "cloudpickle", "partd", "locket"):
        write_wheel(wheels, name)
    script = (ROOT / "benchmarks" / "gpu_prepare.sh").read_text()
    write_wheel(wheels, "dask", re.search(r" dask==([\d.]+) ", script)[1])
    model = write_wheel(tmp_path, "model")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    return root, model, run_script("gpu_prepare.sh", stack, stack, model, ".gpu", root=root, **pip)


def test_what_travels_is_complete_and_its_commands_run_the_plan(prepared):
    root, model, done = prepared
    assert done.returncode == 0, done.stderr
    folders = [root / ".gpu" / f"c{i}" for i in range(1, 6)]
    files = {path.name for folder in folders for path in folder.rglob("*")}
    assert {"r.tar.xz.00", "r.tar.xz.01", "r.tar.xz.02", "long_mix.parquet", "stsb_test.tsv"} <= files
    assert len([*(folders[0] / "wheels").glob("*.whl")]) == 5
    parts = [next(folder.glob(f"{model.name}.0{i}")) for i, folder in enumerate(folders[3:])]
    assert b"".join(part.read_bytes() for part in parts) == model.read_bytes()
    commands = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [folder for folder, _ in commands][:5] == [f".gpu/c{i}" for i in range(1, 6)]
    run = [
        phase
        for _, command in commands
        if "gpu_check" in command
        for phase in command.split("gpu_check.sh ")[1].split()
    ]
    assert sorted(run) == sorted({*phases_of_the_plan()["first"]} - {"transfers"})
    assert max(len(command) for _, command in commands) <= 2000
    assert "python -m benchmarks.gpu.report FILES" in done.stdout.splitlines()[-1]


def test_a_folder_that_git_does_not_ignore_is_refused(prepared):
    root, model, _ = prepared
    done = run_script("gpu_prepare.sh", root.parent / "stack", root, model, "out", root=root)
    assert done.returncode == 1
    assert "git does not ignore out" in done.stderr
