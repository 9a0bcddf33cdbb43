"""Read the configuration files that sentence-transformers 2 to 6 write into a model's directory.

Everything that this package does not know raises a ModelError, because ignoring it would change the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ModelError
from .json_files import JsonObject, read_json
from .modules import IGNORED, LAYERS, SPLADE, STATIC, unsupported
from .names import model_file

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
# Keys that a module's config.json must have, and those that it may have. sentence-transformers ignores unknown
# keys of a Dense; with unknown keys, it does not load the others.
_REQUIRED: dict[str, set[str]] = {
    "Pooling": {"embedding_dimension"},
    "Dense": {"in_features", "out_features"},
    "LayerNorm": {"dimension"},
    "Normalize": set(),
    "MultiVectorMask": set(),
    SPLADE: set(),
}
_OPTIONAL = {
    "Pooling": {"pooling_mode", "include_prompt", *(flag for _, _, flag in POOLING_MODES)},
    "LayerNorm": set[str](),
    SPLADE: {"pooling_strategy", "activation_function", "embedding_dimension", "word_embedding_dimension"},
}
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
    config: JsonObject = field(repr=False)


@dataclass(frozen=True)
class HeadConfig:
    """The pooling and the layers after it, as a model's files describe them. Fields as in `ModelCard`."""

    pooling: str
    include_prompt: bool = True
    state_dimension: int | None = None
    layers: tuple[Layer, ...] = ()


def read_transformer(path: Path, task: str | None = "feature-extraction") -> JsonObject:
    """Read the transformer's settings from its folder.

    ``max_seq_length`` is the token limit that applies, if one is stated. ``task`` is what the next module
    needs: token states, or logits ("fill-mask"); None if only the transformer is used, whatever its head.

    Raises
    ------
    ModelError
        The settings ask for something that this package does not do.
    """
    files = [path / name for name in TRANSFORMER_FILES]
    settings = next((found for file in files if (found := read_json(file))), JsonObject(files[0], {}))
    if task is not None:
        _check_task(path, settings, task)
    _check_modality(path, settings, task)
    for group, known in _KNOWN_ARGUMENTS.items():
        arguments = settings.section(group)
        _check_arguments(path, group, arguments, known)
        if arguments.get("model_max_length") is not None:
            settings["max_seq_length"] = arguments["model_max_length"]
    return settings


def _check_task(path: Path, settings: JsonObject, needed: str) -> None:
    task = settings.get("transformer_task", needed)
    output = settings.get("module_output_name", "token_embeddings")
    if task != needed or output != "token_embeddings":
        raise unsupported(path, "Transformer", f"its task is {task!r} and its output {output!r}")


def _check_modality(path: Path, settings: JsonObject, task: str | None) -> None:
    if "modality_config" not in settings:
        return
    modalities = settings.section("modality_config")
    if modalities.get("text") is None:
        raise unsupported(path, "Transformer", "it takes no text")
    needed = "logits" if task == "fill-mask" else "last_hidden_state"
    output = modalities.section("text").get("method_output_name", needed)
    if task is not None and output != needed:
        raise unsupported(path, "Transformer", f"its output is {output!r}")
    if "message" in modalities:
        raise unsupported(path, "Transformer", "it puts texts into a chat template ('message')")


def _check_arguments(path: Path, group: str, arguments: JsonObject, known: set[str]) -> None:
    given = {name for name, value in arguments.items() if value not in ({}, None)}
    unknown = sorted(given - known - {"trust_remote_code"})
    if unknown:
        raise unsupported(path, "Transformer", f"its {group} has {unknown[0]!r}")
    if "/" in str(arguments.get("attn_implementation")):
        raise unsupported(path, "Transformer", f"its {group} names an attention kernel on the hub")


def read_head(path: Path, modules: list[tuple[str, str]]) -> HeadConfig | None:
    """Read the pooling and the layers after it; None if the model has only a transformer.

    Raises
    ------
    ModelError
        There is not exactly one pooling after the transformer, or a layer cannot be run.
    """
    after_transformer = [(kind, path / folder) for kind, folder in modules[1:] if kind not in IGNORED]
    kinds = [kind for kind, _ in after_transformer]
    if modules[0][0] == STATIC:
        if "Pooling" in kinds:
            raise unsupported(path, f"{STATIC} > Pooling", "a static model has no pooling of its own")
        layers = tuple(_read_layer(path, kind, folder) for kind, folder in after_transformer)
        return HeadConfig("mean_pooling", layers=layers)
    if not after_transformer:
        return None
    if kinds[0] != "Pooling" or kinds.count("Pooling") != 1:
        order = " > ".join(kind for kind, _ in modules)
        raise unsupported(path, order, "exactly one Pooling must follow the Transformer")
    (_, pooling_folder), *rest = after_transformer
    pooling = read_module_config(path, "Pooling", pooling_folder)
    return HeadConfig(
        pooling=_pooling_name(path, pooling),
        include_prompt=pooling.flag("include_prompt", True),
        state_dimension=pooling.count("embedding_dimension"),
        layers=tuple(_read_layer(path, kind, folder) for kind, folder in rest),
    )


def read_module_config(path: Path, kind: str, folder: Path) -> JsonObject:
    """Read a module's config.json. Its defaults do not stand in for a file that is lost."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(
            f"{model_file(file)} is missing, but modules.json lists this {kind}; fetch the model again"
        )
    config = read_json(file)
    if kind == "Pooling":
        config.setdefault("embedding_dimension", config.pop("word_embedding_dimension", None))
    config.require(*_REQUIRED[kind])
    unknown = sorted(config.keys() - _REQUIRED[kind] - _OPTIONAL.get(kind, config.keys()))
    if unknown:
        raise unsupported(path, kind, f"its config.json has {unknown[0]!r}")
    return config


def _read_layer(path: Path, kind: str, folder: Path) -> Layer:
    if kind not in LAYERS:
        raise unsupported(path, kind, "it belongs to late interaction models, and the model is none")
    is_normalize = kind == "Normalize"  # its folder is empty, and may be lost
    config = read_json(folder / "config.json") if is_normalize else read_module_config(path, kind, folder)
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, "sentence_embedding"):
            raise unsupported(path, kind, f"its {key} is {config[key]!r}")
    return Layer(kind, folder, config)


def _pooling_name(path: Path, config: JsonObject) -> str:
    """Return the pooling's name in this package; several modes are joined by "+"."""
    modes = config["pooling_mode"] if "pooling_mode" in config else _modes_from_flags(config)
    names = {theirs: ours for ours, theirs, _ in POOLING_MODES}
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise unsupported(path, "Pooling", f"its mode is {modes!r}")
    for mode in modes:
        if not isinstance(mode, str) or mode not in names:
            raise unsupported(path, "Pooling", f"its mode is {mode!r}")
    return "+".join(names[mode] for mode in modes)


def _modes_from_flags(config: JsonObject) -> list[str]:
    """Return the pooling modes of older files, which have one flag per mode."""
    return [mode for _, mode, flag in POOLING_MODES if config.flag(flag, False)] or ["mean"]
