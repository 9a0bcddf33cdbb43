"""Apply the options of tokenizer_config.json that change how texts are tokenized.

They are those that transformers 4 applied to a tokenizer.json, by class of tokenizer, with one exception:
add_bos_token and add_eos_token add their token in every class, as in transformers 5.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

# In these classes do_lower_case and strip_accents replace those of a BertNormalizer, also by default.
LETTERS = {
    "Bert", "ConvBert", "DistilBert", "DPRContextEncoder", "DPRQuestionEncoder", "DPRReader", "Electra",
    "Funnel", "LayoutLM", "MobileBert", "MPNet", "Realm", "RetriBert", "Splinter", "SqueezeBert",
}  # fmt: skip
# In these of them tokenize_chinese_chars does not.
KEEP_CHINESE = {"MPNet", "Splinter"}
# In these classes add_prefix_space replaces that of a byte-level pre-tokenizer, also by its default.
PREFIX_SPACE = {
    "Bart", "Blenderbot", "CodeGen", "Deberta", "GPT2", "GPTNeoX", "LED", "Longformer", "Luke", "MarkupLM",
    "Mvp", "Qwen2", "Roberta",
}  # fmt: skip
# In these classes add_bos_token and add_eos_token also remove a token. If only one is given, the other has its
# default: False, and for the bos True in most.
SWITCHES = {"CodeLlama", "Cohere", "GPTNeoX", "Gemma", "Llama"}
NO_BOS_BY_DEFAULT = {"GPTNeoX"}


def apply_options(tokenizer: Tokenizer, options: dict[str, Any], name: str) -> None:
    """Apply options to a tokenizer.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        What tokenizer.json says; it is changed.
    options : dict
        The content of tokenizer_config.json.
    name : str
        The class of the tokenizer, without "Tokenizer" and "Fast", such as "Bert".
    """
    if name in LETTERS and isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        _replace_normalizer(tokenizer, options, name)
    prefix_space = options.get("add_prefix_space", False if name in PREFIX_SPACE else None)
    if prefix_space is not None and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        tokenizer.pre_tokenizer.add_prefix_space = prefix_space
    for properties in (options.get("added_tokens_decoder") or {}).values():
        token = AddedToken(**properties)
        if tokenizer.token_to_id(token.content) is not None:
            tokenizer.add_tokens([token])


def _replace_normalizer(tokenizer: Tokenizer, options: dict[str, Any], name: str) -> None:
    written = tokenizer.normalizer.handle_chinese_chars
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=tokenizer.normalizer.clean_text,
        handle_chinese_chars=written if name in KEEP_CHINESE else options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )


def adjust_special_tokens(
    tokenizer: Tokenizer,
    options: dict[str, Any],
    name: str,
    *,
    bos: str | None,
    eos: str | None,
    in_file: bool = True,
) -> None:
    """Add or remove the tokens ``bos`` and ``eos`` around a text, as add_bos_token and add_eos_token say.

    ``in_file``: whether the tokenizer is that of tokenizer.json, which holds if neither option is given.
    """
    given = {key: options[key] for key in ("add_bos_token", "add_eos_token") if options.get(key) is not None}
    removes = name in SWITCHES
    if removes and (given or not in_file):
        given = {"add_bos_token": name not in NO_BOS_BY_DEFAULT, "add_eos_token": False, **given}
    prefix, suffix = special_ids(tokenizer)
    first = _token_id(tokenizer, given, "bos", bos)
    last = _token_id(tokenizer, given, "eos", eos)
    adjusted = (
        _adjust(prefix, first, given.get("add_bos_token"), removes=removes),
        _adjust(suffix, last, given.get("add_eos_token"), removes=removes, at_end=True),
    )
    if adjusted != (prefix, suffix):
        before, after = ([tokenizer.id_to_token(i) for i in ids] for ids in adjusted)
        tokens = {*zip(before, adjusted[0], strict=True), *zip(after, adjusted[1], strict=True)}
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], pair=[*before, "$A", *after, "$B"], special_tokens=sorted(tokens)
        )


def _token_id(tokenizer: Tokenizer, options: dict[str, Any], role: str, token: str | None) -> int | None:
    index = None if token is None else tokenizer.token_to_id(token)
    if index is None and options.get(f"add_{role}_token"):
        raise ValueError(f"add_{role}_token is true, but its {role}_token {token!r} is not in the vocabulary")
    return index


def _adjust(
    ids: list[int], token: int | None, wanted: bool | None, *, removes: bool, at_end: bool = False
) -> list[int]:
    """Return ``ids`` with or without a token at the outer end."""
    outer = ids[-1:] if at_end else ids[:1]
    if token is None or wanted is None or wanted == (outer == [token]):
        return ids
    if wanted:
        return [*ids, token] if at_end else [token, *ids]
    if not removes:
        return ids
    return ids[:-1] if at_end else ids[1:]


def special_ids(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that the post-processor adds before and after a text.

    They are found by comparing the ids of "a" with and without special tokens, and checked with another text.

    Raises
    ------
    ValueError
        The post-processor does something else.
    """
    bare, full = _ids_without_and_with_special_tokens(backend, "a")
    other_bare, other_full = _ids_without_and_with_special_tokens(backend, "bc d")
    for start in range(len(full) - len(bare) + 1):
        before, after = full[:start], full[start + len(bare) :]
        if [*before, *bare, *after] == full and [*before, *other_bare, *after] == other_full:
            return before, after
    raise ValueError(
        f"its post-processor does more than add special tokens around a text: {bare} became {full}"
    )


def _ids_without_and_with_special_tokens(backend: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    bare = backend.encode(text, add_special_tokens=False)
    full = backend.encode(text, add_special_tokens=True)
    starts = [start for start, _ in bare.offsets]
    if starts != sorted(starts):
        raise ValueError("its post-processor repeats the text")
    return bare.ids, full.ids
