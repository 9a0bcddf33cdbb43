"""The command line: flags follow from the stage; bad input is one line and exit code 2; the demo."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import fields

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet
from nemo_embed_dask.cli import main as cli
from nemo_embed_dask.cli.demo import compose, read_topics
from nemo_embed_dask.cli.flags import stage_from
from nemo_embed_dask.cli.main import main, run
from nemo_embed_dask.jobs.clusters import connect as local
from nemo_embed_dask.jobs.files.target import Target

from ..helpers import faults


def call(*arguments: str):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_parameter_of_the_stage_is_a_flag_with_its_default_and_help():
    options = {option.name: option for option in run.params}
    dicts = {"transformers_init_kwargs"}  # cannot be written on a command line
    assert not dicts & options.keys()
    for item in (item for item in fields(EmbeddingCreatorStage) if item.name not in dicts):
        assert f"--{item.name.replace('_', '-')}" in options[item.name].opts
        assert options[item.name].help, f"{item.name} is not described in the stage's docstring"
    with run.make_context("run", ["in", "out"]) as context:
        assert stage_from(dict(context.params)) == EmbeddingCreatorStage()


def test_flags_reach_the_stage():
    flags = [
        "in",
        "out",
        "--no-autocast",
        "--max-seq-length",
        "7",
        "--embedding-pooling",
        "cls",
        "--on-error",
        "null",
    ]
    with run.make_context("run", flags) as context:
        stage = stage_from(dict(context.params))
    wanted = EmbeddingCreatorStage(autocast=False, max_seq_length=7, embedding_pooling="cls", on_error="null")
    assert stage == wanted


BAD = {
    "no input": (("{tmp}/nope", "{tmp}/out"), "has no input"),
    "no text column": (("{data}", "{tmp}/out", "--text-field", "body"), "no column 'body'; the columns are"),
    "no such carried column": (("{data}", "{tmp}/out", "--columns", "x"), "no column 'x' to copy"),
    "no model": (("{data}", "{tmp}/out", "--model-identifier", "{tmp}/nothing"), "nothing"),
    "embeddings exist": (
        ("{data}", "{tmp}/out", "--embedding-field", "url"),
        "there is a column 'url' already",
    ),
    "a target of strangers": (("{data}", "{data}/..", "--columns", "id"), "holds files that no job wrote"),
    "unknown pooling": (("{data}", "{tmp}/out", "--embedding-pooling", "nope"), "embedding_pooling="),
    "no number": (("{data}", "{tmp}/out", "--max-seq-length", "0"), "must be a positive whole number"),
    "unknown protocol": (("nope://x", "{tmp}/out"), "use a protocol that fsspec knows"),
    "no report": (("report", "{tmp}"), "is not the target of a job"),
    "no scheduler": (
        ("{data}", "{tmp}/out", "--scheduler", "tcp://127.0.0.1:1"),
        "no Dask scheduler answers at",
    ),
    "no scheduler's file": (("{data}", "{tmp}/out", "--scheduler-file", "{tmp}/x"), "no such file after"),
    "numbers as text": (
        ("{data}", "{tmp}/out", "--text-field", "id"),
        "column 'id' has type int64, but must have strings",
    ),
    "a folder without input": (("{tmp}", "{tmp}/out"), "has no input"),
    "a target that is a file": (
        ("{data}", "{data}/../stranger.txt"),
        "Not a directory); choose another target",
    ),
    "a chained target": (("{data}", "simplecache::s3://b/out"), "is a chained address"),
    "an empty target": (("{data}", ""), "the target's address is empty"),
    "no memory limit": (
        ("{data}", "{tmp}/out", "--memory-limit", "4 gigs"),
        "'4 gigs' is not a memory size; pass",
    ),
    "a negative memory limit": (("{data}", "{tmp}/out", "--memory-limit", "-1"), "'-1' is not a memory size"),
    "two clusters": (
        ("{data}", "{tmp}/out", "--scheduler", "tcp://127.0.0.1:1", "--scheduler-file", "{tmp}/x"),
        "pass either --scheduler or --scheduler-file, not both",
    ),
    "workers for a cluster that runs": (
        ("{data}", "{tmp}/out", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"),
        "--workers, --threads and --memory-limit apply to a local cluster only",
    ),
    "no texts to verify": (("verify", "{data}", "--rows", "-3"), "Invalid value for '--rows': -3"),
    "no cosine": (("verify", "{data}", "--threshold", "2"), "Invalid value for '--threshold': 2"),
    "no number of a cosine": (("verify", "{data}", "--threshold", "nan"), "threshold=nan must be a cosine"),
    "no seconds": (("plan", "{data}", "--seconds", "nan"), "seconds >= 0"),
    "no memory": (("{data}", "{tmp}/out", "--memory-limit", ""), "'' is not a memory size"),
    "one byte of memory": (("{data}", "{tmp}/out", "--memory-limit", "1B"), "'1B' is too little memory"),
    "a scheduler's file without an address": (
        ("{data}", "{tmp}/out", "--scheduler-file", "{data}/../{{}}.json"),
        "",
    ),
    "a scheduler's file of another kind": (
        ("{data}", "{tmp}/out", "--scheduler-file", "{data}/../stranger.txt"),
        "",
    ),
    "no ranges": (("{data}", "{tmp}/out", "--embedding-dtype", "int8"), "calibrate(stage, texts, path)"),
    "no adapter": (("{data}", "{tmp}/out", "--adapter", "{tmp}/x"), "not a directory with an adapter"),
    "a name in the way": (("{data}", "{tmp}/out", "--n-tokens-field", "id"), "there is a column 'id' already"),
    "no report in a file": (("report", "{data}/../stranger.txt"), "is not the target of a job"),
    "nothing to verify": (("verify", "{tmp}/nope"), "has no Parquet files that can be read"),
    "nothing to plan with": (("plan", "{tmp}"), "has no Parquet files that can be read"),
    "numbers to verify": (("verify", "{data}", "--text-field", "id"), "column 'id' has dtype"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "stranger.txt").write_text("a user's own")
    (folder / "{}.json").write_text("{}")
    return faults.write_inputs(folder / "in", files=2)


@pytest.fixture
def in_process(monkeypatch):
    """Run jobs in this process: what is tested is not the cluster."""

    @contextmanager
    def here(parameters, hf_token=None):
        for name in ("scheduler", "scheduler_file", "workers", "threads", "memory_limit"):
            parameters.pop(name)
        yield None

    monkeypatch.setattr(cli, "cluster", here)


@pytest.fixture
def no_cluster(monkeypatch):
    """What is wrong with a command is seen before a cluster is started."""
    monkeypatch.setattr(local, "local_cluster", lambda **_: pytest.fail("a cluster was started"))
    monkeypatch.setattr(local, "_TIMEOUT_S", 0.5)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.usefixtures("no_cluster")
def test_bad_input_is_one_line_and_exit_code_2(kind, data, tiny, tmp_path):
    arguments, said = BAD[kind]
    filled = [argument.format(tmp=tmp_path, data=data) for argument in arguments]
    if filled[0] != "report" and "--model-identifier" not in filled:
        filled += ["--model-identifier", str(tiny("bert"))]
    result = call(*filled)
    assert result.exit_code == 2, result.output
    assert said in result.output and "Traceback" not in result.output
    if "Usage:" not in result.output:
        assert len(result.output.strip().splitlines()) == 1, result.output


@pytest.mark.parametrize("limit", ["auto", "0", "4GB", "1.5 GiB"])
def test_sizes_of_memory_are_those_of_dask(limit):
    with run.make_context("run", ["in", "out", "--memory-limit", limit]) as context:
        assert context.params["memory_limit"] == limit


@pytest.mark.usefixtures("no_cluster")
def test_a_complete_target_or_a_changed_setting_needs_no_cluster(data, tiny, tmp_path):
    model, target = str(tiny("bert")), str(tmp_path / "out")
    embed_parquet(EmbeddingCreatorStage(model_identifier=model), str(data), target)
    again = call(data, target, "--model-identifier", model)
    assert again.exit_code == 0 and "nothing to do" in again.output
    other = call(data, target, "--model-identifier", model, "--max-seq-length", "7")
    assert other.exit_code == 2 and "settings.max_seq_length: None before, 7 now" in other.output
    with Target(target).lock():
        second = call(data, target, "--model-identifier", model)
    assert second.exit_code == 2 and "another run (process" in second.output


@pytest.mark.usefixtures("in_process")
def test_run_by_default_summary_and_report(data, tiny, tmp_path):
    target = tmp_path / "out"
    result = call(data, target, "--model-identifier", tiny("bert"), "--columns", "id")
    assert result.exit_code == 0, result.output
    for word in (
        "documents  120",
        "tokens",
        "truncated",
        "null  4 documents",
        "documents/s",
        "tokens/s",
        "padding waste",
    ):
        assert word in result.output, (word, result.output)
    assert pq.read_schema(next(target.glob("*.parquet"))).names == ["id", "embeddings"]
    picture = tmp_path / "r.png"
    shown = call("report", target, "--picture", picture)
    assert shown.exit_code == 0 and "documents  120" in shown.output, shown.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    figures = json.loads((target / "_nemo_embed/report.json").read_text())
    assert figures["complete"] and figures["limit"] in {"host", "device"} and figures["tokens_per_s"] > 0
    assert (
        "nothing to do"
        in call("run", data, target, "--model-identifier", tiny("bert"), "--columns", "id").output
    )


@pytest.mark.usefixtures("in_process")
def test_a_failed_file_gives_exit_code_1(data, tiny, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"no")
    result = call(data, tmp_path / "bad.parquet", tmp_path / "out", "--model-identifier", tiny("bert"))
    assert result.exit_code == 1 and "bad.parquet cannot be read" in result.output


def test_token_is_in_no_output_file(data, tiny, tmp_path):
    secret = "hf_thisIsASecret"
    stage = EmbeddingCreatorStage(model_identifier=str(tiny("bert")), hf_token=secret)
    embed_parquet(stage, str(data), str(tmp_path / "out"))
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_the_composed_corpus_is_the_same_each_time_and_of_all_topics():
    table = compose(2000)
    assert table.equals(compose(2000)) and set(table["topic"].to_pylist()) == set(read_topics())
    texts = table["text"].to_pylist()
    assert len(set(texts)) > 1900 and all(text[0].isupper() and text.endswith(".") for text in texts)
    assert isinstance(table, pa.Table)


@pytest.mark.usefixtures("in_process")
def test_demo_finds_documents_of_the_query_s_topic(minilm, tmp_path):
    result = call("demo", tmp_path, "--documents", "400", "--model-identifier", minilm)
    assert result.exit_code == 0, result.output
    bread, sea, computers = result.output.split("\n\n")[1:]
    assert bread.count("[baking]") >= 3 and computers.count("[computer security]") >= 3
    assert "[sailing]" in sea or "[weather]" in sea
