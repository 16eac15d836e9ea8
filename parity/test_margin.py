"""Does the margin accept differences by rounding, and refuse wrong tokens?"""

import numpy as np
import pytest

from .margin import choice, margin

CUTS = [(0, 0, 1), (1, 0, 1), (0.8, 40, 1), (0.8, 0, 0.95), (1.3, 300, 0.6)]
RNG = np.random.default_rng(0)


def logits(n, V=500):
    return 2 * RNG.standard_normal((n, V))


def test_margin_of_the_drawn_token_is_0_and_of_the_second_half_the_gap():
    z = np.array([0.0, 1.0, 0.2])
    assert margin(z, 1, (0, 0, 1), 0, 0, 0) == 0
    assert margin(z, 0, (0, 0, 1), 0, 0, 0) == pytest.approx(0.5)
    assert margin(z, 2, (0, 0, 1), 0, 0, 0) == pytest.approx(0.4)


def test_margin_of_a_token_beyond_top_k_reaches_the_cut():
    # With this seed, token 0 is drawn from all three; from the best two it can't be
    z = np.array([0.0, 1.0, 0.4])
    seed = next(seed for seed in range(100) if choice(z, (1, 0, 1), seed, 0, 0) == 0)
    assert margin(z, 0, (1, 2, 1), seed, 0, 0) == pytest.approx(0.2)


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("d", [1e-6, 0.1])
def test_margin_of_a_token_from_perturbed_logits_is_within_twice_the_perturbation(cuts, d):
    for step, z in enumerate(logits(100)):
        moved = z + RNG.uniform(-d, d, z.shape)
        assert margin(z, choice(moved, cuts, 7, 0, step), cuts, 7, 0, step) <= 2 * d


@pytest.mark.parametrize("cuts", CUTS)
def test_random_tokens_rarely_have_a_small_margin(cuts):
    wrong = [(z, int(RNG.integers(len(z))), step) for step, z in enumerate(logits(100))]
    small = [margin(z, token, cuts, 7, 0, step) < 0.05 for z, token, step in wrong]
    assert sum(small) <= 2


@pytest.mark.parametrize(("cuts", "rank"), [((1, 40, 1), 40), ((1, 0, 0.5), None)])
def test_the_first_token_beyond_a_cut_rarely_has_a_small_margin(cuts, rank):
    small = 0
    for step, z in enumerate(logits(100)):
        order = np.argsort(-z)
        p = np.exp(z[order]) / np.exp(z).sum()
        first = order[rank or int((p.cumsum() - p < cuts[2]).sum())]
        small += margin(z, int(first), cuts, 7, 0, step) < 0.05
    assert small <= 5
