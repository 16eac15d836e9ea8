"""Do threads that share a batch compute the same step as one thread?"""

from dataclasses import replace

import numpy as np
import pytest
from pools import numpys_openblas, with_threads

from numpy_gpt import adamw, named
from numpy_gpt.params import tree_map
from numpy_gpt.train.options import TrainOptions
from numpy_gpt.train.step import Trainer
from parity.inputs import TINY, random_batch, random_model

SETTINGS = TrainOptions(batch_size=6, context=7, lr=1e-2, min_lr=1e-3, warmup=0, clip=0.5)
CONFIG = replace(TINY, dropout=0.2)


def batches(t):
    return [(6 * i, *random_batch(CONFIG, B=6, T=7, seed=2 * t + i)) for i in range(2)]


def trainer(n, dtype=np.float64):
    numpys_openblas()
    m = random_model(CONFIG, dtype=dtype)
    made = Trainer(m._replace(params=tree_map(np.copy, m.params)), adamw.moments(m.params), SETTINGS)
    made.threads = with_threads(n)
    made.n = n
    return made


@pytest.mark.parametrize("n", [2, 3, 4])
def test_step_with_several_threads_equals_step_with_one(n):
    """Compare up to rounding; four threads get unequal shares of six sequences"""
    single, threaded = trainer(1), trainer(n)
    for t in range(1, 4):
        assert np.isclose(single.step(t, 1e-2, batches(t)), threaded.step(t, 1e-2, batches(t)), rtol=1e-13)
    x, y = random_batch(CONFIG, B=12, T=7, seed=9)
    assert np.isclose(single.loss(x, y), threaded.loss(x, y), rtol=1e-13)
    for (name, a), (_, b) in zip(named(single.m.params), named(threaded.m.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)


def test_shares_cover_a_batch_once():
    made = trainer(3)
    x, y = batches(1)[0][1:]
    shares = made.shares(6, x, y)
    assert [(weight, first, len(x), len(y)) for weight, first, x, y in shares] == [
        (1 / 3, first, 2, 2) for first in (6, 8, 10)
    ]
    assert [len(x) for _, _, x, _ in made.shares(0, x[:4], y[:4])] == [1, 1, 2]
    assert [len(x) for _, _, x, _ in made.shares(0, x[:1], y[:1])] == [1]


def test_trainer_uses_one_thread_for_a_model_that_is_large_for_its_batch(monkeypatch):
    # Adding a second tree of gradients would cost more than threading saves
    m, n = random_model(TINY), min(8, numpys_openblas().get_num_threads())
    monkeypatch.setattr("numpy_gpt.train.step.PARAMETERS_PER_TOKEN", m.config.num_parameters() / 7.5)
    for batch_size, expected in ((7, 1), (8, n)):
        made = Trainer(m, adamw.moments(m.params), replace(SETTINGS, batch_size=batch_size, context=1))
        assert made.n == expected
