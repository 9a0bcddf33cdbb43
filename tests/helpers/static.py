"""Tiny static models: directories of sentence-transformers and of model2vec, with a WordPiece or Unigram tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer

# Among them: unknown letters, texts of nothing else, no text, no tokens, and texts far over 512 tokens.
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Embeddings of documents are vectors; near ones mean alike things. ꙮ ꙮ",
    "",
    "   \t ",
    "ꙮꙮ",
    "Привет, мир! 你好，世界。",
    "Pack my box with five dozen liquor jugs, 1234567890! " * 40,
    "ꙮ fox " * 300 + "jugs",
    "x" * 3000 + " fox",
    "a",
]


def table(rows: int, dimension: int = 16, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Random token vectors of unequal length."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, dimension)) * random.uniform(0.2, 3, (rows, 1))
    return (values * (20 if dtype is np.int8 else 1)).astype(dtype)


def size(source: Path) -> int:
    """How many ids the tokenizer of a model directory has."""
    return Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size()


def make_st(
    source: Path, target: Path, *after: object, truncation: int | None = None, **options: object
) -> Path:
    """A directory that sentence-transformers wrote, with the tokenizer of another model."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    if truncation is not None:
        tokenizer.enable_truncation(truncation)
    static = modules.StaticEmbedding(tokenizer, embedding_weights=table(tokenizer.get_vocab_size()))
    SentenceTransformer(modules=[static, *after], device="cpu", **options).save_pretrained(str(target))
    return target


def make_model2vec(
    source: Path,
    target: Path,
    *,
    dtype: type = np.float32,
    shared: bool = False,
    weighted: bool = False,
    with_modules: bool = True,
    dimension: int = 16,
    **config: object,
) -> Path:
    """A directory in the layout that model2vec's `save_pretrained` writes.

    ``shared``: tokens share vectors, named by ``mapping``. ``weighted``: tokens have weights.
    """
    target.mkdir(parents=True)
    shutil.copy(source / "tokenizer.json", target)
    rows, random = size(source), np.random.default_rng(1)
    tensors = {"embeddings": table(rows // 2 if shared else rows, dimension, dtype=dtype)}
    if shared:
        tensors["mapping"] = random.integers(0, rows // 2, rows)
    if weighted:
        tensors["weights"] = random.uniform(0.1, 2, rows).astype(np.float32)
    save_file(tensors, target / "model.safetensors")
    known = {"model_type": "model2vec", "architectures": ["StaticModel"], "seq_length": 1000000}
    (target / "config.json").write_text(json.dumps(known | config))
    if with_modules:
        listed = [("StaticEmbedding", ".")] + [("Normalize", "1_Normalize")] * bool(config.get("normalize"))
        (target / "modules.json").write_text(json.dumps([
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(listed)
        ]))  # fmt: skip
    return target


# What model2vec's directories can say; its vectors of each are in `MODEL2VEC_VECTORS`.
MODEL2VEC = {
    "normalized": {"normalize": True},
    "as it is": {"normalize": False, "with_modules": False},
    "shared and weighted": {"normalize": True, "shared": True, "weighted": True},
    "weighted": {"weighted": True},
    "float16": {"normalize": True, "dtype": np.float16},
    "int8": {"dtype": np.int8, "shared": True},
    "20 tokens": {"normalize": True, "max_length": 20},
    "any number": {"normalize": True, "max_length": None},
}
MODEL2VEC_VECTORS = Path(__file__).with_name("model2vec_vectors.json")


def _write_vectors() -> None:
    """Write the vectors that model2vec itself gives: ``python -m tests.helpers.static``."""
    import tempfile

    import model2vec

    from nemo_embed_dask.models.locate import ModelRef, find_model
    from nemo_embed_dask.models.names import MINILM

    minilm, vectors = find_model(ModelRef(MINILM)), {}
    for name, options in MODEL2VEC.items():
        with tempfile.TemporaryDirectory() as folder:
            path = make_model2vec(minilm, Path(folder) / "m", dimension=8, **options)
            vectors[name] = model2vec.StaticModel.from_pretrained(path).encode(TEXTS).astype(float).tolist()
    about = {"model2vec": model2vec.__version__, "command": "python -m tests.helpers.static"}
    lines = [f'"{name}": {json.dumps(rows)}' for name, rows in (about | vectors).items()]
    MODEL2VEC_VECTORS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    _write_vectors()
