"""What a short text is about, told from labelled examples: character n-grams and a logistic regression.

Rules say why, examples reach further: people find more ways of saying a thing than any list of rules holds.
"""

from collections.abc import Sequence

_LONGEST = 3  # characters of an n-gram
_TRUST = 20.0  # inverse of the regularisation, in scikit-learn's sense


class Classifier:
    """Learns in a second or two from some thousand examples; the same examples give the same classifier.

    Args:
        texts: normalised examples.
        labels: of each; classes weigh the same, however many examples they have.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        # imported only here: it takes a second, and nothing else needs it
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        grams = TfidfVectorizer(analyzer="char", ngram_range=(1, _LONGEST), sublinear_tf=True)
        learner = LogisticRegression(C=_TRUST, class_weight="balanced", max_iter=2000)
        self._model = make_pipeline(grams, learner).fit(list(texts), list(labels))

    def probabilities(self, text: str) -> dict[str, float]:
        """Class → probability, the likeliest first."""
        row = self._model.predict_proba([text])[0]
        pairs = zip(map(str, self._model.classes_), map(float, row), strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1]))
