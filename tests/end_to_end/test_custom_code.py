"""Custom code of a model runs only with ``trust_remote_code=True``, and not after an answer on standard input."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import transformers

from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet
from nemo_embed_dask.errors import EmbedError

from ..helpers.cards import build, rewrite
from ..helpers.faults import environment
from ..helpers.own_code import copy_code, make_own
from ..helpers.versions import NEEDS_OPENVINO

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("nemo_embed_dask", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
# Methods and classes of transformers, sentence-transformers and peft that can import code named by a model.
METHODS = {"from_pretrained", "from_config", "get_class_from_dynamic_module"}
CHOICES = ("False", "settings.model.trust_remote_code")
CLASSES = {"SentenceTransformer", "SparseEncoder", "CrossEncoder", "Transformer", "pipeline"}


def unsafe_loads(source: str) -> list[str]:
    """Return the uses of these loaders that do not pass False or the user's choice, or under another name."""
    tree, problems = ast.parse(source), []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_loader(node.func):
            given = [word.value for word in node.keywords if word.arg == "trust_remote_code"]
            if len(given) != 1 or ast.unparse(given[0]) not in CHOICES:
                problems.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif _is_loader(node) and id(node) not in called:
            problems.append(
                f"line {node.lineno}: {ast.unparse(node)} is passed on, so its calls are not checked"
            )
        elif isinstance(node, ast.Dict) and "trust_remote_code" in map(_text, node.keys):
            problems.append(f"line {node.lineno}: trust_remote_code in a dict")
    return problems


def _is_loader(node: ast.AST) -> bool:
    if ast.unparse(node) == "StaticModel.from_pretrained":  # model2vec's, which runs no code of models
        return False
    if isinstance(node, ast.Attribute):
        return node.attr in METHODS | CLASSES
    return isinstance(node, ast.Name) and node.id in METHODS | CLASSES


def _text(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def test_every_load_passes_false_or_the_choice_of_the_user():
    assert not {
        str(path.relative_to(ROOT)): bad for path in FILES if (bad := unsafe_loads(path.read_text("utf-8")))
    }
    loads = [path.name for path in FILES if "trust_remote_code=False" in path.read_text("utf-8")]
    assert {"weights.py", "loading.py", "adapter.py", "curator.py"} <= {*loads}


@pytest.mark.parametrize(
    "source",
    [
        "AutoModel.from_pretrained(path)",
        "factory.from_pretrained(path, trust_remote_code=None)",
        "factory.from_pretrained(path, trust_remote_code=True)",
        "transformers.AutoModel.from_config(config, trust_remote_code=trust)",
        "AutoModel.from_pretrained(path, **{'trust_remote_code': False})",
        "load = AutoModel.from_pretrained",
        "encode(SentenceTransformer, texts)",
        "SentenceTransformer(path, model_kwargs={'trust_remote_code': True}, trust_remote_code=False)",
    ],
)
def test_unsafe_loads_are_detected(source):
    assert unsafe_loads(source)
    assert not unsafe_loads("from sentence_transformers import SentenceTransformer\nx: 'AutoModel'")
    assert not unsafe_loads(
        "PeftModel.from_pretrained(model, path, trust_remote_code=False).merge_and_unload()"
    )


CODE = """
import os, pathlib
pathlib.Path(os.environ["MARKER"]).touch()
from transformers import BertConfig as OwnConfig, BertModel as OwnModel, BertTokenizer as OwnTokenizer
OwnModule = tensor_parallel = None
"""
# Runs each request in the main thread: in other threads transformers does not ask on standard input.
SCRIPT = """
import json, sys, warnings
from pathlib import Path
import pandas as pd
from nemo_embed_dask import EmbeddingCreatorStage, TokenizerStage, verify
from nemo_embed_dask.errors import EmbedError

requests, results = json.loads(Path(sys.argv[1]).read_text()), {}
frame = pd.DataFrame({"text": ["a b", "c"]})
for name, (action, parameters) in requests.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if action == "tokenize":
                out = TokenizerStage(**parameters)(frame).input_ids.tolist()
            else:
                stage = EmbeddingCreatorStage(embedding_pooling="auto", autocast=False, **parameters)
                out = verify(stage, frame.text).passed if action == "verify" else len(stage(frame).embeddings[0])
            results[name] = [type(out).__name__, str(out)]
        except Exception as error:
            results[name] = [type(error).__name__, str(error)]
    results[name].append([str(one.message) for one in caught if issubclass(one.category, UserWarning)])
Path(sys.argv[2]).write_text(json.dumps(results))
"""
MODEL_MAP = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
TOKENIZER_MAP = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
# Changes in the files of a model that make them refer to custom code.
MODELS = {
    "unknown": {"config": {"model_type": "strange", "auto_map": MODEL_MAP}},
    "known": {"config": {"auto_map": MODEL_MAP}},
    # transformers has a configuration of this type, but no model
    "half": {"config": {"model_type": "clap_text_model", "auto_map": MODEL_MAP}},
    "upstream": {
        "config": {"model_type": "strange", "auto_map": {"AutoConfig": "someone/model--own.OwnConfig"}}
    },
    "tokenizer": {"tokenizer_config": TOKENIZER_MAP},
    "tokenizer, old list": {"tokenizer_config": {**TOKENIZER_MAP, "auto_map": ["own.OwnTokenizer", None]}},
    "tokenizer, unknown": {"config": {"model_type": "strange"}, "tokenizer_config": TOKENIZER_MAP},
    "module": {"modules": [{"idx": 0, "name": "0", "path": "", "type": "own.OwnModule"}]},
    "kernel": {"config": {"attn_implementation": "someone/kernel"}},
}


def directories(tiny, folder):
    """Return the models by name. For eurobert, transformers has no tokenizer class."""
    made = {name: rewrite(tiny("bert"), folder / name, **files) for name, files in MODELS.items()}
    made["tokenizer, none"] = rewrite(tiny("eurobert"), folder / "none", tokenizer_config=TOKENIZER_MAP)
    dense = build(tiny("bert"), folder / "built", pooling="mean", dense="tanh")
    layer = {"activation_function": "own.OwnModule"}
    made["activation"] = rewrite(dense, folder / "activation", **{"2_Dense__config": layer})
    side = {"model_args": {"attn_implementation": "someone/kernel"}}
    made["kernel, on the side"] = rewrite(dense, folder / "side", sentence_bert_config=side)
    for path in made.values():
        (path / "own.py").write_text(CODE)
    return made


def adapters(tiny, folder):
    """Return adapters whose configuration names modules that peft might import."""
    peft = pytest.importorskip("peft")
    model = transformers.AutoModel.from_pretrained(tiny("bert"), trust_remote_code=False)
    lora = peft.LoraConfig(r=4, target_modules=["query"], init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(folder / "plain")
    mapped = {"auto_mapping": {"base_model_class": "OwnModel", "parent_library": "own"}}
    megatron = {"megatron_config": {"a": 1}, "megatron_core": "own"}
    made = {
        "mapped": rewrite(folder / "plain", folder / "mapped", adapter_config=mapped),
        "megatron": rewrite(folder / "plain", folder / "megatron", adapter_config=megatron),
        "without": rewrite(folder / "plain", folder / "without"),
        "of no kind": rewrite(folder / "plain", folder / "kind", adapter_config={"peft_type": "OWN"}),
    }
    (made["without"] / "adapter_config.json").unlink()
    return made


@pytest.fixture(scope="module")
def answered(tiny, tmp_path_factory):
    """Run all requests in one process whose standard input answers yes to every question."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.py").write_text(CODE)
    requests = {}
    for name, path in directories(tiny, folder).items():
        for action in ("tokenize", "embed", "verify"):
            requests[f"{name}: {action}"] = [action, {"model_identifier": str(path)}]
    for name in ("unknown", "known", "half", "tokenizer, none", "kernel"):
        path = requests[f"{name}: embed"][1]["model_identifier"]
        requests[f"{name}: openvino"] = ["embed", {"model_identifier": path, "runtime": "openvino"}]
    for name, path in adapters(tiny, folder / "adapters").items():
        requests[f"adapter {name}: embed"] = [
            "embed",
            {"model_identifier": str(tiny("bert")), "adapter": str(path)},
        ]
    (folder / "requests.json").write_text(json.dumps(requests))
    # The working directory is on the import path, so own.py can be imported.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "requests.json", "results.json"],
        cwd=folder,
        input="y\n" * 500,
        text=True,
        capture_output=True,
        check=False,
        env=environment(MARKER=str(folder / "marker"), HF_HOME=str(folder / "home")),
    )
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "results.json").read_text()), folder / "marker"


def test_no_custom_code_ran_and_no_question_was_printed(answered):
    done, results, marker = answered
    assert len(results) > 40
    assert not marker.exists()
    assert done.stdout == ""


REFUSED = {
    "unknown": ("embed", "verify", "openvino"),
    "half": ("embed", "verify", "openvino"),
    "upstream": ("embed", "verify"),
    "tokenizer, unknown": ("tokenize", "embed", "verify"),
    "tokenizer, none": ("tokenize", "embed", "verify", "openvino"),
    "module": ("tokenize", "embed", "verify"),
    "activation": ("embed", "verify"),
    "kernel": ("embed", "verify", "openvino"),
    "kernel, on the side": ("tokenize", "embed", "verify"),
    "adapter megatron": ("embed",),
    "adapter without": ("embed",),
    "adapter of no kind": ("embed",),
}


def marked(requests):
    """Return requests as parameters; those of OpenVINO need a newer torch."""
    return [
        pytest.param(request, marks=NEEDS_OPENVINO if request.endswith("openvino") else ())
        for request in requests
    ]


@pytest.mark.parametrize(
    "request_", marked(f"{name}: {action}" for name, done in REFUSED.items() for action in done)
)
def test_models_that_need_custom_code_raise_an_error_of_one_line(answered, request_):
    kind, message, _ = answered[1][request_]
    assert (kind, "\n" in message) == ("ModelError", False), message
    assert any(way in message for way in ("use a", "remove", "pass", "fetch")), message


WORKS = {
    "known: embed": "32",
    "known: verify": "True",
    "known: openvino": "32",
    "tokenizer: embed": "32",
    "tokenizer: verify": "True",
    "tokenizer, old list: embed": "32",
}


@pytest.mark.parametrize("request_", marked(WORKS))
def test_models_that_transformers_implements_run_with_a_warning(answered, request_):
    results, name = answered[1], request_.partition(":")[0]
    assert results[request_][1] == WORKS[request_]
    what = "tokenizer" if name.startswith("tokenizer") else "model"
    warned = results[f"{name}: tokenize"][2]  # a process reads a card once, in this request
    assert [f"has custom {what} code" in text for text in warned] == [True]


def test_the_class_in_an_adapter_is_not_imported(answered):
    assert answered[1]["adapter mapped: embed"][1] == "32"


TRUSTED = """
import json, sys, warnings
import numpy as np, pandas as pd
from nemo_embed_dask import EmbeddingCreatorStage, embed_parquet, verify

warnings.simplefilter("ignore")
own, known, tables, out = sys.argv[1:]
texts, results = ["The quick brown fox.", "a b", "", "c " * 90], {}
pd.DataFrame({"text": texts}).to_parquet(f"{out}/in.parquet")

def stage(path, **changes):
    given = {"trust_remote_code": True, "embedding_pooling": "auto", "autocast": False, **changes}
    return EmbeddingCreatorStage(model_identifier=path, **given)

for name, path in {"own": own, "known": known}.items():
    verdict = verify(stage(path), texts[:2], threshold=0.99999)
    results[name] = [verdict.passed, verdict.third_opinion is not None and verdict.third_opinion > 0.99999]

def vectors(frame):
    return np.array(frame.embeddings.tolist())

from_torch = vectors(stage(own)(pd.DataFrame({"text": texts})))
converted = vectors(stage(own, runtime="openvino")(pd.DataFrame({"text": texts})))
embed_parquet(stage(own), f"{out}/in.parquet", f"{out}/job")
written = vectors(pd.read_parquet(f"{out}/job"))
results["tables"] = [verify(stage(tables), texts[:2], threshold=0.99999).passed]
results |= {"openvino": np.abs(from_torch - converted).max(), "job": np.abs(from_torch - written).max()}
print(json.dumps(results, default=float))
"""


@NEEDS_OPENVINO
@pytest.mark.slow
def test_trusted_code_in_verify_and_in_jobs(tiny, tmp_path):
    """sentence-transformers copies code into its cache, so this runs in a process with a cache of its own."""
    own = make_own(tmp_path / "own", output="output")
    tables = make_own(tmp_path / "tables", output="output", tables=True)
    known = rewrite(
        tiny("bert"), tmp_path / "known", config={"auto_map": {"AutoModel": "modeling_own.OwnBert"}}
    )
    copy_code(known)
    done = subprocess.run(
        [sys.executable, "-c", TRUSTED, str(own), str(known), str(tables), str(tmp_path)],
        text=True,
        capture_output=True,
        check=False,
        env=environment(HF_HOME=str(tmp_path / "home")),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert results["own"] == results["known"] == [True, True]
    assert results["tables"] == [True]  # sentence-transformers has them without values
    assert max(results["openvino"], results["job"]) < 1e-5
    manifest = next((tmp_path / "job").rglob("manifest.json")).read_text()
    assert '"code"' in manifest


def test_a_job_does_not_continue_with_other_code(tmp_path):
    own = make_own(tmp_path / "own")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    stage = EmbeddingCreatorStage(model_identifier=str(own), trust_remote_code=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embed_parquet(stage, tmp_path / "in.jsonl", tmp_path / "job")
        code = own / "modeling_own.py"
        code.write_text(code.read_text() + "# another one")
        with pytest.raises(EmbedError, match=r"model\.code: .* before, .* now"):
            embed_parquet(stage, tmp_path / "in.jsonl", tmp_path / "job")
