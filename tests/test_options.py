"""Parameters are declared once; constructors, checks, flags, fingerprints and documentation follow."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import get_args

import pytest
from click.testing import CliRunner

from nemo_embed_dask import ConfigError, EmbeddingCreatorStage, EmbeddingModelStage, ModelStage, TokenizerStage
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.number_types import NumberType
from nemo_embed_dask.options import hints_of, option, option_of
from nemo_embed_dask.runtimes import RUNTIMES
from nemo_embed_dask.settings import Shared
from nemo_embed_dask.stages.signature import parameters
from nemo_embed_dask.vectors.quantization import DTYPES

from .helpers import faults

# Curator's signatures: names, order and defaults, which may not change. Ours follow, by keyword only.
TOKENIZER = (
    "(model_identifier, *, hf_token=None, text_field='text', max_chars=None, max_seq_length=None, "
    "padding_side='right', sort_by_length=True, unk_token=False"
)
MODEL = (
    "(model_identifier, embedding_field='embeddings', pooling='mean_pooling', hf_token=None, "
    "model_inference_batch_size=1024, has_seq_order=True, padding_side='right', autocast=True, *, "
    "max_seq_length=None"
)
CREATOR = (
    "(*, model_identifier='sentence-transformers/all-MiniLM-L6-v2', text_field='text', "
    "embedding_field='embeddings', max_chars=None, max_seq_length=None, padding_side='right', "
    "embedding_pooling='mean_pooling', model_inference_batch_size=1024, autocast=True, sort_by_length=True, "
    "hf_token=None"
)
SHARED = {"on_error": "raise", "prompt": None, "prompt_name": None, "long_documents": "truncate", "overlap": 0}
FILES = {"revision": None, "cache_dir": None, "trust_remote_code": False, "code_revision": None,
         "transformers_init_kwargs": None}  # fmt: skip
READING = {"tokenizer": "auto", "n_tokens_field": None, "truncated_field": None}
COMPUTING = {"normalize": None, "truncate_dim": None, "embedding_dtype": "float32", "share_equal_texts": True,
             "runtime": "torch", "compile": False, "adapter": None, "overwrite": False, "extra_embeddings": (),
             "calibration": None}  # fmt: skip
SIGNATURES = {
    TokenizerStage: (TOKENIZER, SHARED | FILES | READING),
    ModelStage: (
        "(model_identifier, *, hf_token=None, model_inference_batch_size=256, has_seq_order=True, "
        "padding_side='right', max_seq_length=None, unpack_inference_batch=False, autocast=True",
        FILES,
    ),
    EmbeddingModelStage: (MODEL, SHARED | FILES | COMPUTING),
    EmbeddingCreatorStage: (
        CREATOR,
        SHARED | FILES | READING | COMPUTING | {"use_sentence_transformer": False},
    ),
}


@pytest.mark.parametrize("stage", SIGNATURES)
def test_signatures_are_curator_s_and_ours_follow_by_keyword(stage):
    found = inspect.signature(stage).parameters.values()
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found]
    curator, ours = SIGNATURES[stage]
    count = len(plain) - len(ours)
    assert str(inspect.Signature(plain[:count])) == f"{curator})"
    assert {parameter.name: parameter.default for parameter in plain[count:]} == ours
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in plain[count:])


def test_names_of_choices_are_those_that_the_code_has():
    assert get_args(NumberType) == tuple(DTYPES)
    assert get_args(hints_of(EmbeddingCreatorStage)["runtime"]) == RUNTIMES


def test_every_parameter_has_help_in_docstrings_and_flags():
    shown = " ".join(CliRunner().invoke(main, ["run", "--help"], terminal_width=200).output.split())
    for item in fields(EmbeddingCreatorStage):
        text = option_of(item).help
        assert text.endswith("."), item.name
        if item.name == "transformers_init_kwargs":  # a dict has no flag
            continue
        assert f"--{item.name.replace('_', '-')}" in shown
        assert text.replace("`", "") in shown, item.name
    for stage in SIGNATURES:
        doc = " ".join(inspect.getdoc(stage).split())
        for item in fields(stage):
            assert f" {item.name} : " in doc and option_of(item).help in doc, (stage, item.name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"autocast": "no"}, "autocast='no' must be True or False"),
        ({"normalize": 1}, "normalize=1 must be True or False"),
        ({"overwrite": None}, "overwrite=None must be True or False"),
        ({"overlap": -1, "long_documents": "mean"}, "overlap=-1 must be a whole number, 0 or more"),
        ({"overlap": 5}, "overlap=5 has no effect with long_documents='truncate'"),
        ({"prompt": "a", "prompt_name": "b"}, "prompt and prompt_name contradict each other"),
        ({"prompt": 5}, "prompt=5 must be a string"),
        ({"text_field": ""}, "text_field='' must not be empty"),
        ({"text_field": None}, "text_field=None must be a string"),
        ({"adapter": ""}, "adapter='' must not be empty"),
        ({"cache_dir": ""}, "cache_dir='' must not be empty"),
        ({"embedding_field": ""}, "embedding_field='' must not be empty"),
        ({"n_tokens_field": ""}, "n_tokens_field='' must not be empty"),
        ({"extra_embeddings": "q:int8"}, "extra_embeddings='q:int8' must be a tuple of strings"),
        ({"embedding_pooling": None}, "embedding_pooling=None must be a string"),
        (
            {"embedding_dtype": "int4"},
            "embedding_dtype='int4' is unknown; choose one of float32, float16, int8",
        ),
        ({"runtime": ["torch"]}, "is unknown; choose one of torch, openvino"),
        ({"max_seq_lenght": 64}, "has no parameter 'max_seq_lenght'; did you mean 'max_seq_length'?"),
        ({"zzz": 64}, "has no parameter 'zzz'; its parameters are model_identifier, text_field"),
    ],
)
def test_values_that_can_only_be_mistakes_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        EmbeddingCreatorStage(**values)
    assert message in str(caught.value)


def test_the_halves_refuse_them_too():
    for stage in (TokenizerStage, EmbeddingModelStage):
        with pytest.raises(ConfigError, match="overlap=2 has no effect"):
            stage("m", overlap=2)
        with pytest.raises(
            ConfigError, match=f"{stage.__name__} has no parameter 'overlaps'; did you mean 'overlap'"
        ):
            stage("m", overlaps=2)
    with pytest.raises(ConfigError, match="has_seq_order='yes' must be True or False"):
        EmbeddingModelStage("m", has_seq_order="yes")


def test_a_group_gains_a_field_in_a_subclass():
    @dataclass(frozen=True, kw_only=True)
    class More(Shared):
        knob: int = option(3, minimum=2, help="A knob.")
        unlimited: int = option(3, help="A knob without a minimum.")

    @parameters()
    @dataclass(frozen=True, kw_only=True)
    class Stage(EmbeddingCreatorStage, More):
        """A stage."""

    assert "knob : int, default 3\n    A knob." in inspect.getdoc(Stage)
    with pytest.raises(ConfigError, match="knob=1 must be a whole number, 2 or more"):
        Stage(knob=1)
    with pytest.raises(ConfigError, match=r"unlimited=2.5 must be a whole number$"):
        Stage(unlimited=2.5)
    assert Stage(unlimited=-5).unlimited == -5


ONE_LINE = '    knob: int = option(3, minimum=2, help="A new knob.")\n'
PROOF = """
import inspect, json
from click.testing import CliRunner
import pyarrow as pa
from nemo_embed_dask import EmbeddingCreatorStage
from nemo_embed_dask.cli.main import main
from nemo_embed_dask.jobs.units.fingerprint import fingerprint, settings_by_value
from tests.test_docs_parameters import page

stage = EmbeddingCreatorStage(knob=7)
print(json.dumps({
    "flag": "--knob INTEGER" in CliRunner().invoke(main, ["run", "--help"]).output,
    "halves": [half.knob for half in stage.decompose()],
    "settings": [stage.settings.knob, *(half.settings.knob for half in stage.decompose())],
    "table": "knob" in settings_by_value(EmbeddingCreatorStage),
    "fingerprint": fingerprint(stage, {}, pa.schema([]), 1)["settings"]["knob"],
    "page": "| `knob` | int | `3` | A new knob. | yes |" in page(),
    "help": "knob : int, default 3" in inspect.getdoc(EmbeddingCreatorStage),
}))
"""


def test_a_parameter_of_both_halves_is_one_new_line(tmp_path):
    """A copy of the package in which `Shared` has one more field, and nothing else is changed."""
    for folder in ("nemo_embed_dask", "tests"):
        shutil.copytree(
            faults.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "gpu")
        )
    settings = tmp_path / "nemo_embed_dask" / "settings.py"
    before, found, after = settings.read_text().partition("    overlap: int = option(\n")
    assert found
    settings.write_text(before + ONE_LINE + found + after)
    done = subprocess.run(
        [sys.executable, "-c", PROOF], cwd=tmp_path, env=faults.environment(PYTHONPATH=str(tmp_path)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "flag": True, "halves": [7, 7], "settings": [7, 7, 7], "table": True, "fingerprint": 7, "page": True,
        "help": True,
    }  # fmt: skip
