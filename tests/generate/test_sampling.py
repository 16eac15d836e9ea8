"""Test the probabilities of drawn tokens, top-k and top-p against their definition, and the random numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numpy_gpt.generate.sampling import best, likeliest, sample, survivors
from numpy_gpt.noise import philox, uniform

Z = np.array([0.5, 2.0, -1.0, 1.0, 2.0, 0.0], np.float32)


def softmax(z):
    e = np.exp(np.asarray(z, np.float64))
    return e / e.sum()


def by_definition(z, top_k, top_p):
    """Sort the whole vocabulary, and cut it after top_k and top_p; a tie goes to the lower id"""
    order = sorted(range(len(z)), key=lambda i: -z[i])[: top_k or len(z)]
    total, mass, kept = sum(math.exp(z[i]) for i in order), 0.0, []
    for i in order:
        if kept and top_p < 1 and mass >= top_p * total:
            break
        kept.append(i)
        mass += math.exp(z[i])
    return kept


def test_temperature_0_takes_the_best_token_and_the_lower_id_of_a_tie():
    assert sample(Z, temperature=0, top_k=3, top_p=0.5, seed=7, number=2, step=3) == 1
    assert type(sample(Z, 0, 0, 1, 0, 0, 0)) is int


@settings(max_examples=300)
@given(
    z=st.lists(st.integers(-8, 0), min_size=1, max_size=200),
    top_k=st.integers(0, 220),
    top_p=st.sampled_from([0, 1e-9, 0.1, 0.5, 0.9, 0.999, 1 - 1e-12, 1]),
)
def test_survivors_are_those_of_a_full_sort_with_many_ties(z, top_k, top_p):
    z = np.array(z, np.float64)
    assert sorted(survivors(z, top_k, top_p)) == sorted(by_definition(z, top_k, top_p))


def test_survivors_of_a_large_vocabulary_are_those_of_a_full_sort():
    z = np.random.default_rng(0).standard_normal(20000) * 2
    z -= z.max()
    for top_k, top_p in ((0, 0.3), (0, 0.9), (0, 0.9999), (5000, 0.95), (5000, 1), (64, 0.5), (65, 0.9999), (0, 1)):
        assert sorted(survivors(z, top_k, top_p)) == sorted(by_definition(z, top_k, top_p))


@pytest.mark.parametrize("top_k", [0, 50, 1000])
def test_survivors_are_those_of_a_full_sort_at_the_edge_of_rounding(top_k):
    # Each top_p is within rounding of the probability that some number of the best tokens hold
    z = np.random.default_rng(1).standard_normal(1500) * 3
    z -= z.max()
    order = np.argsort(-z, kind="stable")[: top_k or None]
    mass = np.exp(z[order]).cumsum()
    total = np.exp(z[order] if top_k else z).sum()
    for top_p in mass[mass < total] / total:
        expected = order[: np.searchsorted(mass, top_p * total) + 1]
        assert sorted(survivors(z, top_k, top_p)) == sorted(expected)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1, 0, 1, softmax(Z)),
        (0.5, 0, 1, softmax(Z * 2)),
        (2, 3, 1, softmax([-np.inf, 1, -np.inf, 0.5, 1, -np.inf])),  # temperature comes before top-k and top-p
        (1, 0, 0.8, softmax([-np.inf, 2, -np.inf, 1, 2, -np.inf])),
        (1, 1, 0.9, [0, 1, 0, 0, 0, 0]),
        (1, 0, 0, [0, 1, 0, 0, 0, 0]),
        (1e-300, 0, 1, [0, 0.5, 0, 0, 0.5, 0]),
    ],
)
def test_frequencies_of_drawn_tokens_match_their_probabilities(temperature, top_k, top_p, expected):
    n = 8000
    counts = np.bincount([sample(Z, temperature, top_k, top_p, 11, 0, step) for step in range(n)], minlength=6)
    sigma = np.sqrt(n * np.asarray(expected) * (1 - np.asarray(expected)))
    assert (abs(counts - n * np.asarray(expected)) <= 4 * sigma).all()


@pytest.mark.parametrize("number", [0, 3, 2**32 - 1])
def test_uniform_gives_each_token_its_word_of_philox(number):
    words = [philox((i // 4, 9, number, 0), (5, 7)).tolist()[i % 4] for i in range(11)]
    u = uniform(2**32 * 7 + 5, number, 9, np.arange(11))
    assert u.tolist() == [(word + 0.5) / 2**32 for word in words]


def test_uniform_gives_a_token_the_same_number_beside_any_others():
    everything = uniform(3, 6, 1, np.arange(50257))
    for ids in ([0], [50256], [3, 4, 7, 50000], range(0, 50257, 2)):
        np.testing.assert_array_equal(uniform(3, 6, 1, np.array(ids)), everything[np.array(ids)])
    assert 0 < everything.min() < 1e-4
    assert 1 - 1e-4 < everything.max() < 1


def test_uniform_differs_for_each_seed_sample_and_step():
    streams = [(seed, number, step) for seed in (0, 1, 2**32, 2**63) for number in (0, 1, 2) for step in (0, 1, 2)]
    assert len({tuple(uniform(*stream, np.arange(8))) for stream in streams}) == 36


def test_likeliest_sorts_the_best_ids_and_gives_the_logprob_of_every_id():
    ids, logprobs = likeliest(Z, 3)
    assert ids.tolist() == [1, 4, 3]
    np.testing.assert_allclose(np.exp(logprobs), softmax(Z))
    assert len(likeliest(Z, 100)[0]) == 6
    assert best(Z, 1).tolist() == [1]
