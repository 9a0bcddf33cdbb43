"""Are the vectors right? A sample, embedded as configured and again in a way written apart from the engine.

The reference is `reference`, in float32 and a text at a time; sentence-transformers is a third opinion.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..engine import embed_texts
from ..errors import ConfigError
from ..models.card import read_card
from ..models.locate import find_model
from ..rows import Embedded
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from .reference import Matrix, reference


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. Cosines are of the configured run against the reference, over ``rows`` texts.

    ``worst``: (row, cosine), worst first. ``norms``: least and largest length. ``failed``: rows without
    a finite vector. ``truncated``: share of rows cut. ``own``: least cosine to the vectors of the model's
    own pooling, None where that is in use or unknown. ``third``: least cosine to sentence-transformers'
    vectors, None where it gave none; ``why_not`` says why.
    """

    rows: int
    minimum: float
    mean: float
    worst: list[tuple[int, float]]
    norms: tuple[float, float]
    failed: list[int]
    truncated: float
    threshold: float
    own: float | None = None
    third: float | None = None
    why_not: str = ""
    texts: list[str] = field(default_factory=list, repr=False)

    @property
    def passed(self) -> bool:
        """Whether every row has a vector, and none is further from the reference than the threshold."""
        known = [least for least in (self.minimum, self.own, self.third) if least is not None]
        return not self.failed and min(known) >= self.threshold

    def __str__(self) -> str:
        third = self.why_not if self.third is None else f"{self.third:.7f} minimum"
        own = (
            "as configured"
            if self.own is None
            else f"{self.own:.7f} minimum; embedding_pooling='auto' takes it"
        )
        lines = [
            f"{'passed' if self.passed else 'FAILED'}: {self.rows} texts, threshold {self.threshold}",
            f"cosine to the float32 reference: {self.minimum:.7f} minimum, {self.mean:.7f} mean",
            f"cosine to the model's own pooling: {own}",
            f"cosine to sentence-transformers: {third}",
            f"norms: {self.norms[0]:.6f} to {self.norms[1]:.6f}; truncated: {self.truncated:.1%}",
            f"rows without a finite vector: {self.failed or 'none'}",
            "worst rows:",
            *(f"  {row}: {cosine:.7f} {self.texts[row][:60]!r}" for row, cosine in self.worst),
        ]
        return "\n".join(lines)


@stage_first("verify(EmbeddingCreatorStage(...), texts)")
def verify(
    stage: EmbeddingCreatorStage, texts: Sequence[str], *, threshold: float = 0.999, third_opinion: bool = True
) -> Verdict:
    """Embed a sample as configured, and compare it with a plain reference.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        Compared before ``embedding_dtype`` narrows its vectors; long documents are cut in both.
    texts : sequence of str
        Some hundreds of your own; the reference runs them one by one in float32.
    threshold : float
        Least cosine that passes. In bfloat16 0.999 is usual; in float32 (``autocast=False``) pass 0.99999.
    third_opinion : bool
        Compare with the model's own pooling, if another is configured, and with sentence-transformers, if it
        is installed and the model's own pooling is in use.

    Returns
    -------
    Verdict

    Raises
    ------
    ConfigError
        ``texts`` is empty or contains something other than strings, or ``threshold`` is not from -1 to 1.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold} must be a cosine, from -1 to 1")
    texts = list(texts)
    wrong = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None or not texts:
        where = "" if wrong is None else f"; row {wrong} holds a value of type {type(texts[wrong]).__name__}"
        raise ConfigError(f"verify needs texts: a sequence of at least one string, without nulls{where}")
    settings = replace(
        stage.settings, embedding_dtype="float32", extra_outputs=(), on_error="null", long_documents="truncate"
    )  # fmt: skip
    out = embed_texts(texts, settings)
    return _verdict(out, texts, settings, threshold, third_opinion)


def _verdict(out: Embedded, texts: list[str], settings: Settings, threshold: float, third: bool) -> Verdict:
    rows = np.flatnonzero(out.valid)
    known = [texts[i] for i in rows]  # the reference cannot read the others either
    got, cosines = out.matrix.cpu().double().numpy()[rows], np.zeros(len(texts))
    if known:
        cosines[rows] = _cosines(got, reference(known, settings))
    valid = out.valid & np.isfinite(cosines)
    norms = np.linalg.norm(got[valid[rows]], axis=1) if valid.any() else np.zeros(1)
    order = np.argsort(np.where(valid, cosines, -1.0))[:5]
    third = third and bool(known)
    own = _own(known, settings) if third else None
    other = _sentence_transformers(known, settings) if third else "not asked"

    def least(vectors: Matrix) -> float:
        return float(_cosines(got, vectors)[valid[rows]].min(initial=1.0))

    return Verdict(
        rows=len(texts),
        minimum=float(cosines[valid].min(initial=1.0)) if valid.any() else 0.0,
        mean=float(cosines[valid].mean()) if valid.any() else 0.0,
        worst=[(int(row), float(cosines[row])) for row in order],
        norms=(float(norms.min()), float(norms.max())),
        failed=np.flatnonzero(~valid).tolist(),
        truncated=float(out.truncated.mean()),
        threshold=threshold,
        own=None if own is None else least(own),
        third=None if isinstance(other, str) else least(other),
        why_not=other if isinstance(other, str) else "",
        texts=texts,
    )


def _cosines(a: Matrix, b: Matrix) -> Matrix:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Matrix = (a * b).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return np.where((a == 0).all(axis=1) & (b == 0).all(axis=1), 1.0, cosines)


def _own(texts: Sequence[str], settings: Settings) -> Matrix | None:
    """The reference's vectors with the model's own pooling, where it states another than is configured."""
    card = read_card(find_model(settings.model))
    if not card.has_modules or settings.pooling in ("auto", card.pooling):
        return None
    return reference(texts, replace(settings, pooling="auto", normalize=None))


def _sentence_transformers(texts: Sequence[str], settings: Settings) -> Matrix | str:
    """Its vectors in float32, each text alone as its padding is not always harmless; or why there are none."""
    if settings.pooling != "auto" or settings.adapter is not None:
        return "not asked: another pooling or an adapter is configured"
    if importlib.util.find_spec("sentence_transformers") is None:
        return "not installed"
    try:
        return _encode(texts, settings)
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        return f"failed: {str(error).splitlines()[0][:200]}"


def _encode(texts: Sequence[str], settings: Settings) -> Matrix:
    from sentence_transformers import SentenceTransformer

    path, dtype = str(find_model(settings.model)), {"dtype": torch.float32}
    model = SentenceTransformer(
        path, device="cpu", local_files_only=True, model_kwargs=dtype, trust_remote_code=False
    )
    if settings.max_seq_length is not None:
        model.max_seq_length = settings.max_seq_length
    vectors = model.encode(
        [text[: settings.max_chars] for text in texts], prompt=settings.prompt, batch_size=1,
        prompt_name=None if settings.prompt is not None else settings.prompt_name,
        truncate_dim=settings.truncate_dim, show_progress_bar=False,
    )  # fmt: skip
    return np.asarray(vectors, dtype=np.float64)
