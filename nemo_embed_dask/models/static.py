"""Static models: a table of token vectors, of which a text has the mean. There is no transformer.

Two libraries write them, and embed a text in different ways. Who wrote a model is known from the name of its
table. sentence-transformers averages all tokens. model2vec leaves out unknown tokens, reads 512 tokens at most,
may multiply each token's vector by a weight, and may share one vector among several tokens; its ``config.json``
says whether vectors have unit length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import ModelError
from .json_files import JsonObject, read_json
from .limits import NO_LIMIT
from .names import model_file, model_name
from .sentence_transformers import Layer
from .weight_files import PICKLED, WEIGHTS

# The libraries that write static models, each with the name of its table.
LAYOUTS = {"sentence-transformers": "embedding.weight", "model2vec": "embeddings"}
# What a tensor may hold, as the beginnings of number types: floats (F16, BF16), integers (I8, I64).
_FLOATS = ("F", "BF")
_NUMBERS = {"embedding.weight": _FLOATS, "embeddings": (*_FLOATS, "I8"), "mapping": ("I",), "weights": _FLOATS}
# model2vec's limit if a model states none.
_MODEL2VEC_LIMIT = 512


@dataclass(frozen=True)
class StaticTable:
    """What the files of a static model say about its table.

    ``layout``: a key of `LAYOUTS`. ``vocabulary``: how many token ids have a vector. ``limit``: most tokens
    of a row; `NO_LIMIT` for any number. ``is_shared``: whether several tokens of model2vec may share a vector.
    ``normalizes``: whether model2vec scales vectors to unit length.
    """

    layout: str
    vocabulary: int
    limit: int
    is_shared: bool = False
    normalizes: bool = False

    @property
    def empty_id(self) -> int:
        """The id that stands for a text without tokens. It follows the others, and its vector is zeros."""
        return self.vocabulary


def read_static(folder: Path) -> StaticTable:
    """Read what a static model's files say about its table. No weights are loaded.

    Raises
    ------
    ModelError
        A file is missing or damaged, or the table is in neither library's layout.
    """
    tensors = _read_header(folder / WEIGHTS)
    layout = next((layout for layout, name in LAYOUTS.items() if name in tensors), None)
    if layout is None:
        raise ModelError(
            f"{model_file(folder / WEIGHTS)} has no table of token vectors ({' or '.join(LAYOUTS.values())}): "
            "fetch the model again"
        )
    vocabulary = _vocabulary(folder, layout, tensors)
    if layout == "sentence-transformers":
        return StaticTable(layout, vocabulary, _truncation(folder))
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model {model_name(folder)!r} has model2vec's table and no config.json, which says whether its "
            "vectors have unit length: fetch the model again"
        )
    config = read_json(folder / "config.json")
    limit = _limit(config) if "max_length" in config else _MODEL2VEC_LIMIT
    normalizes = config.flag("normalize", False)
    return StaticTable(layout, vocabulary, limit, is_shared="mapping" in tensors, normalizes=normalizes)


def _read_header(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the number type and the shape of each tensor in a safetensors file."""
    if not file.is_file() and (file.parent / PICKLED).is_file():
        raise ModelError(
            f"{model_file(file)} is missing, and a pickled table of token vectors ({PICKLED}) is not read: "
            "load the model with sentence-transformers, save it (model.save_pretrained), and pass that "
            "directory"
        )
    if not file.is_file():
        raise ModelError(f"{model_file(file)} is missing, which has the token vectors: fetch the model again")
    try:
        with safe_open(file, framework="np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{model_file(file)} is not a safetensors file ({error}); fetch the model again"
        ) from error


def _vocabulary(folder: Path, layout: str, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    """Return how many token ids have a vector; raise ModelError if the tensors do not fit each other."""
    per_token = {"mapping", "weights"} & tensors.keys() if layout == "model2vec" else set()
    used = {name: tensors[name] for name in [LAYOUTS[layout], *sorted(per_token)]}
    table = used[LAYOUTS[layout]][1]
    expected = used["mapping"][1] if "mapping" in used else table[:1]
    fits = len(table) == 2 and 0 not in table and len(expected) == 1
    fits &= all(used[name][1] == expected for name in per_token)
    if not fits or not all(number.startswith(_NUMBERS[name]) for name, (number, _) in used.items()):
        raise ModelError(
            f"{model_file(folder / WEIGHTS)} has tensors that do not fit each other ({used}); fetch the model "
            "again"
        )
    return expected[0]


def _truncation(folder: Path) -> int:
    """Return the most tokens that ``tokenizer.json`` keeps: sentence-transformers sets no limit of its own."""
    return _limit(read_json(folder / "tokenizer.json").section("truncation"))


def _limit(stated: JsonObject) -> int:
    return min(stated.count("max_length") or NO_LIMIT, NO_LIMIT)


def static_layers(path: Path, layers: tuple[Layer, ...], table: StaticTable) -> tuple[Layer, ...]:
    """Return the layers after the table; for model2vec, ``config.json`` decides and not ``modules.json``.

    Raises
    ------
    ModelError
        There is a layer that model2vec would leave out.
    """
    if table.layout != "model2vec":
        return layers
    others = [layer.kind for layer in layers if layer.kind != "Normalize"]
    if others:
        raise ModelError(
            f"model {model_name(path)!r} has the module {others[0]!r} after a table in model2vec's layout, and "
            "model2vec would leave it out: load the model with sentence-transformers, save it, and pass that "
            "directory"
        )
    return (Layer("Normalize", path, JsonObject(path, {})),) if table.normalizes else ()
