"""Does record name every tensor correctly, in one thread or several, and leave the model unchanged?"""

from threading import Barrier, Thread
from weakref import ref

import numpy as np
import pytest

import numpy_gpt
from numpy_gpt import GPTError, model, named
from numpy_gpt.ops import attention, layernorm, linear
from numpy_gpt.params import Block
from numpy_gpt.record import record
from parity.inputs import TINY, random_batch, random_model

ATTN = ["ln_1.out", "attn.qkv", "attn.q", "attn.k", "attn.v", "attn.ctx", "attn.out", "resid_mid"]
BLOCK = [*ATTN, "ln_2.out", "mlp.fc", "mlp.act", "mlp.out", "resid_out"]
VALUES = ["emb", *(f"h.{i}.{name}" for i in range(2) for name in BLOCK), "ln_f.out", "logits", "loss"]


@pytest.fixture(params=[False, True], ids=["plain", "checkpointed"])
def run(request):
    m = random_model(TINY, dtype=np.float64)
    tokens, targets = random_batch(TINY, B=2, T=7)
    with record(model) as tensors:
        loss, grads = numpy_gpt.loss_and_grads(m, tokens, targets, checkpointing=request.param)
    return m, tokens, tensors, loss, grads


def values_of(tensors):
    return [name for name in tensors if not name.startswith("grad.")]


def test_values_are_in_the_order_of_the_run_and_each_has_a_gradient(run):
    _, _, tensors, _, _ = run
    assert values_of(tensors) == VALUES
    gradients = {name.removeprefix("grad.act.") for name in tensors if name.startswith("grad.")}
    assert gradients == set(VALUES)


def test_recorded_tensors_are_those_of_their_names(run):
    m, tokens, tensors, loss, grads = run
    p: Block = m.params.h[1]
    x = tensors["h.0.resid_out"]
    np.testing.assert_array_equal(tensors["emb"], m.params.wte[tokens] + m.params.wpe[:7])
    np.testing.assert_array_equal(tensors["h.1.ln_1.out"], layernorm(x, *p.ln_1)[0])
    np.testing.assert_array_equal(tensors["h.1.attn.qkv"], linear(tensors["h.1.ln_1.out"], *p.attn.c_attn)[0])
    q, k, v = (tensors[f"h.1.attn.{name}"] for name in "qkv")
    np.testing.assert_array_equal(tensors["h.1.attn.ctx"], model.merge_heads(attention(q, k, v)[0]))
    np.testing.assert_array_equal(tensors["h.1.resid_mid"], x + tensors["h.1.attn.out"])
    np.testing.assert_array_equal(tensors["h.1.resid_out"], tensors["h.1.resid_mid"] + tensors["h.1.mlp.out"])
    assert tensors["loss"] == loss
    np.testing.assert_allclose(tensors["grad.act.h.1.attn.out"].sum((0, 1)), grads.h[1].attn.c_proj.b, rtol=1e-12)
    assert tensors["grad.act.h.1.resid_mid"] is tensors["grad.act.h.1.attn.out"]
    np.testing.assert_allclose(tensors["grad.act.h.1.attn.qkv"].sum((0, 1)), grads.h[1].attn.c_attn.b, atol=1e-12)
    for part, third in zip("qkv", np.split(tensors["grad.act.h.1.attn.qkv"], 3, -1), strict=True):
        np.testing.assert_array_equal(model.merge_heads(tensors[f"grad.act.h.1.attn.{part}"]), third)


def test_record_changes_no_result_and_leaves_no_wrapper():
    m = random_model(TINY)
    batch = random_batch(m.config, B=2, T=7)
    before = dict(vars(model))
    loss, grads = numpy_gpt.loss_and_grads(m, *batch)
    with record(model):
        recorded_loss, recorded = numpy_gpt.loss_and_grads(m, *batch)
    assert vars(model) == before
    assert loss == recorded_loss
    for (name, a), (_, b) in zip(named(grads), named(recorded), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_second_run_replaces_the_tensors_of_the_first(checkpointing):
    m = random_model(TINY)
    with record(model) as tensors:
        numpy_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7, seed=1), checkpointing=checkpointing)
        loss, _ = numpy_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7, seed=2), checkpointing=checkpointing)
    assert tensors["loss"] == loss
    assert set(tensors) == set(VALUES) | {f"grad.act.{name}" for name in VALUES}


def test_run_after_a_failed_run_is_recorded_correctly():
    m, batch = random_model(TINY), random_batch(TINY, B=2, T=7)
    broken = random_model(TINY)
    broken.params.h[1].mlp.c_fc.w[...] = 1e38
    with record(model) as tensors:
        with pytest.raises(GPTError, match="not finite"):
            numpy_gpt.loss_and_grads(broken, *batch)
        tensors.clear()
        numpy_gpt.loss_and_grads(m, *batch)
    assert values_of(tensors) == VALUES


def test_backward_of_an_earlier_forward_is_not_recorded():
    m, (tokens, _) = random_model(TINY), random_batch(TINY, B=2, T=7)
    logits, saved = model.gpt2(tokens, m.params, m.config)
    with record(model) as tensors:
        model.gpt2_backward(np.ones_like(logits), saved)
    assert tensors == {}


def test_saved_values_can_be_freed_if_no_backward_is_recorded():
    m, (tokens, targets) = random_model(TINY), random_batch(TINY, B=2, T=7)
    with record(model, backward=False) as tensors:
        numpy_gpt.loss_and_grads(m, tokens, targets)
        assert values_of(tensors) == list(tensors) == VALUES
        _, saved = model.gpt2(tokens, m.params, m.config)
        t = ref(saved[2][0][3][1][1])  # of gelu in block 0
        assert t().shape == (2, 7, 4 * TINY.n_embd)
        del saved
        assert t() is None


def test_gradient_of_a_parameter_is_an_error_that_names_its_place(run):
    _, _, tensors, _, _ = run
    with pytest.raises(GPTError, match=r"loss_and_grads returns .*, dict\(named\(grads\)\)\['wte'\]"):
        tensors["grad.param.wte"]
    with pytest.raises(KeyError, match=r"grad\.act\.wte"):
        tensors["grad.act.wte"]


def in_thread(f):
    """Run f in another thread and return its result"""
    results = []
    thread = Thread(target=lambda: results.append(f()))
    thread.start()
    thread.join()
    return results[0]


def test_calls_in_other_threads_are_not_recorded():
    m, batch = random_model(TINY), random_batch(TINY, B=2, T=7)
    with record(model) as tensors:
        loss, _ = in_thread(lambda: numpy_gpt.loss_and_grads(m, *batch))
    assert np.isfinite(loss)
    assert tensors == {}


def test_threads_record_their_own_runs_at_the_same_time():
    # All threads enter before the first run and leave after the last one
    m, n = random_model(TINY, dtype=np.float64), 4
    batches = [random_batch(TINY, B=2, T=7, seed=seed) for seed in range(n)]
    barrier, found = Barrier(n), {}

    def run(i):
        with record(model) as tensors:
            barrier.wait(timeout=30)
            loss, _ = numpy_gpt.loss_and_grads(m, *batches[i])
            found[i] = tensors, loss
            barrier.wait(timeout=30)

    before = dict(vars(model))
    threads = [Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vars(model) == before
    for i, (tokens, targets) in enumerate(batches):
        tensors, loss = found[i]
        with record(model) as expected:
            assert numpy_gpt.loss_and_grads(m, tokens, targets)[0] == loss
        assert list(tensors) == list(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(tensors[name], value, err_msg=name)


def test_model_stays_wrapped_until_the_last_thread_leaves():
    m, batch = random_model(TINY), random_batch(TINY, B=2, T=7)
    before = dict(vars(model))
    first = record(model)
    in_thread(first.__enter__)
    with record(model) as tensors:
        first.__exit__(None, None, None)
        numpy_gpt.loss_and_grads(m, *batch)
    assert values_of(tensors) == VALUES
    assert vars(model) == before


def test_nested_record_is_refused_and_leaves_the_outer_one_intact():
    m, batch = random_model(TINY), random_batch(TINY, B=2, T=7)
    before = dict(vars(model))
    with record(model) as tensors:
        with pytest.raises(GPTError, match=r"this thread records numpy_gpt.model already"), record(model):
            pass
        numpy_gpt.loss_and_grads(m, *batch)
    assert values_of(tensors) == VALUES
    assert vars(model) == before


@pytest.mark.parametrize("wrong", [numpy_gpt, "numpy_gpt.model", None])
def test_anything_but_a_models_module_is_refused(wrong):
    with pytest.raises(GPTError, match="record needs the module of a model"), record(wrong):
        pass


def test_model_is_unwrapped_after_an_error():
    before = dict(vars(model))
    with pytest.raises(ZeroDivisionError), record(model):
        raise ZeroDivisionError
    assert vars(model) == before
