"""Models with code of their own in their directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from .own_model.configuration_own import OwnConfig
from .own_model.modeling_own import OwnModel
from .tiny import make_tokenizer

CODE = Path(__file__).parent / "own_model"
AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}


def copy_code(target: Path) -> None:
    """Copy the code into a directory, as a model's repository has it."""
    for name in ("configuration_own.py", "modeling_own.py"):
        shutil.copy(CODE / name, target)


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def make_own(path: Path, *, auto_map=None, with_code: bool = True, **config) -> Path:
    """A directory of an `OwnModel`, a type that transformers does not know."""
    tokenizer = make_tokenizer("wordpiece")
    torch.manual_seed(0)
    model = OwnModel(OwnConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **config))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model._tied_weights_keys = None  # transformers 5 can load such a list, and not save it
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    change_json(path / "config.json", auto_map=auto_map or AUTO_MAP)
    if with_code:
        copy_code(path)
    return path
