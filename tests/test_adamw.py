"""Do AdamW, the schedule and clipping compute their formulas, in place, and refuse invalid arguments?"""

import math

import numpy as np
import pytest

from numpy_gpt import GPTError, adamw, init, named
from numpy_gpt.params import tree_map
from parity.inputs import TINY, random_model

SETTINGS = {"lr": 0.01, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.5}


def gradients(seed):
    return random_model(TINY, seed, np.float64).params


def textbook(p, history, decay):
    """Return p after AdamW's textbook steps; m and v are written as sums over all gradients, not as recurrences"""
    lr, b1, b2, eps, _ = SETTINGS.values()
    for t in range(1, len(history) + 1):
        ages = [t - 1 - i for i in range(t)]
        m = sum((1 - b1) * b1**age * g for age, g in zip(ages, history, strict=False)) / (1 - b1**t)
        v = sum((1 - b2) * b2**age * g**2 for age, g in zip(ages, history, strict=False)) / (1 - b2**t)
        p = p - lr * decay * p - lr * m / (np.sqrt(v) + eps)
    return p


def test_steps_equal_the_textbook_formula_and_only_matrices_decay():
    m = random_model(TINY, dtype=np.float64)
    start = dict(named(tree_map(np.copy, m.params)))
    state = adamw.moments(m.params)
    history = [gradients(seed) for seed in (1, 2, 3)]
    for t, grads in enumerate(history, 1):
        adamw.step(m.params, grads, state, t, **SETTINGS)
    for i, (name, p) in enumerate(named(m.params)):
        decay = SETTINGS["weight_decay"] if name.endswith((".w", "wte", "wpe")) else 0
        expected = textbook(start[name], [list(named(g))[i][1] for g in history], decay)
        np.testing.assert_allclose(p, expected, rtol=1e-12, atol=1e-14, err_msg=name)


def test_step_is_bit_identical_for_any_memory_order_and_tiling():
    rng = np.random.default_rng(0)
    p, g, m, v = rng.random((4, 700, 300))  # four tiles
    one = [a.copy() for a in (p, g, m, v)]
    other = [np.asfortranarray(a) for a in (p, g, m, v)]
    adamw.update(p, g, m, v, t=3, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1)
    for arrays in (one, other):
        p_, g_, m_, v_ = arrays
        adamw.step([p_], [g_], adamw.Moments([m_], [v_]), t=3, lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.1)
        for a, b in zip(arrays, (p, g, m, v), strict=True):
            np.testing.assert_array_equal(a, b)


def test_clip_scales_by_the_norm_of_all_gradients_as_one_vector():
    grads = gradients(1)
    before = tree_map(np.copy, grads)
    norm = math.sqrt(sum((g**2).sum() for _, g in named(grads)))
    assert math.isclose(adamw.clip(grads, norm * 2), norm, rel_tol=1e-12)
    for (_, g), (_, same) in zip(named(grads), named(before), strict=True):
        np.testing.assert_array_equal(g, same)
    assert math.isclose(adamw.clip(grads, norm / 4), norm, rel_tol=1e-12)
    for (_, g), (_, whole) in zip(named(grads), named(before), strict=True):
        np.testing.assert_allclose(g, whole / 4, rtol=1e-12)


def test_clip_sums_the_norm_of_float32_gradients_in_float64():
    grads = [np.full(1 << 20, 1e-3, np.float32), np.full(1, 1e30, np.float32)]
    assert math.isclose(adamw.clip(grads[:1], 10), np.float32(1e-3) * 1024, rel_tol=1e-12)
    assert math.isclose(adamw.clip(grads[1:], 1e31), np.float32(1e30), rel_tol=1e-12)


def test_cosine_rises_linearly_and_falls_as_half_a_cosine():
    rate = [adamw.cosine(step, steps=111, lr=1.0, min_lr=0.1, warmup=10) for step in range(120)]
    np.testing.assert_allclose(rate[:10], np.arange(1, 11) / 10)
    assert rate[10] == 1.0
    assert math.isclose(rate[60], 0.55)
    assert math.isclose(rate[35], 0.55 + 0.45 * math.cos(math.pi / 4))
    np.testing.assert_allclose(rate[110:], 0.1)
    assert adamw.cosine(5, steps=3, lr=1.0, min_lr=0.2, warmup=3) == 0.2


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30, 2000])
@pytest.mark.parametrize("warmup", [0, 1, 2, 29])
def test_cosine_of_the_last_step_is_min_lr(steps, warmup):
    # If a run isn't longer than its warm-up, its last step is still in the linear rise
    last = adamw.cosine(steps - 1, steps, 0.7, min_lr=0.1, warmup=warmup)
    assert last == (0.1 if steps > warmup else 0.7 * steps / warmup)
    assert adamw.cosine(max(steps, warmup), steps, 0.7, min_lr=0.1, warmup=warmup) == 0.1


BAD_SCHEDULES = [
    ({"step": None}, "the step of the schedule is None"),
    ({"step": 1.5}, "the step of the schedule is 1.5: it must be a whole number of at least 0"),
    ({"steps": "a"}, "the number of steps of the schedule is 'a'"),
    ({"steps": 0}, "the number of steps of the schedule is 0"),
    ({"warmup": True}, "the warmup of the schedule is True"),
    ({"warmup": -1}, "the warmup of the schedule is -1"),
    ({"lr": None}, "lr is None: it must be a finite number of at least 0"),
    ({"lr": math.nan}, "lr is nan"),
    ({"min_lr": "1e-4"}, "min_lr is '1e-4'"),
]


@pytest.mark.parametrize(("setting", "message"), BAD_SCHEDULES)
def test_cosine_with_an_invalid_argument_raises(setting, message):
    with pytest.raises(GPTError, match=message):
        adamw.cosine(**({"step": 1, "steps": 10, "lr": 1e-3} | setting))


def unchanged(m, state, before):
    return all((a == b).all() for (_, a), (_, b) in zip(named([m.params, *state]), named(before), strict=True))


@pytest.mark.parametrize("name", ["grads", "moments.m", "moments.v"])
def test_step_with_a_tree_that_does_not_fit_raises_and_updates_nothing(name):
    m = init(TINY)
    trees = {"grads": tree_map(np.ones_like, m.params), "moments.m": None, "moments.v": None}
    trees["moments.m"], trees["moments.v"] = adamw.moments(m.params)
    before = tree_map(np.copy, [m.params, trees["moments.m"], trees["moments.v"]])
    good = trees[name]
    for bad in (good._replace(wpe=good.wpe[1:]), good._replace(wpe=good.wpe.astype(np.float64))):
        wrong = trees | {name: bad}
        with pytest.raises(GPTError, match=f"{name} doesn't fit params at wpe"):
            adamw.step(m.params, wrong["grads"], adamw.Moments(wrong["moments.m"], wrong["moments.v"]), t=1, lr=1)
    assert unchanged(m, (trees["moments.m"], trees["moments.v"]), before)


BAD_SETTINGS = [
    ({"t": 0}, "the step t is 0: it must be a whole number of at least 1"),
    ({"t": 1.5}, "the step t is 1.5"),
    ({"t": math.nan}, "the step t is nan"),
    ({"t": math.inf}, "the step t is inf"),
    ({"lr": -1}, "lr is -1: it must be a finite number of at least 0"),
    ({"lr": math.nan}, "lr is nan"),
    ({"lr": math.inf}, "lr is inf"),
    ({"eps": -1e-8}, "eps is -1e-08"),
    ({"weight_decay": math.nan}, "weight_decay is nan"),
    ({"beta1": 1.0}, "beta1 is 1.0: it must be at least 0 and less than 1"),
    ({"beta2": 1.5}, "beta2 is 1.5"),
    ({"eps": 0}, "eps is 0.0: in float32 it must be at least 5.3e-38"),
    ({"eps": 1e-50}, "eps is 1e-50: in float32 it must be at least"),
    ({"eps": 1e-32, "beta2": 1 - 2**-52}, "eps is 1e-32: in float32 it must be at least"),
    *(({name: wrong}, f"{name} is {wrong!r}") for name in ("lr", "beta1", "eps") for wrong in (None, "a", True)),
    *(
        ({name: wrong}, f"{name} is {wrong!r}")
        for name in ("t", "beta2", "weight_decay")
        for wrong in (None, "a", True)
    ),
]


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS)
def test_step_with_an_invalid_setting_raises_and_updates_nothing(setting, message):
    m = init(TINY)
    state = adamw.moments(m.params)
    before = tree_map(np.copy, [m.params, *state])
    with pytest.raises(GPTError, match=message):
        adamw.step(m.params, tree_map(np.ones_like, m.params), state, **({"t": 1, "lr": 0.1} | setting))
    assert unchanged(m, state, before)


def test_settings_as_numpy_scalars_give_the_same_bits_as_python_numbers():
    # A float64 scalar must not turn float32 arithmetic into float64
    runs = []
    for scalar in (float, np.float64):
        m, grads = random_model(TINY), random_model(TINY, seed=1).params
        adamw.clip(grads, scalar(1.0))
        settings = {name: scalar(value) for name, value in SETTINGS.items()}
        adamw.step(m.params, grads, adamw.moments(m.params), t=np.int64(1), **settings)
        runs.append(m.params)
    for (name, a), (_, b) in zip(named(runs[0]), named(runs[1]), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beta2", [0.0, 0.99, 1 - 2**-52])
def test_smallest_eps_leaves_an_element_without_a_gradient_unchanged_and_half_of_it_raises(dtype, beta2):
    p, zero = np.ones((2, 3), dtype), np.zeros((2, 3), dtype)
    eps = adamw.smallest_eps(p.dtype.name, beta2)
    for t in (1, 2, 1000):
        adamw.step([p], [zero], adamw.Moments([zero.copy()], [zero.copy()]), t, 0.1, 0.9, beta2, eps, weight_decay=0)
    np.testing.assert_array_equal(p, 1)
    with pytest.raises(GPTError, match=f"in {p.dtype} it must be at least"):
        adamw.step([p], [zero], adamw.Moments([zero], [zero]), 1, 0.1, 0.9, beta2, eps / 2)


def test_eps_too_small_for_float32_is_accepted_in_float64():
    p, zero = np.ones(3), np.zeros(3)
    adamw.step([p], [zero], adamw.Moments([zero], [zero]), 1, 0.1, eps=1e-50)
    np.testing.assert_array_equal(p, 1)


@pytest.mark.parametrize("max_norm", [0, -1, math.nan, None, "a", True])
def test_clip_with_an_invalid_max_norm_raises(max_norm):
    with pytest.raises(GPTError, match=f"max_norm is {max_norm!r}: it must be more than 0"):
        adamw.clip(gradients(1), max_norm)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clip_names_a_gradient_that_is_not_finite_and_scales_nothing(bad):
    grads = gradients(1)
    before = tree_map(np.copy, grads)
    grads.h[1].mlp.c_fc.b[3] = bad
    with pytest.raises(GPTError, match=r"the gradient of h.1.mlp.c_fc.b is not finite"):
        adamw.clip(grads, 1e-3)
    np.testing.assert_array_equal(grads.wte, before.wte)
