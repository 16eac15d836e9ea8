"""Does the recorder see every tensor under its name, and leave the model as it was?"""

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
    with record(model) as seen:
        loss, grads = numpy_gpt.loss_and_grads(m, tokens, targets, checkpointing=request.param)
    return m, tokens, seen, loss, grads


def test_values_come_in_the_order_of_the_run_and_each_has_a_gradient(run):
    _, _, seen, _, _ = run
    assert [name for name in seen if not name.startswith("grad.")] == VALUES
    gradients = {name.removeprefix("grad.act.") for name in seen if name.startswith("grad.")}
    assert gradients == set(VALUES)


def test_a_name_means_what_it_says(run):
    m, tokens, seen, loss, grads = run
    p: Block = m.params.h[1]
    x = seen["h.0.resid_out"]
    np.testing.assert_array_equal(seen["emb"], m.params.wte[tokens] + m.params.wpe[:7])
    np.testing.assert_array_equal(seen["h.1.ln_1.out"], layernorm(x, *p.ln_1)[0])
    np.testing.assert_array_equal(seen["h.1.attn.qkv"], linear(seen["h.1.ln_1.out"], *p.attn.c_attn)[0])
    q, k, v = (seen[f"h.1.attn.{name}"] for name in "qkv")
    np.testing.assert_array_equal(seen["h.1.attn.ctx"], model.merge_heads(attention(q, k, v)[0]))
    np.testing.assert_array_equal(seen["h.1.resid_mid"], x + seen["h.1.attn.out"])
    np.testing.assert_array_equal(seen["h.1.resid_out"], seen["h.1.resid_mid"] + seen["h.1.mlp.out"])
    assert seen["loss"] == loss
    np.testing.assert_allclose(seen["grad.act.h.1.attn.out"].sum((0, 1)), grads.h[1].attn.c_proj.b, rtol=1e-12)
    assert seen["grad.act.h.1.resid_mid"] is seen["grad.act.h.1.attn.out"]
    np.testing.assert_allclose(seen["grad.act.h.1.attn.qkv"].sum((0, 1)), grads.h[1].attn.c_attn.b, atol=1e-12)
    for part, third in zip("qkv", np.split(seen["grad.act.h.1.attn.qkv"], 3, -1), strict=True):
        np.testing.assert_array_equal(model.merge_heads(seen[f"grad.act.h.1.attn.{part}"]), third)


def test_recording_changes_no_result_and_leaves_no_wrapper():
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
def test_of_two_runs_the_second_is_seen(checkpointing):
    m = random_model(TINY)
    with record(model) as seen:
        numpy_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7, seed=1), checkpointing=checkpointing)
        loss, _ = numpy_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7, seed=2), checkpointing=checkpointing)
    assert seen["loss"] == loss
    assert set(seen) == set(VALUES) | {f"grad.act.{name}" for name in VALUES}


@pytest.mark.parametrize("wrong", [numpy_gpt, "numpy_gpt.model", None])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(GPTError, match="record needs the module"), record(wrong):
        pass


def test_the_model_is_unwrapped_after_an_error_too():
    before = dict(vars(model))
    with pytest.raises(ZeroDivisionError), record(model):
        raise ZeroDivisionError
    assert vars(model) == before
