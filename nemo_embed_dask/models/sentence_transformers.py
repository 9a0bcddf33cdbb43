"""The files that sentence-transformers 2 to 6 wrote into a model's directory. Knows their names and keys only.

``modules.json`` names the modules in order, each with a folder; what it does not name, a model does not
have. What this package does not know is an error, never skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError

_SENTENCE_CONFIGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
# A pooling's name here, in ``pooling_mode``, and as the flag of older files; a model that sets several
# flags concatenates them in this order.
POOLINGS = [
    ("cls", "cls", "pooling_mode_cls_token"),
    ("max", "max", "pooling_mode_max_tokens"),
    ("mean_pooling", "mean", "pooling_mode_mean_tokens"),
    ("mean_sqrt_len", "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    ("weighted_mean", "weightedmean", "pooling_mode_weightedmean_tokens"),
    ("last_token", "lasttoken", "pooling_mode_lasttoken"),
]
# Modules that may follow the pooling. Dropout does nothing outside of training.
LAYERS = ("Dense", "LayerNorm", "Normalize")
IGNORED = ("Dropout",)
# What a model may tell transformers on the side (older and newer name of the same), and which of it is
# obeyed or changes no vector.
_MODEL = {"torch_dtype", "dtype", "attn_implementation", "add_pooling_layer", "low_cpu_mem_usage"}
_TOKENIZER = {"model_max_length", "padding_side", "use_fast"}
_SIDE: list[tuple[str, set[str]]] = [
    ("model_args", _MODEL), ("model_kwargs", _MODEL),
    ("tokenizer_args", _TOKENIZER), ("processor_kwargs", _TOKENIZER),
    ("config_args", set()), ("config_kwargs", set()), ("processing_kwargs", set()),
]  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A module behind the pooling: ``kind`` is one of `LAYERS`, ``path`` its folder."""

    kind: str
    path: Path
    config: dict[str, Any] = field(default_factory=dict, repr=False)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the model again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A file's object; an empty one where there is no such file."""
    loaded = _load(path)
    return loaded if isinstance(loaded, dict) else {}


def reason(error: Exception, file: Path | None = None) -> str:
    """Say why a library cannot load a model: ``file`` names code of its own, or the error's first sentence."""
    if file is not None and "auto_map" in read_json(file):
        return f"{file.name} names code of its own"
    return f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0].rstrip(" .")[:300]


def read_modules(path: Path) -> list[tuple[str, str]]:
    """The modules of ``modules.json`` in order, (kind, folder); the transformer alone without such a file."""
    listed = _load(path / "modules.json")
    if not listed:
        return [("Transformer", "")]
    modules = []
    for entry in sorted(listed, key=lambda entry: entry["idx"]):
        kind = entry["type"].rpartition(".")[2]
        known = kind in ("Transformer", "Pooling", *LAYERS, *IGNORED)
        if not known or not entry["type"].startswith("sentence_transformers."):
            raise _unknown(path, entry["type"], "only modules of sentence-transformers for text are known")
        modules.append((kind, entry["path"]))
    if modules[0][0] != "Transformer":
        raise _unknown(path, modules[0][0], "the first module must be the Transformer")
    return modules


def _unknown(path: Path, module: str, why: str) -> ModelError:
    known = ", ".join(("Transformer", "Pooling", *LAYERS, *IGNORED))
    return ModelError(
        f"model {path.name!r} has the module {module!r}, which this package cannot run: {why}. Running it "
        f"otherwise would give other vectors than the model's; use a model made of {known}"
    )


def read_transformer(home: Path) -> dict[str, Any]:
    """What is said of the transformer; ``max_seq_length`` is the limit that counts, if any is stated."""
    config = next((c for c in (read_json(home / name) for name in _SENTENCE_CONFIGS) if c), {})
    task = config.get("transformer_task", "feature-extraction")
    output = config.get("module_output_name", "token_embeddings")
    modalities = config.get("modality_config", {"text": {}})
    text = modalities.get("text")
    if task != "feature-extraction" or output != "token_embeddings" or text is None:
        raise _unknown(home, "Transformer", f"it has the task {task!r} and gives {output!r}")
    if text.get("method_output_name", "last_hidden_state") != "last_hidden_state":
        raise _unknown(home, "Transformer", f"it gives {text['method_output_name']!r}")
    if "message" in modalities:
        raise _unknown(home, "Transformer", "it puts texts into a chat template ('message')")
    for name, known in _SIDE:
        asked = {key for key, value in (config.get(name) or {}).items() if value not in ({}, None)}
        if unknown := sorted(asked - known - {"trust_remote_code"}):
            raise _unknown(home, "Transformer", f"its {name} has {unknown[0]!r}")
        if "/" in str((config.get(name) or {}).get("attn_implementation")):
            raise _unknown(home, "Transformer", f"its {name} name an attention kernel to fetch from the hub")
        if "model_max_length" in asked:
            config["max_seq_length"] = config[name]["model_max_length"]
    return config


def read_behind(path: Path, modules: list[tuple[str, str]]) -> dict[str, Any]:
    """Pooling and the layers behind it, as fields of a card; empty where there is neither."""
    rest = [(kind, path / folder) for kind, folder in modules[1:] if kind not in IGNORED]
    if not rest:
        return {}
    if [kind for kind, _ in rest].count("Pooling") != 1 or rest[0][0] != "Pooling":
        order = " > ".join(kind for kind, _ in modules)
        raise _unknown(path, order, "exactly one Pooling must follow the Transformer")
    said = read_json(rest[0][1] / "config.json")
    layers = tuple(Layer(kind, folder, read_json(folder / "config.json")) for kind, folder in rest[1:])
    for layer in layers:
        for key in ("module_input_name", "module_output_name"):
            if layer.config.get(key) not in (None, "sentence_embedding"):
                raise _unknown(path, layer.kind, f"its {key} is {layer.config[key]!r}")
    return {
        "pooling": _pooling(path, said), "include_prompt": said.get("include_prompt", True), "layers": layers,
    }  # fmt: skip


def _pooling(path: Path, config: dict[str, Any]) -> str:
    mode = config.get("pooling_mode")
    if mode is None:
        asked = {name for name, value in config.items() if name.startswith("pooling_mode_") and value}
        known = {flag: ours for ours, _, flag in POOLINGS}
    else:
        asked = {mode} if isinstance(mode, str) else dict.fromkeys(mode)  # type: ignore[assignment]
        known = {theirs: ours for ours, theirs, _ in POOLINGS}
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise _unknown(path, "Pooling", f"it has the mode {unknown[0]!r}")
    ordered = [name for name in known if name in asked] if mode is None else list(asked)
    return "+".join(known[name] for name in ordered) or "mean_pooling"
