"""Do invalid arguments and overflowing results raise an error that names them, before anything is changed?"""

from dataclasses import replace
from threading import Barrier, current_thread, main_thread

import numpy as np
import pytest
from pools import with_threads

from numpy_gpt import GPTError, Model, complete, complete_batch, forward, init, loss_and_grads, stream
from numpy_gpt.checks import no_overflow
from numpy_gpt.generate.kv import new_kv
from numpy_gpt.generate.step import gpt2_next
from numpy_gpt.params import tree_map
from parity.inputs import TINY, VARIANTS, random_batch, random_model

GOOD = np.zeros((2, 7), int)
BAD_TOKENS = {
    "an id beyond the vocabulary": (np.full((2, 7), 61), "tokens has the id 61: the model's vocabulary is 0 to 60"),
    "a negative id": (np.full((2, 7), -1), "tokens has the id -1"),
    "more positions than n_ctx": (np.zeros((1, 12), int), "tokens has 12 positions, and the model's n_ctx is 11"),
    "no sequence": (np.zeros((0, 7), int), "tokens is empty"),
    "no token": (np.zeros((2, 0), int), "tokens is empty"),
    "one dimension": ([1, 2, 3], r"tokens has the shape \(3,\): it must be \(B,T\)"),
    "floats": (np.zeros((2, 7)), "tokens has the dtype float64"),
    "booleans": (np.zeros((2, 7), bool), "tokens has the dtype bool"),
    "text": ([["a", "b"]], "tokens has the dtype <U1"),
    "nothing": (None, r"tokens has the shape \(\)"),
    "a number": (1.5, r"tokens has the shape \(\)"),
    "rows of different lengths": ([[1, 2], [3]], "tokens has rows of different lengths"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_invalid_tokens_raise(case):
    tokens, message = BAD_TOKENS[case]
    m = random_model(TINY)
    with pytest.raises(GPTError, match=message):
        forward(m, tokens)
    with pytest.raises(GPTError, match=message):
        loss_and_grads(m, tokens, tokens)


def test_targets_of_another_shape_or_with_invalid_ids_raise():
    m = random_model(TINY)
    with pytest.raises(GPTError, match=r"targets has the shape \(2, 6\) and tokens \(2, 7\)"):
        loss_and_grads(m, GOOD, GOOD[:, 1:])
    with pytest.raises(GPTError, match=r"targets has the shape \(7, 2\) and tokens \(2, 7\)"):
        loss_and_grads(m, GOOD, GOOD.T)
    with pytest.raises(GPTError, match="targets has the id 99"):
        loss_and_grads(m, GOOD, GOOD + 99)


def test_parameter_of_an_unsupported_or_different_dtype_is_named():
    m = random_model(TINY)
    half = m._replace(params=tree_map(lambda a: a.astype(np.float16), m.params))
    with pytest.raises(GPTError, match="parameter wte has the dtype float16"):
        forward(half, GOOD)
    mixed = m._replace(params=m.params._replace(wpe=m.params.wpe.astype(np.float64)))
    with pytest.raises(GPTError, match="parameter wpe has the dtype float64 and wte float32"):
        loss_and_grads(mixed, GOOD, GOOD)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameter_that_is_not_finite_is_named(bad):
    m = random_model(TINY)
    m.params.h[1].mlp.c_proj.w[3, 2] = bad
    m.params.ln_f.b[0] = bad
    for f, args in [(forward, ()), (loss_and_grads, (GOOD,))]:
        with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_proj.w isn't"):
            f(m, GOOD, *args)


def test_overflow_without_a_broken_parameter_has_its_own_message():
    m = random_model(TINY)
    m.params.ln_f.g[...] = 3e38
    with pytest.raises(GPTError, match="the output is not finite though every parameter is"):
        forward(m, random_batch(TINY, B=2, T=7)[0])


def test_infinite_logit_raises_even_if_the_loss_is_finite():
    m = random_model(VARIANTS["untied"])
    m.params.head.w[9] = -np.inf
    with pytest.raises(GPTError, match=r"the output is not finite because parameter head.w isn't"):
        loss_and_grads(m, GOOD, GOOD)


def test_overflowing_loss_raises_though_the_logits_are_finite():
    m = random_model(VARIANTS["untied"])
    m.params.ln_f.g[...], m.params.ln_f.b[...] = 0, 1
    m.params.head.w[...] = 0
    m.params.head.w[:2, 0] = 3e38, -3e38
    assert np.isfinite(forward(m, GOOD)).all()
    with pytest.raises(GPTError, match="the loss is not finite though every parameter is"):
        loss_and_grads(m, GOOD, GOOD + 1)


def test_overflow_in_a_worker_thread_raises():
    both = Barrier(2)

    def multiply(x):
        both.wait(60)
        return x if current_thread() is main_thread() else x * x

    x = np.full(3, 1e30, np.float32)
    threads = with_threads(2)
    with pytest.raises(GPTError, match="the output is not finite"), no_overflow("the output", init(TINY).params):
        threads.map(multiply, [x, x])
    threads.stop()


def test_no_overflow_ignores_matmuls():
    # BLAS can report an overflow that didn't happen, and can fail to report a real one
    x = np.full((3, 3), 1e30, np.float32)
    with no_overflow("the output", init(TINY).params):
        assert np.isinf(x @ x).all()


P = random_model(TINY).params
BAD_MODELS = {
    "None": (None, "m is a NoneType: it must be a Model"),
    "a name": ("storyteller", "m is a str: it must be a Model"),
    "a pair": ((TINY, P), "m is a tuple: it must be a Model"),
    "no config": (Model("124M", P), "m has no Config or no tree of parameters"),
    "no parameters": (Model(TINY, None), "m has no Config or no tree of parameters"),
    "no blocks": (Model(TINY, P._replace(h=None)), "m has no Config or no tree of parameters"),
    "a list of numbers": (Model(TINY, P._replace(wpe=[[0.5]])), r"parameter wpe.0.0 is a float: .* numpy.ndarray"),
    "a missing array": (Model(TINY, P._replace(wte=None)), "the parameters are not those of Config"),
    "a missing norm": (Model(TINY, P._replace(ln_f=None)), "parameter ln_f.b is missing"),
    "a missing block": (Model(TINY, P._replace(h=[P.h[0], None])), "parameter h.1.attn.c_attn.b is missing"),
    "an array for a head": (
        Model(replace(TINY, tied=False), P._replace(head=P.wte)),
        "parameter head.w is missing",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_public_functions_raise_for_an_invalid_model(case):
    m, message = BAD_MODELS[case]
    calls = [
        lambda: forward(m, GOOD),
        lambda: loss_and_grads(m, GOOD, GOOD),
        lambda: stream(m, [1]),
        lambda: complete(m, [1]),
        lambda: complete_batch(m, [[1]]),
    ]
    for call in calls:
        with pytest.raises(GPTError, match=message):
            call()


OTHER_CONFIGS = {
    "n_ctx": replace(TINY, n_ctx=12),
    "n_vocab": replace(TINY, n_vocab=60),
    "n_layer": replace(TINY, n_layer=1),
    "tied": replace(TINY, tied=False),
    "qkv_bias": replace(TINY, qkv_bias=False),
}


@pytest.mark.parametrize("field", OTHER_CONFIGS)
def test_config_that_does_not_fit_the_parameters_raises(field):
    m = random_model(TINY)._replace(config=OTHER_CONFIGS[field])
    with pytest.raises(GPTError, match="the parameters are not those of Config"):
        forward(m, GOOD)


@pytest.mark.parametrize("noise", [True, 7, (1, 2), np.random.default_rng(0)])
def test_noise_of_another_type_raises(noise):
    with pytest.raises(GPTError, match=r"it must be None or a numpy_gpt.Noise\(seed, step\)"):
        loss_and_grads(random_model(TINY), GOOD, GOOD, noise)


@pytest.mark.parametrize(
    ("kv", "message"),
    [
        ({"B": 1}, "the kv is for 1 sequences in float32, and the tokens are 2 sequences for a"),
        (
            {"B": 2, "dtype": np.float64},
            "the kv is for 2 sequences in float64, .* 2 sequences for a model in float32",
        ),
    ],
)
def test_kv_of_another_batch_size_or_dtype_raises(kv, message):
    with pytest.raises(GPTError, match=message):
        gpt2_next([GOOD], random_model(TINY).params, TINY, [new_kv(TINY, **kv)])


@pytest.mark.parametrize("more", [1, 3])
def test_tokens_beyond_the_room_of_a_kv_raise_and_leave_it_unchanged(more):
    m = random_model(TINY)
    kv = new_kv(TINY, B=2)
    for piece in (GOOD, GOOD[:, :4]):
        gpt2_next([piece], m.params, TINY, [kv])
    with pytest.raises(GPTError, match=f"the kv has room for 11 positions, holds 11 and can't take {more} more"):
        gpt2_next([GOOD[:, :more]], m.params, TINY, [kv])
    assert [layer.length for layer in kv] == [11, 11]


@pytest.mark.parametrize("seed", [-1, 1.5, None, True, 2**64])
def test_init_with_an_invalid_seed_raises(seed):
    with pytest.raises(GPTError, match=f"seed is {seed}"):
        init(TINY, seed)


def test_init_with_a_name_instead_of_a_config_raises():
    with pytest.raises(GPTError, match="config is '124M': it must be a Config"):
        init("124M")
