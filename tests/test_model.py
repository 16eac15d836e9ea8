"""Has the model right gradients and a sensible initial loss, can it learn, and are its kv and checkpointing exact?"""

import math
from dataclasses import replace

import numpy as np
import pytest
from directional import TOLERANCE, directional_error

from numpy_gpt import Config, GPTError, Noise, adamw, forward, init, loss_and_grads, model, named
from numpy_gpt.fast import attention as fast_attention
from numpy_gpt.generate.kv import new_kv
from numpy_gpt.generate.step import gpt2_next
from numpy_gpt.model import gpt2
from numpy_gpt.params import tree_map
from parity.inputs import TINY, VARIANTS, random_batch, random_model


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_the_derivatives_of_the_loss(name):
    m = random_model(VARIANTS[name], dtype=np.float64)
    tokens, targets = random_batch(m.config, B=2, T=7)
    noise = Noise(seed=1, step=2)
    _, grads = loss_and_grads(m, tokens, targets, noise)
    leaves, gradients = ([a for _, a in named(tree)] for tree in (m.params, grads))
    rng = np.random.default_rng(1)

    def loss(*arrays):
        new = iter(arrays)
        params = tree_map(lambda _: next(new), m.params)
        return loss_and_grads(m._replace(params=params), tokens, targets, noise)[0]

    for _ in range(5):
        assert directional_error(loss, leaves, gradients, 1.0, rng) < TOLERANCE


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_loss_and_gradients_have_the_dtype_of_the_parameters(name, dtype):
    m = random_model(VARIANTS[name], dtype=dtype)
    tokens, targets = random_batch(m.config, B=2, T=7)
    loss, grads = loss_and_grads(m, tokens, targets, Noise(seed=1, step=2))
    assert forward(m, tokens).dtype == loss.dtype == dtype
    layout = [(name, a.shape, a.dtype) for name, a in named(m.params)]
    assert [(name, g.shape, g.dtype) for name, g in named(grads)] == layout


def test_loss_of_a_new_model_is_about_log_v():
    config = Config(n_vocab=1000, n_ctx=32, n_embd=64, n_head=4, n_layer=4)
    loss, _ = loss_and_grads(init(config), *random_batch(config, B=8, T=32))
    assert abs(loss - math.log(1000)) < 0.05


def test_training_on_one_batch_reaches_zero_loss():
    m = init(TINY)
    rng = np.random.default_rng(0)
    tokens = np.stack([rng.permutation(61)[:9] for _ in range(3)])  # each token has one successor
    state = adamw.moments(m.params)
    for t in range(1, 201):
        loss, grads = loss_and_grads(m, tokens[:, :-1], tokens[:, 1:])
        adamw.step(m.params, grads, state, t, lr=1e-2, weight_decay=0.0)
    assert loss < 0.01


@pytest.mark.parametrize("tile", [1, 4, 64])
@pytest.mark.parametrize("pieces", [[11], [1] * 11, [4, 1, 1, 3, 2]])
def test_logits_with_a_kv_equal_those_without(pieces, tile, monkeypatch):
    monkeypatch.setattr(fast_attention, "QUERIES", tile)
    m = random_model(TINY, dtype=np.float64)
    tokens, _ = random_batch(TINY, B=2, T=11)
    kv = new_kv(TINY, np.float64, B=2)
    uncached, _ = gpt2(tokens, m.params, TINY)
    ends = np.cumsum(pieces)
    for end, piece in zip(ends, np.split(tokens, ends[:-1], axis=1), strict=True):
        logits = gpt2_next([piece], m.params, TINY, [kv])
        np.testing.assert_allclose(logits, uncached[:, end - 1], rtol=0, atol=1e-12)
    assert [layer.length for layer in kv] == [11] * TINY.n_layer


def test_take_of_a_kv_selects_sequences_with_their_past():
    m = random_model(TINY, dtype=np.float64)
    tokens, _ = random_batch(TINY, B=3, T=8)
    kv = new_kv(TINY, np.float64, B=3, N=10)
    gpt2_next([tokens[:, :7]], m.params, TINY, [kv])
    taken = [layer.take([2, 0, 2]) for layer in kv]
    logits = gpt2_next([tokens[[2, 0, 2], 7:]], m.params, TINY, [taken])
    np.testing.assert_allclose(logits, forward(m, tokens)[[2, 0, 2], -1], rtol=0, atol=1e-12)
    assert [(layer.length, taken_layer.length) for layer, taken_layer in zip(kv, taken, strict=True)] == [(7, 8)] * 2


def test_forward_returns_the_logits_of_gpt2():
    m = random_model(TINY, dtype=np.float64)
    tokens, _ = random_batch(TINY, B=2, T=7)
    np.testing.assert_array_equal(forward(m, tokens), gpt2(tokens, m.params, TINY)[0])
    np.testing.assert_array_equal(forward(m, tokens.tolist()), forward(m, tokens))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("tile", [1, 3, 7])
def test_gradients_are_the_same_for_any_tile_size(tile, dropout, monkeypatch):
    m = random_model(replace(TINY, dropout=dropout), dtype=np.float64)
    batch = random_batch(TINY, B=2, T=7)
    noise = Noise(seed=1, step=2)
    loss, grads = loss_and_grads(m, *batch, noise)
    assert (loss == loss_and_grads(m, *batch)[0]) == (dropout == 0)
    monkeypatch.setattr(fast_attention, "QUERIES", tile)
    again, in_tiles = loss_and_grads(m, *batch, noise)
    assert loss == pytest.approx(again, rel=1e-14)
    for (name, g), (_, t) in zip(named(grads), named(in_tiles), strict=True):
        np.testing.assert_allclose(g, t, rtol=0, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_with_checkpointing_are_bit_identical(name):
    m = random_model(VARIANTS[name])
    batch = random_batch(m.config, B=2, T=7)
    noise = Noise(seed=1, step=2)
    loss, grads = loss_and_grads(m, *batch, noise)
    again, checkpointed = loss_and_grads(m, *batch, noise, checkpointing=True)
    assert loss == again
    for (name, g), (_, c) in zip(named(grads), named(checkpointed), strict=True):
        np.testing.assert_array_equal(g, c, err_msg=name)


def test_second_gpt2_backward_of_one_forward_raises():
    m = random_model(TINY)
    logits, saved = gpt2(random_batch(TINY, B=1, T=5)[0], m.params, TINY)
    model.gpt2_backward(logits, saved)
    with pytest.raises(GPTError, match="run gpt2 again"):
        model.gpt2_backward(logits, saved)


def test_checkpointing_saves_only_the_input_of_each_block():
    m = random_model(TINY)
    tokens, _ = random_batch(TINY, B=2, T=7)
    _, (_, _, s_h, *_) = gpt2(tokens, m.params, TINY, checkpointing=True)
    parameters = {id(a) for _, a in named(m.params)}
    for saved in s_h:
        new = [a for _, a in named(list(saved)) if isinstance(a, np.ndarray) and id(a) not in parameters]
        assert [a.shape for a in new] == [(2, 7, TINY.n_embd)]


def test_dropout_acts_only_with_noise_and_differs_between_steps():
    m = random_model(VARIANTS["dropout"])
    batch = random_batch(m.config, B=2, T=7)
    plain = random_model(TINY)
    assert loss_and_grads(m, *batch)[0] == loss_and_grads(plain, *batch)[0]
    losses = [loss_and_grads(m, *batch, Noise(seed=1, step=step))[0] for step in (0, 1, 0)]
    assert losses[0] == losses[2]
    assert len({losses[0], losses[1], loss_and_grads(m, *batch)[0]}) == 3


def test_logits_are_independent_of_later_tokens():
    m = random_model(TINY)
    tokens, _ = random_batch(TINY, B=1, T=11)
    changed = tokens.copy()
    changed[0, 6:] = (changed[0, 6:] + 1) % 61
    np.testing.assert_array_equal(forward(m, tokens)[:, :6], forward(m, changed)[:, :6])
    assert not (forward(m, tokens)[:, 6:] == forward(m, changed)[:, 6:]).any()
