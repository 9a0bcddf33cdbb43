"""Verify vectors: embed a sample as configured, and again in independent ways, and compare.

The reference is in `reference`. sentence-transformers, if it is installed, gives a third opinion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..engine import embed_texts
from ..errors import ConfigError
from ..lists import LIST_COLUMNS
from ..models.card import find_card
from ..rows import Embedded
from ..settings import Settings
from ..stages import EmbeddingCreatorStage
from ..stages.base import stage_first
from ..summaries import Summary
from .reference import Matrix, cosines, least, reference
from .sampling import list_texts
from .third_opinion import compare_sentence_transformers


@dataclass(frozen=True)
class Verdict(Summary):
    """The result of `verify`.

    Attributes
    ----------
    rows : int
        Number of texts.
    minimum, mean : float
        Cosines of the configured vectors to the reference.
    worst : list of (int, float)
        Rows with the smallest cosines, and these cosines, smallest first.
    norms : tuple of float
        Smallest and greatest length of a vector.
    failed : list of int
        Rows without a finite vector.
    truncated : float
        Fraction of the rows that were truncated.
    threshold : float
        Least cosine that passes.
    own_pooling : float or None
        Least cosine to the vectors of the model's own pooling; None if it is in use or not known.
    third_opinion : float or None
        Least cosine to the vectors of sentence-transformers; None if there are none.
    no_third_opinion : str
        Why sentence-transformers gave no vectors.
    texts : list of str
        The sample.
    """

    rows: int
    minimum: float
    mean: float
    worst: list[tuple[int, float]]
    norms: tuple[float, float]
    failed: list[int]
    truncated: float
    threshold: float
    own_pooling: float | None = None
    third_opinion: float | None = None
    no_third_opinion: str = ""
    texts: list[str] = field(default_factory=list, repr=False)

    @property
    def passed(self) -> bool:
        """Whether every row has a vector and no cosine is below the threshold."""
        minima = (self.minimum, self.own_pooling, self.third_opinion)
        return not self.failed and min(least for least in minima if least is not None) >= self.threshold

    @property
    def _caption(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}: {self.rows} texts, threshold {self.threshold}"

    @property
    def _rows(self) -> dict[str, str]:
        own_pooling = "as configured"
        if self.own_pooling is not None:
            own_pooling = f"{self.own_pooling:.7f} minimum; embedding_pooling='auto' uses it"
        third_opinion = self.no_third_opinion
        if self.third_opinion is not None:
            third_opinion = f"{self.third_opinion:.7f} minimum"
        worst = (f"\n  {row}: {cosine:.7f} {self.texts[row][:60]!r}" for row, cosine in self.worst)
        return {
            "cosine to the float32 reference": f"{self.minimum:.7f} minimum, {self.mean:.7f} mean",
            "cosine to the model's own pooling": own_pooling,
            "cosine to sentence-transformers": third_opinion,
            "norms": f"{self.norms[0]:.6f} to {self.norms[1]:.6f}; truncated: {self.truncated:.1%}",
            "rows without a finite vector": str(self.failed or "none"),
            "worst rows": "".join(worst),
        }


@stage_first("verify(EmbeddingCreatorStage(...), texts)")
def verify(
    stage: EmbeddingCreatorStage, texts: Sequence[str], *, threshold: float = 0.999, third_opinion: bool = True
) -> Verdict:
    """Embed a sample as configured, and compare its vectors with a simple reference.

    Parameters
    ----------
    stage : EmbeddingCreatorStage
        Its vectors are compared before ``embedding_dtype`` quantizes them. Long documents are truncated.
    texts : sequence of str
        A few hundred of your own texts; the reference embeds them one by one in float32.
    threshold : float
        Least cosine that passes. In bfloat16 0.999 is usual; in float32 (``autocast=False``) pass 0.99999.
    third_opinion : bool
        Compare also with the model's own pooling, if another is configured, and with sentence-transformers,
        if it is installed and the model's own pooling is in use.

    Returns
    -------
    Verdict
        The cosines; ``passed`` says whether none is below the threshold.

    Raises
    ------
    ConfigError
        ``texts`` is empty or contains something other than strings, or ``threshold`` is not from -1 to 1.

    Examples
    --------
    >>> verify(EmbeddingCreatorStage(embedding_pooling="auto"), ["Whales sing.", "Bread is baked."]).passed
    True
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold} must be a cosine, from -1 to 1")
    if stage.settings.gives_lists:
        raise ConfigError(
            f"verify compares one vector per text, and embedding_pooling={stage.embedding_pooling!r} gives "
            "lists; compare some with sentence-transformers (MultiVectorEncoder, SparseEncoder)"
        )
    texts = list_texts(texts, "verify")
    _check_texts(texts)
    settings = replace(
        stage.settings,
        embedding_dtype="float32",
        extra_outputs=(),
        on_error="null",
        long_documents="truncate",
    )
    return _verdict(embed_texts(texts, settings), texts, settings, threshold, third_opinion)


def _check_texts(texts: list[str]) -> None:
    if not texts:
        raise ConfigError("verify needs at least one text, without nulls; it got none")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(
                f"verify needs strings, without nulls; row {row} holds a value of type {type(text).__name__}"
            )


def _verdict(
    out: Embedded, texts: list[str], settings: Settings, threshold: float, third_opinion: bool
) -> Verdict:
    matrix = out.matrix.cpu().double().numpy()
    found = _cosines_to_reference(out, matrix, texts, settings)
    has_vector = out.valid & np.isfinite(found)
    # The engine and the reference agree that a text has no tokens.
    is_empty = ~out.valid & (found == 1)
    is_compared = has_vector | is_empty
    rows = np.flatnonzero(has_vector)
    vectors, embedded_texts = matrix[rows], [texts[row] for row in rows]
    own, third, no_third = None, None, "not requested"
    if third_opinion and embedded_texts:
        own = _compare_own_pooling(vectors, embedded_texts, settings)
        third, no_third = compare_sentence_transformers(vectors, embedded_texts, settings)
    norms = np.linalg.norm(vectors, axis=1) if len(rows) else np.zeros(1)
    worst = np.argsort(np.where(is_compared, found, -1.0))[:5]
    return Verdict(
        rows=len(texts),
        minimum=least(found[is_compared]) if is_compared.any() else 0.0,
        mean=float(found[is_compared].mean()) if is_compared.any() else 0.0,
        worst=[(int(row), float(found[row])) for row in worst],
        norms=(float(norms.min()), float(norms.max())),
        failed=np.flatnonzero(~is_compared).tolist(),
        truncated=float(out.truncated.mean()),
        threshold=threshold,
        own_pooling=own,
        third_opinion=third,
        no_third_opinion=no_third,
        texts=texts,
    )


def _cosines_to_reference(out: Embedded, matrix: Matrix, texts: list[str], settings: Settings) -> Matrix:
    """Return each row's cosine to the reference; 0 for failed rows, which it cannot embed either."""
    found = np.zeros(len(texts))
    rows = [row for row in range(len(texts)) if row not in out.failures]
    if rows:
        found[rows] = cosines(matrix[rows], reference([texts[row] for row in rows], settings))
    return found


def _compare_own_pooling(vectors: Matrix, texts: list[str], settings: Settings) -> float | None:
    """Return the least cosine to the model's own pooling; None if it is in use, not known, or gives lists."""
    card = find_card(settings.model)
    if not card.has_modules or settings.pooling in ("auto", card.pooling) or card.pooling in LIST_COLUMNS:
        return None
    own = reference(texts, replace(settings, pooling="auto", normalize=None))
    return least(cosines(vectors, own))
