"""Are the measures of a classifier those of their definitions and of scikit-learn, and is their table aligned?"""

import json

import numpy as np
import pytest

from numpy_gpt.finetune.metrics import as_dict, confusion, report, scores, width

# by hand: of 4 ham, 3 are found; of 6 spam, 4 are found
TRUTH = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
PREDICTED = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
MATRIX = np.array([[3, 1], [2, 4]])
REPORT = """\
               precision  recall     f1  texts
ham                0.600   0.750  0.667      4
spam               0.800   0.667  0.727      6
macro average      0.700   0.708  0.697     10
accuracy                          0.700     10

a row is a label, a column is a predicted label
      ham  spam
ham     3     1
spam    2     4"""


def test_confusion_counts_labels_by_row_and_predictions_by_column():
    matrix = confusion(np.array(TRUTH), np.array(PREDICTED), 2)
    assert matrix.tolist() == MATRIX.tolist()
    assert confusion(np.array([2]), np.array([0]), 4).tolist() == [[0] * 4, [0] * 4, [1, 0, 0, 0], [0] * 4]
    assert confusion(np.array([], np.uint8), np.array([], np.uint8), 2).tolist() == [[0, 0], [0, 0]]
    assert confusion(np.full(3, 15, np.uint8), np.full(3, 15, np.uint64), 20)[15, 15] == 3  # 15 * 20 exceeds a uint8


def test_scores_equal_those_computed_by_hand():
    s = scores(MATRIX)
    assert s.accuracy == 0.7
    assert s.precision.tolist() == pytest.approx([3 / 5, 4 / 5])
    assert s.recall.tolist() == pytest.approx([3 / 4, 4 / 6])
    assert s.f1.tolist() == pytest.approx([2 / 3, 8 / 11])
    assert s.macro_f1 == pytest.approx((2 / 3 + 8 / 11) / 2)
    assert s.support.tolist() == [4, 6]


def test_division_by_zero_gives_zero():
    s = scores(np.array([[2, 0, 0], [1, 0, 0], [0, 0, 0]]))  # no prediction of 1; neither text nor prediction of 2
    assert s.precision.tolist() == pytest.approx([2 / 3, 0, 0])
    assert s.recall.tolist() == [1, 0, 0]
    assert s.f1.tolist() == pytest.approx([4 / 5, 0, 0])
    assert s.accuracy == pytest.approx(2 / 3)
    assert scores(np.zeros((2, 2), int)).accuracy == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_scikit_learn(seed):
    theirs = pytest.importorskip("sklearn.metrics", reason="scikit-learn isn't installed: pip install -e '.[ci]'")
    rng, K = np.random.default_rng(seed), 2 + 3 * seed
    truth, predicted = rng.integers(0, K, (2, 12 * K))
    predicted[rng.random(len(predicted)) < 0.5] = 0  # so that some labels are never predicted
    matrix = confusion(truth, predicted, K)
    labels = list(range(K))
    assert np.array_equal(matrix, theirs.confusion_matrix(truth, predicted, labels=labels))
    s = scores(matrix)
    options = {"labels": labels, "zero_division": 0}
    expected = theirs.precision_recall_fscore_support(truth, predicted, **options)
    for found, value in zip((s.precision, s.recall, s.f1, s.support), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-12)
    assert s.accuracy == pytest.approx(theirs.accuracy_score(truth, predicted))
    assert s.macro_f1 == pytest.approx(theirs.f1_score(truth, predicted, average="macro", **options))


def test_report_is_a_table_of_measures_and_the_confusion_matrix():
    assert report(MATRIX, ["ham", "spam"]) == REPORT


def test_report_is_aligned_for_wide_and_combining_characters():
    matrix = np.array([[1234, 0, 5], [0, 10, 0], [0, 0, 1]])
    lines = report(matrix, ["スパム", "ha\u0308m", "ok"]).splitlines()
    table, _, (_, *counts) = lines[:6], lines[6], lines[7:]
    assert {width(line) for line in table} == {width(table[0])}
    assert {width(line) for line in counts} == {width(counts[0])}
    assert counts[1] == "スパム   1,234    0   5"
    assert counts[2].startswith("ha\u0308m   ")


def test_width_counts_the_columns_of_a_terminal():
    assert [width(text) for text in ("", "abc", "スパム", "a\u0308", "한글 a", "\uff21")] == [0, 3, 6, 1, 6, 2]


def test_wide_confusion_matrix_has_numbers_instead_of_labels():
    labels = [f"{letter * 40}" for letter in "abc"]
    _, table = report(np.diag([1, 2, 3]), labels).split("\n\n")
    assert table.splitlines() == [
        "a row is a label, a column is a predicted label",
        " " * 42 + "  1  2  3",
        f"1 {labels[0]}  1  0  0",
        f"2 {labels[1]}  0  2  0",
        f"3 {labels[2]}  0  0  3",
    ]


def test_long_and_unprintable_labels_are_shortened_and_escaped():
    text = report(MATRIX, ["a" * 200_000, "x\ny\x1b[31m"])
    lines = text.splitlines()
    assert len(lines) == 10
    assert lines[1].startswith("a" * 39 + "…  ")
    assert lines[2].startswith(r"x\ny\x1b[31m  ")
    assert max(map(len, lines)) <= 100


def test_confusion_matrix_of_many_labels_is_left_out():
    text = report(np.eye(21, dtype=int), [f"label {k}" for k in range(21)])
    assert text.endswith("\n\nThe confusion matrix of 21 labels is in the output of --json.")
    assert "label 20" in text
    assert "a row is" in report(np.eye(20, dtype=int), [f"label {k}" for k in range(20)])


def test_as_dict_is_the_report_as_json():
    found = json.loads(json.dumps(as_dict(MATRIX, ["ham", "spam"])))
    assert found == {
        "accuracy": 0.7,
        "macro_f1": pytest.approx((2 / 3 + 8 / 11) / 2),
        "labels": {
            "ham": {"precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3), "support": 4},
            "spam": {"precision": 0.8, "recall": pytest.approx(2 / 3), "f1": pytest.approx(8 / 11), "support": 6},
        },
        "confusion": [[3, 1], [2, 4]],
    }
