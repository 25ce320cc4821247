"""What a short text is about, told from labelled examples: character n-grams and a logistic regression.

Rules say why, examples reach further: people find more ways of saying a thing than any list of rules holds.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from xinglin.assets import cache_dir
from xinglin.records import atomic_write

_LONGEST = 3  # characters of an n-gram
_TRUST = 20.0  # inverse of the regularisation, in scikit-learn's sense


class Classifier:
    """Learns in seconds from some thousand examples; the same examples give the same classifier.

    Args:
        texts: normalised examples.
        labels: of each; classes weigh the same, however many examples they have.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self._grams, self._learner = _untaught()
        self._learner.fit(self._grams.fit_transform(list(texts)), list(labels))

    def probabilities(self, text: str) -> dict[str, float]:
        """Class → probability, the likeliest first."""
        row = self._learner.predict_proba(self._grams.transform([text]))[0]
        pairs = zip(map(str, self._learner.classes_), map(float, row), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    def save(self, path: Path) -> None:
        """Write it as arrays, for `load`."""
        grams = self._grams.get_feature_names_out().astype(str)
        learner = self._learner
        with atomic_write(path, "wb") as file:
            np.savez(
                file,
                grams=grams,
                idf=self._grams.idf_.astype(np.float32),
                weights=learner.coef_.astype(np.float32),
                bias=learner.intercept_,
                classes=learner.classes_.astype(str),
            )

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what `save` wrote.

        Raises:
            OSError, ValueError, KeyError: it is not there, or broken.
        """
        kept = cls.__new__(cls)
        kept._grams, kept._learner = _untaught()
        with np.load(path, allow_pickle=False) as arrays:
            kept._grams.vocabulary_ = {gram: place for place, gram in enumerate(arrays["grams"].tolist())}
            kept._grams.idf_ = arrays["idf"].astype(np.float64)
            kept._learner.coef_ = arrays["weights"].astype(np.float64)
            kept._learner.intercept_, kept._learner.classes_ = arrays["bias"], arrays["classes"]
        return kept


def _untaught() -> tuple[Any, Any]:
    # imported only here: it takes a second, and nothing else needs it
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, _LONGEST), sublinear_tf=True)
    return grams, LogisticRegression(C=_TRUST, class_weight="balanced", max_iter=2000)


def learned(texts: Sequence[str], labels: Sequence[str]) -> Classifier:
    """A classifier from the cache, where one of the same examples is kept; else learned now, and kept."""
    examples = [_LONGEST, _TRUST, list(texts), list(labels)]
    return kept("classifiers", examples, Classifier.load, lambda: Classifier(texts, labels))


class Learned(Protocol):
    """What `kept` keeps."""

    def save(self, path: Path) -> None:
        """Write it."""


T = TypeVar("T", bound=Learned)


def kept(folder: str, examples: Any, load: Callable[[Path], T], learn: Callable[[], T]) -> T:
    """What was learned from the same examples before, from this folder of the cache; else learned now, and kept there.

    Args:
        examples: all that it is learned from and by, as JSON can hold it.
        load: may raise OSError, ValueError or KeyError where nothing fit is kept.
    """
    said = json.dumps(examples, ensure_ascii=False)
    digest = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    path = cache_dir() / folder / f"{digest}.npz"
    try:
        return load(path)
    except (OSError, ValueError, KeyError):
        made = learn()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save(path)
    except OSError:
        pass  # a cache that cannot be written costs time, no more
    return made
