"""Test that a sequence's logits don't depend on the number of sequences that are decoded together, bit for bit."""

import numpy as np
import pytest

from numpy_gpt import Config, load
from numpy_gpt.serve.engine import functions as engine_functions
from numpy_gpt.serve.engine.functions import functions
from numpy_gpt.serve.engine.rows import MOST, min_rows_of
from parity.inputs import TINY, VARIANTS, random_model

MODELS = {
    "storyteller": lambda: load("storyteller"),
    "124M's width": lambda: random_model(Config(n_vocab=701, n_ctx=64, n_embd=768, n_head=12, n_layer=1)),
    "odd sizes": lambda: random_model(Config(n_vocab=61, n_ctx=64, n_embd=50, n_head=5, n_layer=2)),
    **{name: lambda config=config: random_model(config) for name, config in VARIANTS.items()},
    "float64": lambda: random_model(TINY, dtype=np.float64),
}


@pytest.mark.parametrize("name", MODELS)
def test_step_gives_each_sequence_the_same_bits_for_any_number_of_sequences(name):
    m = MODELS[name]()
    f = functions(m)
    ids = [[(7 * i + j) % m.config.n_vocab for j in range(1 + i % 7)] for i in range(MOST)]

    def step(sequences):
        kvs = [f.new_kv(m.config.n_ctx) for _ in sequences]
        for i, kv in zip(sequences, kvs, strict=True):
            f.read(ids[i], kv)
        return f.step([3 + i % 50 for i in sequences], kvs)

    together = step(range(MOST))
    for B in (1, 2, 3, 5, 8, 17, MOST - 1):
        last = range(MOST - B, MOST)
        assert np.array_equal(step(last), together[-B:]), B


def test_min_rows_is_the_least_number_from_which_all_agree():
    class Matrix(np.ndarray):
        """Round differently if there are fewer than 5 rows"""

        def __rmatmul__(self, x):
            return x @ self.view(np.ndarray) + (len(x) < 5)

    assert min_rows_of(np.ones((8, 8), np.float32).view(Matrix)) == 5


def test_more_sequences_than_were_compared_are_decoded_in_several_matmuls(monkeypatch):
    m, sizes = random_model(TINY), []
    real = engine_functions.next_logits

    def next_logits(m, groups, kvs):
        sizes.append(sum(map(len, groups)))
        return real(m, groups, kvs)

    monkeypatch.setattr(engine_functions, "next_logits", next_logits)
    f = functions(m)
    n = 2 * MOST + 1
    together = f.step([i % 61 for i in range(n)], [f.new_kv(4) for _ in range(n)])
    assert sizes[:2] == [MOST, MOST]
    assert 2 <= sizes[2] <= MOST
    assert np.array_equal(together, [f.step([i % 61], [f.new_kv(4)])[0] for i in range(n)])
