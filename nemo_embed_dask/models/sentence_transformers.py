"""Read the configuration files that sentence-transformers 2 to 6 write into a model's directory.

``modules.json`` lists the model's modules in order, each with its folder. Everything that this package does
not know raises a ModelError, because ignoring it would change the vectors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError

# The transformer's settings. Older versions name the file after the kind of transformer.
TRANSFORMER_FILES = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
# (the mode's name in this package, in ``pooling_mode``, and as a flag in older files). The vectors of several
# flags are concatenated in this order.
POOLING_MODES = [
    ("cls", "cls", "pooling_mode_cls_token"),
    ("max", "max", "pooling_mode_max_tokens"),
    ("mean_pooling", "mean", "pooling_mode_mean_tokens"),
    ("mean_sqrt_len", "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    ("weighted_mean", "weightedmean", "pooling_mode_weightedmean_tokens"),
    ("last_token", "lasttoken", "pooling_mode_lasttoken"),
]
# Modules that may follow the pooling. Dropout does nothing at inference.
LAYERS = ("Dense", "LayerNorm", "Normalize")
IGNORED = ("Dropout",)
_MODULES = ("Transformer", "Pooling", *LAYERS, *IGNORED)
# Arguments that a model's files may pass on to transformers, and those among them that this package applies or
# that do not change a vector. Each group has an older and a newer name.
_MODEL_ARGUMENTS = {"torch_dtype", "dtype", "attn_implementation", "add_pooling_layer", "low_cpu_mem_usage"}
_TOKENIZER_ARGUMENTS = {"model_max_length", "padding_side", "use_fast"}
_KNOWN_ARGUMENTS: dict[str, set[str]] = {
    "model_args": _MODEL_ARGUMENTS,
    "model_kwargs": _MODEL_ARGUMENTS,
    "tokenizer_args": _TOKENIZER_ARGUMENTS,
    "processor_kwargs": _TOKENIZER_ARGUMENTS,
    "config_args": set(),
    "config_kwargs": set(),
    "processing_kwargs": set(),
}


@dataclass(frozen=True)
class Layer:
    """A module after the pooling: its ``kind`` is one of `LAYERS`, ``path`` is its folder."""

    kind: str
    path: Path
    config: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class HeadConfig:
    """The pooling and the layers after it, as a model's files describe them. Fields as in `ModelCard`."""

    pooling: str
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the model again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, or an empty one if there is no such file."""
    loaded = _load_json(path)
    return loaded if isinstance(loaded, dict) else {}


def load_failure(error: Exception, config_file: Path | None = None) -> str:
    """Return why a library cannot load a model: ``config_file`` names custom code, or the error's message."""
    if config_file is not None and "auto_map" in read_json(config_file):
        return f"{config_file.name} names code in the model's directory"
    first_sentence = f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0]
    return first_sentence.rstrip(" .")[:300]


def read_modules(path: Path) -> list[tuple[str, str]]:
    """Return the model's modules in order, as (kind, folder).

    Without ``modules.json`` the transformer is the only one.
    """
    listed = _load_json(path / "modules.json")
    if not listed:
        return [("Transformer", "")]
    modules = []
    for entry in sorted(listed, key=lambda entry: entry["idx"]):
        kind = entry["type"].rpartition(".")[2]
        if kind not in _MODULES or not entry["type"].startswith("sentence_transformers."):
            raise _unsupported(path, entry["type"], "it is not one of sentence-transformers' modules for text")
        modules.append((kind, entry["path"]))
    if modules[0][0] != "Transformer":
        raise _unsupported(path, modules[0][0], "the first module must be the Transformer")
    return modules


def _unsupported(path: Path, module: str, why: str) -> ModelError:
    return ModelError(
        f"model {path.name!r} has the module {module!r}, which is not supported ({why}) and cannot be left out "
        f"without changing the vectors; use a model made of {', '.join(_MODULES)}"
    )


def read_transformer(path: Path) -> dict[str, Any]:
    """Read the transformer's settings from its folder.

    ``max_seq_length`` is the token limit that applies, if one is stated.

    Raises
    ------
    ModelError
        The settings ask for something that this package does not do.
    """
    settings = next((found for name in TRANSFORMER_FILES if (found := read_json(path / name))), {})
    _check_task(path, settings)
    _check_modality(path, settings)
    for group, known in _KNOWN_ARGUMENTS.items():
        arguments = settings.get(group) or {}
        _check_arguments(path, group, arguments, known)
        if arguments.get("model_max_length") is not None:
            settings["max_seq_length"] = arguments["model_max_length"]
    return settings


def _check_task(path: Path, settings: dict[str, Any]) -> None:
    task = settings.get("transformer_task", "feature-extraction")
    output = settings.get("module_output_name", "token_embeddings")
    if task != "feature-extraction" or output != "token_embeddings":
        raise _unsupported(path, "Transformer", f"its task is {task!r} and its output {output!r}")


def _check_modality(path: Path, settings: dict[str, Any]) -> None:
    modalities = settings.get("modality_config", {"text": {}})
    if modalities.get("text") is None:
        raise _unsupported(path, "Transformer", "it takes no text")
    output = modalities["text"].get("method_output_name", "last_hidden_state")
    if output != "last_hidden_state":
        raise _unsupported(path, "Transformer", f"its output is {output!r}")
    if "message" in modalities:
        raise _unsupported(path, "Transformer", "it puts texts into a chat template ('message')")


def _check_arguments(path: Path, group: str, arguments: dict[str, Any], known: set[str]) -> None:
    given = {name for name, value in arguments.items() if value not in ({}, None)}
    unknown = sorted(given - known - {"trust_remote_code"})
    if unknown:
        raise _unsupported(path, "Transformer", f"its {group} has {unknown[0]!r}")
    if "/" in str(arguments.get("attn_implementation")):
        raise _unsupported(path, "Transformer", f"its {group} names an attention kernel on the hub")


def read_head(path: Path, modules: list[tuple[str, str]]) -> HeadConfig | None:
    """Read the pooling and the layers after it; None if the model has only a transformer.

    Raises
    ------
    ModelError
        There is not exactly one pooling after the transformer, or a layer cannot be run.
    """
    after_transformer = [(kind, path / folder) for kind, folder in modules[1:] if kind not in IGNORED]
    if not after_transformer:
        return None
    kinds = [kind for kind, _ in after_transformer]
    if kinds[0] != "Pooling" or kinds.count("Pooling") != 1:
        order = " > ".join(kind for kind, _ in modules)
        raise _unsupported(path, order, "exactly one Pooling must follow the Transformer")
    (_, pooling_folder), *rest = after_transformer
    pooling = read_json(pooling_folder / "config.json")
    return HeadConfig(
        pooling=_pooling_name(path, pooling),
        include_prompt=pooling.get("include_prompt", True),
        layers=tuple(_read_layer(path, kind, folder) for kind, folder in rest),
    )


def _read_layer(path: Path, kind: str, folder: Path) -> Layer:
    config = read_json(folder / "config.json")
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise _unsupported(path, kind, f"its {key} is {config[key]!r}")
    return Layer(kind, folder, config)


def _pooling_name(path: Path, config: dict[str, Any]) -> str:
    """Return the pooling's name in this package; several modes are joined by "+"."""
    mode = config.get("pooling_mode")
    if mode is None:
        return _pooling_name_from_flags(path, config)
    names = {theirs: ours for ours, theirs, _ in POOLING_MODES}
    modes = [mode] if isinstance(mode, str) else dict.fromkeys(mode)
    for one in modes:
        if one not in names:
            raise _unsupported(path, "Pooling", f"its mode is {one!r}")
    return "+".join(names[one] for one in modes) or "mean_pooling"


def _pooling_name_from_flags(path: Path, config: dict[str, Any]) -> str:
    """Return the pooling's name from older files, which have one flag per mode."""
    flags = {name for name, value in config.items() if name.startswith("pooling_mode_") and value}
    unknown = sorted(flags - {flag for _, _, flag in POOLING_MODES})
    if unknown:
        raise _unsupported(path, "Pooling", f"its mode is {unknown[0]!r}")
    return "+".join(ours for ours, _, flag in POOLING_MODES if flag in flags) or "mean_pooling"
