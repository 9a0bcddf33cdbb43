"""Small tokenizer directories whose files contradict what transformers 5 would build from them.

This module needs only the tokenizers library, so that transformers 4 can read the same directories:
``python -m tests.helpers.tokenizer_files`` in an environment with transformers 4.57.6 writes the ids that it gives to
``tests/tokens/transformers4.json``.
"""

from __future__ import annotations

import json
import string
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

STORED = Path(__file__).parents[1] / "tokens" / "transformers4.json"
TEXTS = ["Hello World, hello!", " two  blanks \t and\nlines ", "Ünïcödé CAFÉ", "漢字 a漢", "x", ""]
LITERALS = "hello [SEP] world </s> <|endoftext|>"
_WORDS = ["hello", "world", "Hello", "World", "two", "blank"]
_ANGLES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(*, lowercase: bool) -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_letters, *string.punctuation, *"üïöéÜÏÖÉ漢字"]
    pieces = [*names, *letters, *(f"##{letter}" for letter in letters), *_WORDS]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _framed(tokenizer, ["[CLS]"], ["[SEP]"], names)


def byte_level(
    names: list[str], before: list[str], after: list[str], *, prefix_space: bool = False
) -> Tokenizer:
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġ", "h"), ("o", "r")]
    pieces = [*names, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    return _framed(tokenizer, before, after, names)


def llama(before: list[str], after: list[str]) -> Tokenizer:
    names = ["<unk>", "<s>", "</s>"]
    merges = [("▁", "h"), ("e", "l"), ("l", "o"), ("▁", "w")]
    pieces = [*names, "▁", *string.ascii_letters, *string.punctuation.replace("<", ""), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _framed(tokenizer, before, after, names)


def unigram(*, before: list[str], after: list[str], normalizer: object, pre_tokenizer: object) -> Tokenizer:
    pieces = [
        *_ANGLES,
        "▁",
        *string.ascii_letters,
        *string.digits,
        *string.punctuation,
        "▁hello",
        "world",
        "fi",
        "é",
    ]
    vocabulary = [(piece, 0.0 if piece in _ANGLES else -1.0 - i / 100) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    return _framed(tokenizer, before, after, _ANGLES)


def _framed(tokenizer: Tokenizer, before: list[str], after: list[str], names: list[str]) -> Tokenizer:
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    return tokenizer


_BERT = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
ROBERTA = {
    "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>",
    "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
_END = ["<|endoftext|>", "<|pad|>"]
_QWEN = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": None}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_STYLES = {
    "lowercase": (wordpiece(lowercase=True), _BERT),
    "cased": (wordpiece(lowercase=False), _BERT),
    "bytes": (byte_level(_ANGLES, ["<s>"], ["</s>"]), ROBERTA),
    "bytes after a blank": (byte_level(_ANGLES, ["<s>"], ["</s>"], prefix_space=True), ROBERTA),
    "bytes after a blank without special tokens": (byte_level(_END, [], [], prefix_space=True), _QWEN),
    "ends with eos": (byte_level(_END, [], ["<|endoftext|>"]), _QWEN),
    "begins with bos": (llama(["<s>"], []), _LLAMA),
    "between bos and eos": (llama(["<s>"], ["</s>"]), _LLAMA),
}
_LETTERS = [{}, {"do_lower_case": True}, {"do_lower_case": False}, {"strip_accents": False},
            {"do_lower_case": False, "tokenize_chinese_chars": False}]  # fmt: skip
_PREFIX = [{}, {"add_prefix_space": True}, {"add_prefix_space": False}]
_EOS = [
    {"add_eos_token": True}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": True},
    {"add_bos_token": False, "add_eos_token": False}, {"add_bos_token": False, "add_eos_token": True},
]  # fmt: skip
_SPLIT = [{"split_special_tokens": True}]
# Classes, styles of tokenizer.json, and options in tokenizer_config.json: every combination of a line is a case.
_GRID = [
    (["Bert", "DistilBert", "Electra", "LayoutLM", "MPNet", "Splinter"], ["lowercase", "cased"], [*_LETTERS, *_SPLIT]),
    (["Roberta", "GPT2", "Bart", "Deberta"], ["bytes", "bytes after a blank"], [*_PREFIX, *_SPLIT]),
    (["Llama", "Gemma", "Cohere", "GPTNeoX"], ["begins with bos", "between bos and eos"], [*_EOS, *_SPLIT]),
    (["Qwen2", "PreTrained"], ["ends with eos"], [{}, {"add_bos_token": False}, *_SPLIT]),
    (["Qwen2", "CodeGen", "GPTNeoX"], ["bytes after a blank without special tokens"], _PREFIX),
]  # fmt: skip
# If neither add_bos_token nor add_eos_token is given, these classes of transformers 4 replace the special tokens
# of tokenizer.json by their default. The file holds instead (see `class_options`), so this is not compared.
_SWITCHES = {"Llama", "Gemma", "Cohere", "GPTNeoX"}


def cases() -> dict[str, tuple[str, str, dict]]:
    out = {}
    for classes, styles, all_options in _GRID:
        for name in classes:
            for style in styles:
                for options in all_options:
                    if name in _SWITCHES and options in _SPLIT:
                        continue
                    out[f"{name} {style} {json.dumps(options)}"] = (name, style, options)
    return out


def write(path: Path, tokenizer: Tokenizer, name: str | None, options: dict) -> Path:
    path.mkdir(parents=True)
    tokenizer.save(str(path / "tokenizer.json"))
    kind = {} if name is None else {"tokenizer_class": f"{name}Tokenizer{'Fast' * (name == 'PreTrained')}"}
    (path / "tokenizer_config.json").write_text(json.dumps({**kind, "model_max_length": 64, **options}))
    return path


def write_case(path: Path, case: str) -> Path:
    name, style, options = cases()[case]
    tokenizer, names = _STYLES[style]
    return write(path, tokenizer, name, {**names, **options})


def _main() -> None:
    import transformers

    stored = {"transformers": transformers.__version__, "ids": {}}
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            path = write_case(Path(folder) / "m", case)
            backend = transformers.AutoTokenizer.from_pretrained(str(path)).backend_tokenizer
            stored["ids"][case] = [encoding.ids for encoding in backend.encode_batch([*TEXTS, LITERALS])]
    STORED.write_text(json.dumps(stored).replace('"ids": {', '"ids": {\n').replace("]], ", "]],\n") + "\n")
    print(len(cases()), "cases", file=sys.stderr)


if __name__ == "__main__":
    _main()
