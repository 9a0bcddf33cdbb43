"""What a model directory says of itself. Reads small files of names and numbers; loads no weights.

The layouts are those that sentence-transformers 2 to 6 wrote: ``modules.json`` names the modules in
order, each with a folder; what it does not name, a model does not have. A module that this package
does not know is an error, never skipped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import ConfigError, ModelError

# Model types whose position ids start behind the padding id (RoBERTa and its kin), so that their
# position table holds that many fewer tokens than it has rows.
_SHIFTED = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm",
            "data2vec-text", "longformer", "luke", "ibert", "xmod", "esm"}  # fmt: skip
_SENTENCE_CONFIGS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
# A pooling's name here, in ``pooling_mode``, and as the flag of older files; a model that sets several
# flags concatenates them in this order.
_POOLINGS = [
    ("cls", "cls", "pooling_mode_cls_token"),
    ("max", "max", "pooling_mode_max_tokens"),
    ("mean_pooling", "mean", "pooling_mode_mean_tokens"),
    ("mean_sqrt_len", "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    ("weighted_mean", "weightedmean", "pooling_mode_weightedmean_tokens"),
    ("last_token", "lasttoken", "pooling_mode_lasttoken"),
]
# Modules that may follow the pooling. Dropout does nothing outside of training.
LAYERS = ("Dense", "LayerNorm", "Normalize")
_IGNORED = ("Dropout",)


@dataclass(frozen=True)
class Layer:
    """A module behind the pooling: ``kind`` is one of `LAYERS`, ``path`` its folder."""

    kind: str
    path: Path
    config: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ModelCard:
    """What a model directory says of itself.

    ``path``: where the transformer's files are. ``max_seq_length``: tokens a row, special tokens among
    them; None where nothing states it. ``lowercase``: whether texts are lower-cased before tokenizing.
    ``pooling``: a name that `pooling.pool` takes; sentence-transformers' default where the directory does
    not state its modules (``declared``). ``include_prompt``: whether a prompt's tokens are pooled.
    ``default_prompt``: a key of ``prompts``.
    """

    path: Path
    max_seq_length: int | None
    positions: int | None = None
    lowercase: bool = False
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    declared: bool = False
    pooling: str = "mean_pooling"
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict, repr=False)
    default_prompt: str | None = None
    truncate_dim: int | None = None
    similarity: str | None = None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); fetch the model again") from error


def _json(path: Path) -> dict[str, Any]:
    loaded = _load(path)
    return loaded if isinstance(loaded, dict) else {}


@lru_cache(maxsize=64)
def read_card(path: Path) -> ModelCard:
    """Read what a model directory says of itself.

    Raises
    ------
    ModelError
        It names a module that this package does not know, or a file of it is not valid JSON.
    """
    modules = _modules(path)
    home = path / modules[0][1]
    config, sentence = _json(home / "config.json"), _sentence_config(home)
    positions = _positions(config)
    said = _json(path / "config_sentence_transformers.json")
    return ModelCard(
        path=home,
        max_seq_length=_limit(home, sentence, positions),
        positions=positions,
        lowercase=bool(sentence.get("do_lower_case")),
        config=config,
        declared=len(modules) > 1,
        **_behind(path, modules, config),
        prompts={name: text for name, text in (said.get("prompts") or {}).items() if text is not None},
        default_prompt=said.get("default_prompt_name"),
        truncate_dim=said.get("truncate_dim"),
        similarity=said.get("similarity_fn_name"),
    )


def _limit(home: Path, sentence: dict[str, Any], positions: int | None) -> int | None:
    tokenizer_max = _json(home / "tokenizer_config.json").get("model_max_length")
    limits = (sentence.get("max_seq_length"), tokenizer_max, positions)
    limit = next((int(n) for n in limits if n is not None and n < 1e6), None)
    return None if limit is None else min(limit, positions or limit)


def _modules(path: Path) -> list[tuple[str, str]]:
    """The modules in order: (kind, folder)."""
    listed = _load(path / "modules.json")
    if not listed:
        return [("Transformer", "")]
    modules = []
    for entry in sorted(listed, key=lambda entry: entry["idx"]):
        kind = entry["type"].rpartition(".")[2]
        known = kind in ("Transformer", "Pooling", *LAYERS, *_IGNORED)
        if not known or not entry["type"].startswith("sentence_transformers."):
            raise _unknown(path, entry["type"], "only modules of sentence-transformers for text are known")
        modules.append((kind, entry["path"]))
    if modules[0][0] != "Transformer":
        raise _unknown(path, modules[0][0], "the first module must be the Transformer")
    return modules


def _unknown(path: Path, module: str, why: str) -> ModelError:
    known = ", ".join(("Transformer", "Pooling", *LAYERS, *_IGNORED))
    return ModelError(
        f"model {path.name!r} has the module {module!r}, which this package cannot run: {why}. Leaving it out "
        f"would give other vectors than the model's; use a model made of {known}"
    )


def _sentence_config(home: Path) -> dict[str, Any]:
    config = next((c for c in (_json(home / name) for name in _SENTENCE_CONFIGS) if c), {})
    task = config.get("transformer_task", "feature-extraction")
    output = config.get("module_output_name", "token_embeddings")
    text = config.get("modality_config", {"text": {}}).get("text")
    if task != "feature-extraction" or output != "token_embeddings" or text is None:
        raise _unknown(home, "Transformer", f"it has the task {task!r} and gives {output!r}")
    if text.get("method_output_name", "last_hidden_state") != "last_hidden_state":
        raise _unknown(home, "Transformer", f"it gives {text['method_output_name']!r}")
    return config


def _behind(path: Path, modules: list[tuple[str, str]], config: dict[str, Any]) -> dict[str, Any]:
    """Pooling and the layers behind it."""
    rest = [(kind, path / folder) for kind, folder in modules[1:] if kind not in _IGNORED]
    if not rest:
        return {"pooling": _default_pooling(config)}
    if [kind for kind, _ in rest].count("Pooling") != 1 or rest[0][0] != "Pooling":
        order = " > ".join(kind for kind, _ in modules)
        raise _unknown(path, order, "exactly one Pooling must follow the Transformer")
    said = _json(rest[0][1] / "config.json")
    layers = tuple(Layer(kind, folder, _json(folder / "config.json")) for kind, folder in rest[1:])
    for layer in layers:
        _check_layer(path, layer)
    return {
        "pooling": _pooling(path, said),
        "include_prompt": said.get("include_prompt", True),
        "layers": layers,
    }


def _check_layer(path: Path, layer: Layer) -> None:
    for key in ("module_input_name", "module_output_name"):
        if layer.config.get(key) not in (None, "sentence_embedding"):
            raise _unknown(path, layer.kind, f"its {key} is {layer.config[key]!r}")


def _default_pooling(config: dict[str, Any]) -> str:
    """Of a model that states none: as sentence-transformers does, by whether it was made to generate."""
    architecture = (config.get("architectures") or [""])[0]
    causal = architecture.endswith("ForCausalLM") and config.get("is_causal", True)
    return "last_token" if causal else "mean_pooling"


def _pooling(path: Path, config: dict[str, Any]) -> str:
    mode = config.get("pooling_mode")
    if mode is None:
        asked = {name for name, value in config.items() if name.startswith("pooling_mode_") and value}
        known = {flag: ours for ours, _, flag in _POOLINGS}
    else:
        asked = {mode} if isinstance(mode, str) else dict.fromkeys(mode)  # type: ignore[assignment]
        known = {theirs: ours for ours, theirs, _ in _POOLINGS}
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise _unknown(path, "Pooling", f"it has the mode {unknown[0]!r}")
    ordered = [name for name in known if name in asked] if mode is None else list(asked)
    return "+".join(known[name] for name in ordered) or "mean_pooling"


def _positions(config: dict[str, Any]) -> int | None:
    """How many tokens the model's position table holds; None where there is none."""
    table = config.get("max_position_embeddings") or config.get("n_positions")
    if table is None or config.get("model_type") in {"t5", "mt5", "umt5"}:
        return None
    shift = int(config.get("pad_token_id", 1)) + 1 if config.get("model_type") in _SHIFTED else 0
    return int(table) - shift


def length_limit(card: ModelCard, max_seq_length: int | None) -> int:
    """Tokens a row may have: the user's number where given, else the model's own.

    Raises
    ------
    ConfigError
        The number exceeds the model's position table.
    ModelError
        Neither states a number.
    """
    limit = max_seq_length or card.max_seq_length
    if limit is None:
        raise ModelError(f"{card.path} states no length limit; pass max_seq_length")
    if card.positions is not None and limit > card.positions:
        raise ConfigError(
            f"max_seq_length={max_seq_length} exceeds the {card.positions} positions that "
            f"{card.path.name!r} has; pass at most that, or nothing for its own {card.max_seq_length}"
        )
    return limit


def find_prompt(card: ModelCard, prompt: str | None, prompt_name: str | None) -> str:
    """The text put before every text: ``prompt``, or the model's of that name, or its default one.

    Raises
    ------
    ConfigError
        The model has no prompt of that name.
    """
    if prompt is not None:
        return prompt
    if prompt_name is None:
        return card.prompts.get(card.default_prompt or "", "")
    if prompt_name not in card.prompts:
        raise ConfigError(
            f"prompt_name={prompt_name!r}: model {card.path.name!r} has the prompts {sorted(card.prompts)}; "
            "name one of them, or pass prompt= with the text itself"
        )
    return card.prompts[prompt_name]
