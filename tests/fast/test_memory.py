"""Does a step need the memory that the maths says, and does checkpointing save what it should?"""

import tracemalloc

import numpy as np
import pytest

from numpy_gpt import Config, Noise, adamw, forward, init, loss_and_grads, named
from numpy_gpt.fast import threads
from numpy_gpt.fast.attention import QUERIES

FLOAT = 4  # bytes
C, H, V = 96, 6, 61


def shared_by(n, monkeypatch):
    made = threads.Threads()
    made.n = n
    monkeypatch.setattr(threads, "shared", lambda: made)


@pytest.fixture
def one_thread(monkeypatch):
    """With more, a peak depends on which tiles they happen to be at"""
    shared_by(1, monkeypatch)


def peak(run):
    run()  # what is made once is there
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def step(L, B, T, dropout=0.0, checkpointing=False):
    m = init(Config(n_vocab=V, n_ctx=T, n_embd=C, n_head=H, n_layer=L, dropout=dropout))
    tokens = np.random.default_rng(0).integers(0, V, (B, T))
    return peak(lambda: loss_and_grads(m, tokens, tokens, Noise(seed=0, step=1), checkpointing))


GRADIENTS = 12 * C**2 + 13 * C  # of a block


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_a_block_saves_20_C_numbers_for_a_token_and_its_probabilities(B, T, one_thread):
    """
    n of each LayerNorm, what goes into each of the four products (C, C, C, 4C), q, k and v, x and t of gelu (4C each),
    and a row of probabilities for each head, of the keys that the last query of its tile sees; when a block's backward
    is through, its gradients are in their place
    """
    predicted = FLOAT * max(B * (T * 20 * C + probabilities(T)), GRADIENTS)
    assert (step(5, B, T) - step(3, B, T)) / 2 == pytest.approx(predicted, rel=0.02)


def test_with_dropout_what_is_left_of_them_and_the_masks_as_well(one_thread):
    B, T = 3, 160
    masks = B * (probabilities(T) + 2 * T * C)  # a byte each: of the probabilities, of both branches
    predicted = FLOAT * B * (T * 20 * C + 2 * probabilities(T)) + masks
    assert (step(5, B, T, dropout=0.1) - step(3, B, T, dropout=0.1)) / 2 == pytest.approx(predicted, rel=0.02)


def probabilities(T):
    """Of a sequence in a layer, saved by tiles"""
    return H * sum(min(QUERIES, T - t) * min(t + QUERIES, T) for t in range(0, T, QUERIES))


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_checkpointed_it_saves_its_input_alone(B, T, one_thread):
    predicted = FLOAT * max(B * T * C, GRADIENTS)
    more = (step(5, B, T, checkpointing=True) - step(3, B, T, checkpointing=True)) / 2
    assert more == pytest.approx(predicted, rel=0.02)


def test_forward_keeps_nothing_of_a_block():
    def run(L):
        m = init(Config(n_vocab=V, n_ctx=64, n_embd=C, n_head=H, n_layer=L))
        return peak(lambda: forward(m, np.zeros((3, 64), int)))

    assert run(9) - run(3) < FLOAT * 3 * 64 * C / 2


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_update_needs_a_tile_for_each_thread_and_no_more(n, monkeypatch):
    shared_by(n, monkeypatch)
    monkeypatch.setattr(adamw, "ELEMENTS", 1 << 14)
    m = init(Config(n_vocab=5000, n_ctx=64, n_embd=C, n_head=H, n_layer=2))
    moments, grads = adamw.moments(m.params), adamw.moments(m.params).m
    largest = max(p.nbytes for _, p in named(m.params))
    most = 2 * n * FLOAT * adamw.ELEMENTS
    assert peak(lambda: adamw.step(m.params, grads, moments, 1, 1e-3)) < most < largest
