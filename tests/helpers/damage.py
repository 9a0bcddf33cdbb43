"""Damage one file of a model's directory at random, the same way for the same seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

# Files without which a directory is still a model, with other settings: nobody can know that they are missing.
OPTIONAL = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
)
# Values that are valid for some key of some file.
_PLAUSIBLE = ["mean", "cls", "lasttoken", "left", "right", "relu", "gelu", "bert", "qwen3", "float16", "eager",
              "BertModel", "torch.nn.modules.activation.ReLU", "<pad>", "[MASK]", "First", "Split", "NFD"]  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """What was done to a file.

    ``is_plain``: whether the file is evidently broken, so that only an error or the vectors of the undamaged
    model are right. Else the file may as well be that of another model, and the vectors that one's.
    """

    file: str
    what: str
    is_plain: bool

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def damage(path: Path, rng: random.Random) -> Damage:
    """Damage one file below ``path``, and return what was done."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".md")
    while True:
        file = rng.choice(files)
        kinds = [*_FILE, *({".json": _JSON, ".safetensors": _TENSORS}.get(file.suffix, []) * 2)]
        done = rng.choice(kinds)(file, rng)
        if done is not None:
            return Damage(str(file.relative_to(path)), *done)


Done = tuple[str, bool] | None


def _delete(file: Path, _: random.Random) -> Done:
    file.unlink()
    return "deleted", file.name not in OPTIONAL


def _empty(file: Path, _: random.Random) -> Done:
    file.write_bytes(b"")
    return "emptied", True


def _truncate(file: Path, rng: random.Random) -> Done:
    content = file.read_bytes()
    size = rng.randrange(1, len(content))
    file.write_bytes(content[:size])
    return f"truncated to {size} of {len(content)} bytes", True


def _garble(file: Path, rng: random.Random) -> Done:
    content = bytearray(file.read_bytes())
    # Half of the time the beginning, where safetensors keeps its header.
    end = min(len(content), rng.choice([200, len(content)]))
    places = [rng.randrange(end) for _ in range(rng.choice([1, 1, 8, 64]))]
    for place in places:
        content[place] = rng.randrange(256)
    file.write_bytes(content)
    return f"random bytes at {places[:3]}", False


def _make_directory(file: Path, _: random.Random) -> Done:
    file.unlink()
    file.mkdir()
    return "a directory in its place", True


def _make_unreadable(file: Path, _: random.Random) -> Done:
    file.unlink()
    file.symlink_to(file.name)  # a loop: also root cannot open it
    return "cannot be opened", True


_FILE: list[Callable[[Path, random.Random], Done]] = [
    _delete, _empty, _truncate, _garble, _garble, _make_directory, _make_unreadable,
]  # fmt: skip


def _change_json(file: Path, rng: random.Random) -> Done:
    """Change, delete or repeat one value of the file."""
    whole = {"root": json.loads(file.read_text(encoding="utf-8"))}
    container, key, place = _choose(whole, rng)
    old = container[key]
    change = rng.choice(["delete", "repeat", *["set"] * 4])
    if change == "delete" and container is not whole:
        del container[key]
        what = "deleted"
    elif change == "repeat" and isinstance(container, list):
        container.insert(key, old)
        what = "repeated"
    else:
        new = rng.choice(_others(old, rng))
        if new == old and type(new) is type(old):
            return None
        container[key] = new
        what = f"{_short(old)} is now {_short(new)}"
    file.write_text(json.dumps(whole["root"]), encoding="utf-8")
    return f"{place} {what}", False


def _choose(whole: dict[str, Any], rng: random.Random) -> tuple[Any, Any, str]:
    """Choose a value: its container, its key there, and its place in words."""
    container: Any = whole
    key: Any = "root"
    place = ""
    while True:
        value = container[key]
        if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
            return container, key, place or "all of it"
        container, key = value, rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        place += f"[{key!r}]"


def _others(old: Any, rng: random.Random) -> list[Any]:
    """Return values to put in the place of another: other types, other sizes, and plausible ones."""
    others = [
        None,
        [],
        {},
        "",
        0,
        -1,
        True,
        False,
        10**6,
        10**30,
        1e300,
        float("nan"),
        0.5,
        "3",
        [old],
        {"a": old},
    ]
    if isinstance(old, bool):
        others += [not old] * 6
    elif isinstance(old, int | float):
        others += [str(old), -old, old + 1, old * 2, 0 if math.isnan(old) else old // 2, float(old)]
    elif isinstance(old, str):
        others += [old + "x", old.upper(), old[:-1], *rng.sample(_PLAUSIBLE, 4)]
    return others


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _change_tensor(file: Path, rng: random.Random) -> Done:
    """Drop, rename or change one tensor of the file."""
    tensors = load_file(file)
    name = rng.choice(sorted(tensors))
    change = rng.choice([_drop, _rename, _reshape, _retype, _spoil])
    what, is_plain = change(tensors, name, rng)
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, metadata={"format": "pt"})
    return f"{name} {what}", is_plain


Tensors = dict[str, torch.Tensor]


def _drop(tensors: Tensors, name: str, _: random.Random) -> tuple[str, bool]:
    del tensors[name]
    return "dropped", True


def _rename(tensors: Tensors, name: str, rng: random.Random) -> tuple[str, bool]:
    new = rng.choice([f"{name}x", f"model.{name}", name.partition(".")[2] or "x", name.replace("0", "7")])
    tensors[new] = tensors.pop(name)
    return f"renamed to {new}", new != name


def _reshape(tensors: Tensors, name: str, rng: random.Random) -> tuple[str, bool]:
    old = tensors[name]
    grown = torch.cat([old, old])
    new = rng.choice(
        [old[:-1], grown, old[None], old.flatten(), old.mT.clone() if old.dim() == 2 else old[1:], old[:0]]
    )
    tensors[name] = new
    return f"of shape {tuple(old.shape)} is now {tuple(new.shape)}", new.shape != old.shape


def _retype(tensors: Tensors, name: str, rng: random.Random) -> tuple[str, bool]:
    dtype = rng.choice([torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool])
    tensors[name] = tensors[name].to(dtype)
    return f"is now {dtype}", False


def _spoil(tensors: Tensors, name: str, rng: random.Random) -> tuple[str, bool]:
    value = rng.choice([float("nan"), float("inf"), 0.0, 1e30])
    flat = tensors[name].flatten()
    flat[: rng.choice([1, len(flat)])] = value
    tensors[name] = flat.reshape(tensors[name].shape)
    return f"contains {value}", False


_JSON = [_change_json] * 7
_TENSORS = [_change_tensor] * 5
