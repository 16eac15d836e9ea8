"""Does docs/bag_of_words.py fit the logistic regression that it documents, and measure it on test rows?"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = [
    "the cat sat",
    "The cat ran, and ran",
    "win 500 now",
    "win 800 now!",
    "the dog sat",
    "a dog, a cat",
    "now a dog",
    "call 12 now",
]
LABELS = ["ham", "ham", "spam", "spam", "dog", "dog", "dog", "spam"]


@pytest.fixture
def bag(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import bag_of_words

    return bag_of_words


def test_words_are_a_set_in_lower_case_without_the_values_of_digits(bag):
    assert bag.words("Win £500 NOW, win 800 now!") == {"win", "£", "000", "now", ",", "!"}


def test_words_contain_pairs_of_neighbours_if_wanted(bag):
    assert bag.words("Win now, win", neighbours=True) == {"win", "now", ",", "win now", "now ,", ", win"}


def test_only_pairs_of_neighbours_tell_apart_texts_of_the_same_words(bag):
    texts, labels = ["a b c", "c b a"], ["up", "down"]
    assert bag.predict(bag.fit(texts, labels), texts) != labels
    assert bag.predict(bag.fit(texts, labels, neighbours=True), texts) == labels


def test_fit_minimises_the_documented_loss(bag, monkeypatch):
    monkeypatch.setattr(bag, "L2", 0.01)
    c = bag.fit(TEXTS, LABELS)
    x = np.array([[word in bag.words(text) for word in c.vocabulary] for text in TEXTS], float)
    y = np.array([c.labels.index(label) for label in LABELS])

    def loss(w, b):
        z = x @ w + b
        return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]) + 0.005 * (w * w).sum()

    least, rng = loss(c.w, c.b), np.random.default_rng(0)
    for _ in range(20):
        dw, db = 1e-3 * rng.standard_normal(c.w.shape), 1e-3 * rng.standard_normal(c.b.shape)
        assert loss(c.w + dw, c.b + db) > least
        slope = (loss(c.w + dw, c.b + db) - loss(c.w - dw, c.b - db)) / 2
        assert abs(slope) < 1e-7


@pytest.mark.slow
def test_fit_equals_that_of_scikit_learn(bag, monkeypatch):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn isn't installed: pip install -e '.[ci]'")
    monkeypatch.setattr(bag, "L2", 0.01)
    c = bag.fit(TEXTS, LABELS)
    x = np.array([[word in bag.words(text) for word in c.vocabulary] for text in TEXTS], float)
    theirs = linear.LogisticRegression(C=1 / (0.01 * len(TEXTS)), tol=1e-10, max_iter=10_000).fit(x, LABELS)
    assert c.labels == theirs.classes_.tolist()
    np.testing.assert_allclose(c.w.T, theirs.coef_, atol=1e-4)


def test_prediction_is_by_known_words_alone(bag):
    c = bag.fit(TEXTS, LABELS)
    assert bag.predict(c, TEXTS) == LABELS
    assert bag.predict(c, ["win 777 unheard", "sat the unheard cat", "DOG"]) == ["spam", "ham", "dog"]
    assert bag.predict(c, ["unheard", ""]) == [c.labels[c.b.argmax()]] * 2


def test_command_prints_the_accuracy_on_test_rows_of_each_seed(tmp_path):
    data = tmp_path / "data.tsv"
    rows = [f"ham\tsee you at {i}" for i in range(40)] + [f"spam\twin {i} now" for i in range(20)]
    data.write_text("\n".join(rows))
    command = [sys.executable, DOCS / "bag_of_words.py", "--data", data, "--balance", "--seeds", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout == ("seed 0: test accuracy 1.0000\nseed 1: test accuracy 1.0000\nmean: test accuracy 1.0000\n")
    data.write_text("ham\tsee you\n")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bag_of_words: {data} has one label, 'ham': a classifier needs at least two.\n"


def test_test_rows_are_not_fitted(bag, tmp_path, monkeypatch):
    # Each text has a word of its own: no classifier predicts the random labels of unseen texts
    rng = np.random.default_rng(0)
    path = tmp_path / "data.tsv"
    path.write_text("".join(f"{'ab'[rng.integers(2)]}\t{chr(0x4E00 + i)}\n" for i in range(400)))
    assert 0.3 < bag.accuracy(str(path), False, 0) < 0.7
