"""Load the tokenizer of a model directory as the model's authors used it.

``tokenizer.json`` is the authors' tokenizer. For many classes transformers 5 takes only the vocabulary from it
and builds the rest anew. Character maps, the treatment of blanks, and special tokens around a text can be lost
that way (transformers#45488, #45701, #45920). transformers 4, with which most published vectors were made, used
the file as it is, apart from a few options of ``tokenizer_config.json``. So does this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ..errors import ModelError
from ..models.files import check_tokenizer
from ..models.json_files import read_json
from ..models.kinds import load_failure
from ..models.names import model_name
from ..models.remote_code import CustomCode, custom_class, is_custom
from .class_options import adjust_special_tokens, apply_options, special_ids
from .sentencepiece_files import check_pieces, find_sentencepiece_file

# These classes put a token for the language or the task before or after a text.
_LANGUAGE_TOKENS = {"MBart", "MBart50", "Nllb", "Whisper"}
# Files that can name tokens which tokenizer.json does not have.
_TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Texts that show whether two tokenizers split and spell text alike: cases, accents, blanks, scripts, invisible
# characters, digits and punctuation.
_PROBES = (
    "Hello World, isn't it? (2,345.67)",
    "  two  blanks \t tab\nline\r\nend ",
    "Ünïcödé Cafe\u0301 ÅÉ",
    "ﬁne ½ \uff21\uff22\uff23 ①",
    "漢字かな 你好。世界",
    "\u200bzero\u200d width\ufeff\u00ad",
    "İı Σσς ẞ",
    "مرحبا بالعالم",
    "😀 👩\u200d👩",
    "x\u00a0y\u2003z\u3000w",
    "กำ 한국어 हिन्दी",
    "a_b-c/d@e#f $9 <b>",
    "",
)


def load_with_transformers(path: Path, code: CustomCode = ()) -> Any:
    """Load the tokenizer of a model directory with transformers' own code, or with code that the user trusts.

    Raises
    ------
    ModelError
        The directory has no tokenizer, the tokenizer needs code of the model, or its files cannot be read.
    """
    import transformers

    find_sentencepiece_file(path)
    own_class = custom_class(code, "AutoTokenizer")
    loaders: list[Any] = [own_class or transformers.AutoTokenizer]
    has_code = "auto_map" in read_json(path / "tokenizer_config.json")
    if (path / "tokenizer.json").is_file() and not has_code:
        loaders.append(transformers.PreTrainedTokenizerFast)  # its class may not be able to build it anew
    failures: list[BaseException] = []
    for loader in loaders:
        try:
            loaded = loader.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
        except (MemoryError, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - its own code may even exit
            failures.append(error)
        else:
            check_tokenizer(path, loaded.vocab_files_names)
            return loaded
    check_tokenizer(path)
    raise ModelError(
        f"transformers {transformers.__version__} cannot load the tokenizer of model {model_name(path)!r}, "
        "and a model's own code is run only if it is trusted: use a model whose tokenizer transformers knows, "
        "a newer version of it, or, if you have read the code and trust it, trust_remote_code=True "
        f"({load_failure(failures[0], None if code else path / 'tokenizer_config.json')})"
    ) from failures[0]


def load_backend(path: Path, loaded: Any) -> Tokenizer:
    """Return the tokenizer in a model directory as its authors used it.

    Parameters
    ----------
    path : Path
    loaded : transformers.PreTrainedTokenizerBase
        What `load_with_transformers` returned.

    Raises
    ------
    ModelError
        transformers, which takes ``tokenizer.json`` as it is for this class, reads it in another way.
    """
    built = _without_limits(loaded.backend_tokenizer)
    options = read_json(path / "tokenizer_config.json")
    name = class_name(path, options, loaded)
    if not (path / "tokenizer.json").is_file():
        file = find_sentencepiece_file(path)
        if file is not None:
            check_pieces(file, built, _PROBES)
            adjust_special_tokens(
                built, options, name, bos=loaded.bos_token, eos=loaded.eos_token, in_file=False
            )
        return built
    written = _without_limits(Tokenizer.from_file(str(path / "tokenizer.json")))
    check_dropout(path, written)
    apply_options(written, options, name)
    _add_new_tokens(path, written, built)
    adjust_special_tokens(written, options, name, bos=loaded.bos_token, eos=loaded.eos_token)
    written.encode_special_tokens = built.encode_special_tokens
    _check_agreement(path, written, built, name, reads_file="__init__" not in type(loaded).__dict__)
    return written


def check_own_class(path: Path, tokenizer: Tokenizer, loaded: Any) -> None:
    """Raise ModelError if a tokenizer of the model's own code gives other ids than the tokenizers library."""
    for text in _PROBES if is_custom(loaded) else ():
        if tokenizer.encode(text).ids != list(loaded(text)["input_ids"]):
            raise ModelError(
                f"the tokenizer of model {model_name(path)!r}, a {type(loaded).__name__} of its own code, "
                f"gives other tokens than its tokenizer.json (example: {text!r}), and only the latter can be "
                "run: use another model"
            )


def find_markers(tokenizer: Tokenizer, texts: Iterable[str]) -> list[AddedToken]:
    """Return the markers at the start of texts that the tokenizer knows but would split.

    A ColBERT model has such a token before each text. Unless "[unused1]" is added as a special token, the
    text "[unused1] " has the tokens "[", "unused", "##1" and "]".
    """
    markers = []
    for text in texts:
        known = [name for name in (text, *text.split()[:1]) if tokenizer.token_to_id(name) is not None]
        if known and tokenizer.encode(known[0], add_special_tokens=False).tokens != known[:1]:
            markers.append(AddedToken(known[0], normalized=False, special=True))
    return markers


def copy_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy without truncation and padding."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.encode_special_tokens = tokenizer.encode_special_tokens  # not part of to_str()
    return _without_limits(copied)


def _without_limits(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_dropout(path: Path, tokenizer: Tokenizer) -> None:
    """Raise ModelError if a tokenizer gives a text other tokens each time."""
    if getattr(tokenizer.model, "dropout", None):
        raise ModelError(
            f"tokenizer.json of model {model_name(path)!r} has a dropout, which gives a text other tokens "
            "each time: set it to null"
        )


def class_name(path: Path, options: dict[str, Any], loaded: Any) -> str:
    """Return the class of a directory's tokenizer, without "Tokenizer" and "Fast", such as "Bert"."""
    declared = options.get("tokenizer_class") or read_json(path / "config.json").get("tokenizer_class")
    return str(declared or type(loaded).__name__).removesuffix("Fast").removesuffix("Tokenizer")


def _add_new_tokens(path: Path, tokenizer: Tokenizer, built: Tokenizer) -> None:
    """Add the tokens that only files other than tokenizer.json name, with their ids in ``built``."""
    named = {text for name in _TOKEN_FILES for text in _texts_in(read_json(path / name))}
    for index, token in sorted(built.get_added_tokens_decoder().items()):
        is_new = token.content in named and tokenizer.token_to_id(token.content) is None
        if is_new and index == tokenizer.get_vocab_size():
            tokenizer.add_tokens([token])


def _texts_in(value: object) -> Iterator[str]:
    """Yield all strings in a JSON value, also its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value:
            yield from _texts_in(item)
            yield from _texts_in(value[item] if isinstance(value, dict) else None)


def _check_agreement(path: Path, written: Tokenizer, built: Tokenizer, name: str, *, reads_file: bool) -> None:
    """Raise ModelError if it is not known how the authors tokenize.

    ``reads_file``: transformers takes ``tokenizer.json`` as it is for this class, so that both must agree.
    """
    if name in _LANGUAGE_TOKENS and special_ids(written) != special_ids(built):
        raise _undecided(path, "the language token")
    for text in _PROBES if reads_file else ():
        ours, theirs = (t.encode(text, add_special_tokens=False).ids for t in (written, built))
        if ours != theirs:
            raise _undecided(path, repr(text))


def _undecided(path: Path, example: str) -> ModelError:
    return ModelError(
        f"tokenizer.json and tokenizer_config.json of model {model_name(path)!r} contradict each other, and "
        f"versions of transformers differ in which one they follow (example: {example}): ask the authors, and "
        "correct one"
    )
