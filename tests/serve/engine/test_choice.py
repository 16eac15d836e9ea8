"""Test logit_bias and penalties against OpenAI's formula, and scores against a log-softmax."""

from collections import Counter
from math import inf

import numpy as np
import pytest

from numpy_gpt.generate.options import DecodingOptions
from numpy_gpt.serve.engine.choice import adjusted, choose
from numpy_gpt.serve.engine.scores import score
from numpy_gpt.serve.engine.sequence import Sequence

Z = np.array([0.5, 2.0, -1.0, 1.5], np.float32)
GREEDY = Sequence([1], DecodingOptions(5, 0.0, 0, 1.0, 0), [])


def test_frequency_penalty_is_subtracted_for_each_occurrence_and_presence_penalty_once():
    sequence = GREEDY._replace(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={2: 3.0, 1: -100.0})
    assert adjusted(Z, sequence, Counter({1: 3, 3: 1})).tolist() == [0.5, 2 - 100 - 0.5 - 0.75, 2.0, 1.5 - 0.5 - 0.25]


@pytest.mark.parametrize(("name", "expected"), [("presence_penalty", 1.0), ("frequency_penalty", -1.0)])
def test_each_penalty_works_alone(name, expected):
    found = adjusted(Z, GREEDY._replace(**{name: 1.0}), Counter({1: 3}))
    assert found.tolist() == [0.5, expected, -1.0, 1.5]


def test_negative_penalties_raise_the_logits_of_repeated_tokens():
    sequence = GREEDY._replace(presence_penalty=-2.0)
    assert choose(Z, sequence, Counter({3: 9}), 9) == 3


def test_penalties_change_nothing_before_the_first_token():
    assert adjusted(Z, GREEDY._replace(presence_penalty=2.0), Counter()) is Z


def test_bias_changes_the_best_token_but_no_score():
    sequence = GREEDY._replace(logit_bias={2: 100.0})
    assert choose(Z, sequence, Counter(), 0) == 2
    expected = Z - np.log(np.exp(Z).sum())
    found = score(Z, 2, 3)
    assert found.logprob == pytest.approx(expected[2])
    assert found.best == [(i, pytest.approx(expected[i])) for i in (1, 3, 0)]


def test_score_with_no_alternatives_has_an_empty_list():
    assert score(Z, 0, 0).best == []


def test_score_lists_no_more_ids_than_the_vocabulary_has():
    assert len(score(Z, 0, 9).best) == 4


def test_bias_of_minus_infinity_is_never_drawn():
    sequence = Sequence([1], DecodingOptions(5, 1.0, 0, 1.0, 0), [], logit_bias={1: -inf})
    assert {choose(Z, sequence, Counter(), step) for step in range(200)} == {0, 2, 3}
