"""Does a step need the memory that the maths says, and does checkpointing save what it should?"""

import tracemalloc

import numpy as np
import pytest

from numpy_gpt import Config, adamw, forward, init, loss_and_grads, named, threads
from numpy_gpt.model import TILE

FLOAT = 4  # bytes
C, H, V = 96, 6, 61


def peak(run):
    run()  # what is made once is there
    tracemalloc.start()
    run()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def step(L, B, T, **options):
    m = init(Config(n_vocab=V, n_ctx=T, n_embd=C, n_head=H, n_layer=L))
    tokens = np.random.default_rng(0).integers(0, V, (B, T))
    return peak(lambda: loss_and_grads(m, tokens, tokens, **options))


GRADIENTS = 12 * C**2 + 13 * C  # of a block


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_a_block_saves_20_C_numbers_for_a_token_and_its_probabilities(B, T):
    """
    n of each LayerNorm, what goes into each of the four products (C, C, C, 4C), q, k and v, x and t of gelu (4C each),
    and a row of probabilities for each head, of the keys that the last query of its tile sees; when a block's backward
    is through, its gradients are in their place
    """
    probabilities = sum(min(TILE, T - t) * min(t + TILE, T) for t in range(0, T, TILE))
    predicted = FLOAT * max(B * (T * 20 * C + H * probabilities), GRADIENTS)
    assert (step(5, B, T) - step(3, B, T)) / 2 == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize(("B", "T"), [(2, 32), (3, 64), (1, 160)])
def test_checkpointed_it_saves_its_input_alone(B, T):
    predicted = FLOAT * max(B * T * C, GRADIENTS)
    more = (step(5, B, T, checkpointing=True) - step(3, B, T, checkpointing=True)) / 2
    assert more == pytest.approx(predicted, rel=0.02)


def test_without_a_backward_a_block_leaves_its_output():
    def run(L):
        m = init(Config(n_vocab=V, n_ctx=64, n_embd=C, n_head=H, n_layer=L))
        return peak(lambda: forward(m, np.zeros((3, 64), int)))

    assert run(9) - run(3) <= FLOAT * 6 * 3 * 64 * C * 1.05


def test_an_update_needs_a_tile_for_each_thread_and_no_more(monkeypatch):
    monkeypatch.setattr(adamw, "TILE", 1 << 14)
    m = init(Config(n_vocab=5000, n_ctx=64, n_embd=C, n_head=H, n_layer=2))
    moments, grads = adamw.moments(m.params), adamw.moments(m.params).m
    largest = max(p.nbytes for _, p in named(m.params))
    most = 2 * threads.shared().n * FLOAT * adamw.TILE
    assert peak(lambda: adamw.step(m.params, grads, moments, 1, 1e-3)) < most < largest
