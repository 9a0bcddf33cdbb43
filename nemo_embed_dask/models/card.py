"""The card of a model: what the files in its directory say about it. No weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .adapter_files import find_adapter, find_base
from .colbert import ColBERT, read_colbert
from .files import has_tokenizer
from .json_files import JsonObject, read_json
from .kinds import check_files, default_pooling, find_list_pooling, find_other_kind
from .limits import max_positions, token_limit
from .locate import ModelRef, find_model
from .modules import STATIC, Module, read_modules, router_folders
from .names import model_name
from .remote_code import CustomCode, check_base, find_custom_code, stamp_code, warn_of_code
from .routers import Task
from .sentence_transformers import HeadConfig, Layer, read_head, read_transformer
from .splade import Splade, read_splade
from .stamps import Stamp, load_once, stamp_model
from .static import StaticTable, read_static, static_layers


@dataclass(frozen=True)
class ModelCard:
    """What the files in a model's directory say about the model.

    Attributes
    ----------
    path, root : Path
        Where the transformer's files are; and the model's directory, None if it is the same.
    base_path : Path or None
        Where the configuration and the weights of the transformer are, if ``path`` has only an adapter of it.
    adapter : Path or None
        The directory of the adapter that is merged into the weights.
    max_seq_length : int or None
        Most tokens per row, special tokens included; None if the files do not say.
    max_positions : int or None
        How many tokens the model's position table holds; None if it has none.
    lowercase : bool
        Whether texts are lowercased before tokenization.
    config : dict
        The content of ``config.json``.
    has_modules : bool
        Whether the files name the model's pooling: ``modules.json`` lists modules besides the transformer, or
        the model is static.
    has_chat_template : bool
    pooling : str
        A name that `pooling.pool` accepts. Without modules it is sentence-transformers' default.
    state_dimension : int or None
        Size of the token states that the model's pooling takes; None without modules.
    include_prompt : bool
        Whether the prompt's tokens are pooled.
    layers : tuple of Layer
        The modules after the pooling.
    prompts : dict
        Prompts by name.
    default_prompt : str or None
        A key of ``prompts``.
    truncate_dim : int or None
        How many leading dimensions of a vector the model keeps; None for all.
    code : CustomCode
        The classes of the model's own code, if the user trusts it.
    static : StaticTable or None
        The table of token vectors that a static model has in place of a transformer.
    splade : Splade or None
        How a SparseEncoder makes weights of tokens from logits; its ``pooling`` is "splade".
    stamp : Stamp
        Names, sizes and times of the model's files. It differs after the model was saved again.
    has_routes : bool
        Whether queries and documents have modules of their own (a Router); this is the card of one of the two.
    other_kind : str
        What the model was made for, such as "a CrossEncoder", if its files say so; empty for embedding models.
    colbert : ColBERT or None
        What a late interaction model does; its ``pooling`` is "none".
    list_pooling : str
        The pooling for lists that the model was made for, also if its modules are lost; empty for others.
    """

    path: Path
    max_seq_length: int | None
    max_positions: int | None = None
    lowercase: bool = False
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    has_modules: bool = False
    has_chat_template: bool = False
    pooling: str = "mean_pooling"
    state_dimension: int | None = None
    include_prompt: bool = True
    layers: tuple[Layer, ...] = ()
    prompts: dict[str, str] = field(default_factory=dict, repr=False)
    default_prompt: str | None = None
    truncate_dim: int | None = None
    code: CustomCode = ()
    static: StaticTable | None = None
    splade: Splade | None = None
    stamp: Stamp = field(default=(), repr=False)
    has_routes: bool = False
    other_kind: str = ""
    base_path: Path | None = None
    adapter: Path | None = None
    colbert: ColBERT | None = None
    root: Path | None = None
    list_pooling: str = ""

    @property
    def weights_path(self) -> Path:
        """Where the transformer's configuration and weights are."""
        return self.base_path or self.path

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return model_name(self.root or self.path)


_cards: dict[tuple[Path, Task, CustomCode], tuple[Stamp, ModelCard]] = {}


def find_card(ref: ModelRef, adapter: str | None = None) -> ModelCard:
    """Find a model and its adapter, if it has one, and read its card.

    A directory that has only an adapter is a model: that of its base with the adapter merged into it.

    Raises
    ------
    ModelError
        As in `find_model`, `find_base`, `find_adapter` and `read_card`; or there are two adapters.
    """
    path = find_model(ref)
    base = find_base(ref, path)
    if base is None:
        card = read_card(path, task=ref.task, code=find_custom_code(ref, path))
        return card if adapter is None else replace(card, adapter=find_adapter(adapter, ref, path))
    if adapter is not None:
        raise ModelError(
            f"model {model_name(path)!r} is a PEFT adapter, and adapter={adapter!r} would be a second "
            "one: pass the base model as model_identifier, and one of them as adapter"
        )
    check_base(ref, path, base)
    has_own = (path / "modules.json").is_file() or has_tokenizer(path)
    if has_own:
        return read_card(path, base, task=ref.task)
    return replace(read_card(base, task=ref.task), adapter=path)


def read_card(
    path: Path, base: Path | None = None, *, task: Task = "document", code: CustomCode = ()
) -> ModelCard:
    """Read the card of the model in a directory, again only if one of its files has changed.

    Parameters
    ----------
    path : Path
    base : Path, optional
        The directory of the base model, if the first one has only an adapter.
    task : str
        For models that treat them differently: whether the texts are documents or queries.
    code : CustomCode
        The classes of the model's own code, if the user trusts it.

    Raises
    ------
    ModelError
        The files name a module that is not supported, are not valid JSON, or have a value of another type.
    """
    path = path.resolve()
    stamp = stamp_model(path) + (stamp_model(base) if base else ()) + stamp_code(code)
    make = partial(_read_card, path, base, task, code, stamp)
    return load_once(_cards, (path, task, code), stamp, make)


def _read_card(path: Path, base: Path | None, task: Task, code: CustomCode, stamp: Stamp) -> ModelCard:
    modules = read_modules(path, task)
    transformer_path = path / modules[0][1]
    base_path = base / read_modules(base, task)[0][1] if base else None
    config = read_json((base_path or transformer_path) / "config.json")
    tokenizer = read_json(transformer_path / "tokenizer_config.json")
    options = read_json(path / "config_sentence_transformers.json")
    splade = read_splade(path, modules, options)
    other_kind = find_other_kind(path, config, options)
    colbert = read_colbert(path, modules, options, task)
    transformer = _read_settings(transformer_path, other_kind, colbert, splade)
    check_files(transformer_path)
    warn_of_code(path, config, tokenizer, code)
    head = _read_head(path, modules, config, colbert, splade)
    static = read_static(transformer_path) if modules[0][0] == STATIC else None
    return ModelCard(
        path=transformer_path,
        root=path,
        max_seq_length=static.limit if static else token_limit(transformer, tokenizer, max_positions(config)),
        max_positions=max_positions(config),
        lowercase=transformer.flag("do_lower_case", False),
        config=config,
        has_modules=len(modules) > 1 or static is not None,
        has_chat_template="chat_template" in tokenizer or any(transformer_path.glob("chat_template*")),
        **{**vars(head), "layers": static_layers(path, head.layers, static) if static else head.layers},
        prompts=colbert.prompts if colbert else _read_prompts(options),
        default_prompt="document" if colbert else options.text("default_prompt_name"),
        truncate_dim=options.count("truncate_dim"),
        code=code,
        static=static,
        colbert=colbert,
        splade=splade,
        stamp=stamp,
        has_routes=bool(router_folders(path)),
        other_kind=other_kind,
        list_pooling=find_list_pooling(path, config, options),
        base_path=base_path,
        adapter=transformer_path if base else None,
    )


def _read_settings(path: Path, other_kind: str, colbert: ColBERT | None, splade: Splade | None) -> JsonObject:
    """Return the transformer's settings; a named pooling replaces the heads of other kinds of models."""
    task = None if other_kind else "feature-extraction"
    settings = read_transformer(path, "fill-mask" if splade is not None else task)
    if colbert is not None:
        settings["max_seq_length"] = colbert.max_length or settings.get("max_seq_length")
    return settings


def _read_head(
    path: Path, modules: list[Module], config: JsonObject, colbert: ColBERT | None, splade: Splade | None
) -> HeadConfig:
    """Return what becomes of token states."""
    if colbert is not None or splade is not None:
        return HeadConfig("none" if colbert is not None else "splade")
    return read_head(path, modules) or HeadConfig(default_pooling(config))


def _read_prompts(options: JsonObject) -> dict[str, Any]:
    return {name: text for name, text in options.section("prompts").items() if text is not None}
