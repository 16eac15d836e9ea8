"""Does bad input get a sentence that names it, before anything is changed?"""

import numpy as np
import pytest

from numpy_gpt import GPTError, forward, loss_and_grads
from numpy_gpt.params import tree_map
from parity.inputs import TINY, random_batch, random_model

GOOD = np.zeros((2, 7), int)
BAD_TOKENS = {
    "an id beyond the vocabulary": (np.full((2, 7), 61), "tokens has the id 61: the model's vocabulary is 0 to 60"),
    "a negative id": (np.full((2, 7), -1), "tokens has the id -1"),
    "more positions than n_ctx": (np.zeros((1, 12), int), "tokens has 12 positions and the model knows 11"),
    "no sequence": (np.zeros((0, 7), int), "tokens is empty"),
    "no token": (np.zeros((2, 0), int), "tokens is empty"),
    "one dimension": ([1, 2, 3], r"tokens has the shape \(3,\): it must be \(B,T\)"),
    "floats": (np.zeros((2, 7)), "tokens has the dtype float64"),
    "booleans": (np.zeros((2, 7), bool), "tokens has the dtype bool"),
    "text": ([["a", "b"]], "tokens has the dtype <U1"),
    "rows of different lengths": ([[1, 2], [3]], "tokens has rows of different lengths"),
}


@pytest.mark.parametrize("what", BAD_TOKENS)
def test_tokens(what):
    tokens, sentence = BAD_TOKENS[what]
    m = random_model(TINY)
    with pytest.raises(GPTError, match=sentence):
        forward(m, tokens)
    with pytest.raises(GPTError, match=sentence):
        loss_and_grads(m, tokens, tokens)


def test_targets():
    m = random_model(TINY)
    with pytest.raises(GPTError, match=r"targets has the shape \(2, 6\) and tokens \(2, 7\)"):
        loss_and_grads(m, GOOD, GOOD[:, 1:])
    with pytest.raises(GPTError, match="targets has the id 99"):
        loss_and_grads(m, GOOD, GOOD + 99)


def test_dtypes():
    m = random_model(TINY)
    half = m._replace(params=tree_map(lambda a: a.astype(np.float16), m.params))
    with pytest.raises(GPTError, match="parameter wte has the dtype float16"):
        forward(half, GOOD)
    mixed = m._replace(params=m.params._replace(wpe=m.params.wpe.astype(np.float64)))
    with pytest.raises(GPTError, match="parameter wpe has the dtype float64 and wte float32"):
        loss_and_grads(mixed, GOOD, GOOD)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_named(bad):
    m = random_model(TINY)
    m.params.h[1].mlp.c_proj.w[3, 2] = bad
    m.params.ln_f.b[0] = bad
    for f, args, what in [(forward, (), "output"), (loss_and_grads, (GOOD,), "loss")]:
        with pytest.raises(GPTError, match=rf"the {what} is not finite because parameter h.1.mlp.c_proj.w isn't"):
            f(m, GOOD, *args)


def test_an_overflow_is_told_from_a_broken_parameter():
    m = random_model(TINY)
    m.params.ln_f.g[...] = 3e38
    with pytest.raises(GPTError, match="the output is not finite though every parameter is"):
        forward(m, random_batch(TINY, B=2, T=7)[0])
