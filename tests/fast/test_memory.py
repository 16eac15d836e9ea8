"""Do a step and an update need the predicted memory, and does checkpointing reduce it as predicted?"""

import tracemalloc

import numpy as np
import pytest
from pools import with_threads

from numpy_gpt import Config, Noise, adamw, forward, init, loss_and_grads, named
from numpy_gpt.fast import threads
from numpy_gpt.fast.attention import QUERIES

FLOAT = 4  # bytes
C, H, V = 96, 6, 61


def use_threads(n, monkeypatch):
    """Replace the shared pool by one of n threads"""
    created = with_threads(n)
    monkeypatch.setattr(threads, "shared", lambda: created)


@pytest.fixture
def one_thread(monkeypatch):
    """Use one thread, since with more threads the peak depends on their timing"""
    use_threads(1, monkeypatch)


def peak(run):
    """Return the largest memory in bytes that a second run of a function allocates"""
    run()  # caches are filled
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def step(L, B, T, dropout=0.0, checkpointing=False):
    """Return the peak memory of loss_and_grads for a model of L blocks"""
    m = init(Config(n_vocab=V, n_ctx=T, n_embd=C, n_head=H, n_layer=L, dropout=dropout))
    tokens = np.random.default_rng(0).integers(0, V, (B, T))
    return peak(lambda: loss_and_grads(m, tokens, tokens, Noise(seed=0, step=1), checkpointing))


GRADIENTS = 12 * C**2 + 13 * C  # numbers in the gradients of a block


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_block_saves_20_C_numbers_per_token_and_its_probabilities(B, T, one_thread):
    """Compare the peak with a prediction

    A block saves n of each LayerNorm (2 C), the input of each of the four matmuls (C, C, C, 4 C), q, k and v (3 C), x
    and t of gelu (8 C), and for each head and query the probabilities of all keys up to the last query of its tile.
    After the block's backward its gradients take the place of these values.
    """
    predicted = FLOAT * max(B * (T * 20 * C + probabilities(T)), GRADIENTS)
    assert (step(5, B, T) - step(3, B, T)) / 2 == pytest.approx(predicted, rel=0.02)


def test_dropout_saves_masks_and_a_second_array_of_probabilities(one_thread):
    B, T = 3, 160
    masks = B * (probabilities(T) + 2 * T * C)  # one byte for each probability and each number of both branches
    predicted = FLOAT * B * (T * 20 * C + 2 * probabilities(T)) + masks
    assert (step(5, B, T, dropout=0.1) - step(3, B, T, dropout=0.1)) / 2 == pytest.approx(predicted, rel=0.02)


def probabilities(T):
    """Return the number of probabilities that attention saves for a sequence in a layer"""
    return H * sum(min(QUERIES, T - t) * min(t + QUERIES, T) for t in range(0, T, QUERIES))


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_checkpointed_block_saves_only_its_input(B, T, one_thread):
    predicted = FLOAT * max(B * T * C, GRADIENTS)
    more = (step(5, B, T, checkpointing=True) - step(3, B, T, checkpointing=True)) / 2
    assert more == pytest.approx(predicted, rel=0.02)


def test_forward_saves_nothing_of_a_block():
    def run(L):
        m = init(Config(n_vocab=V, n_ctx=64, n_embd=C, n_head=H, n_layer=L))
        return peak(lambda: forward(m, np.zeros((3, 64), int)))

    assert run(9) - run(3) < FLOAT * 3 * 64 * C / 2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_update_needs_at_most_two_tiles_for_each_thread(n, monkeypatch):
    use_threads(n, monkeypatch)
    monkeypatch.setattr(adamw, "ELEMENTS", 1 << 14)
    m = init(Config(n_vocab=5000, n_ctx=64, n_embd=C, n_head=H, n_layer=2))
    moments, grads = adamw.moments(m.params), adamw.moments(m.params).m
    largest = max(p.nbytes for _, p in named(m.params))
    most = 2 * n * FLOAT * adamw.ELEMENTS
    assert peak(lambda: adamw.step(m.params, grads, moments, 1, 1e-3)) < most < largest
