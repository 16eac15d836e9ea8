"""Do compiled steps and steps in bfloat16 agree with the twin's, and bfloat16 with the loss of float32?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from numpy_gpt import Config, adamw, init, named
from numpy_gpt.params import tree_map
from numpy_gpt.text.windows import random_batch as random_batch_of
from torch_gpt import model
from torch_gpt.train.step import Execution, Trainer

from .compiler_warnings import compiles
from .inputs import TINY, VARIANTS, random_batch, random_model
from .running import README, SETTINGS, batches

FAST = {
    "compiled": ({"compile": True}, 1e-5),
    "in bfloat16": ({"dtype": torch.bfloat16}, 2e-2),
    "compiled in bfloat16": ({"compile": True, "dtype": torch.bfloat16}, 2e-2),
}


@compiles
@pytest.mark.parametrize("mode", FAST)
def test_fast_mode_agrees_with_the_twin(mode, device):
    """Use PyTorch's fused AdamW; bfloat16 pads the vocabulary of 61 to 128, and the state has no padding"""
    fast, tolerance = FAST[mode]
    m = random_model(TINY)
    exact, quick = (
        Trainer(copied(m), adamw.moments(m.params), SETTINGS, Execution(device, **more)) for more in ({}, fast)
    )
    expected = [exact.step(t, 1e-2, batches(TINY, t)) for t in range(1, 7)]
    found = [float(quick.step(t, 1e-2, batches(TINY, t))) for t in range(1, 7)]
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    batch = random_batch(TINY, B=3, T=7, seed=99)
    np.testing.assert_allclose(quick.loss(*batch), exact.loss(*batch), rtol=tolerance)
    (params, m, v), (wanted, *_) = quick.state(), exact.state()
    for (name, x), (_, y), (_, v_of_x) in zip(named(params), named(wanted), named(v), strict=True):
        assert x.shape == y.shape == v_of_x.shape, name
        assert x.dtype == v_of_x.dtype == np.float32
    moments = adamw.Moments(*(tree_map(np.copy, tree) for tree in (m, v)))
    again = Trainer(copied(quick.m._replace(params=params)), moments, SETTINGS, Execution(device, **fast))
    steps = [float(side.step(7, 1e-2, batches(TINY, 7))) for side in (again, quick)]
    np.testing.assert_allclose(*steps, rtol=1e-6)
    np.testing.assert_allclose(quick.loss(*batch), again.loss(*batch), rtol=1e-3)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_steps_with_dropout_are_the_eager_ones_and_compiled_once(checkpointing, device):
    config = replace(TINY, n_layer=1, dropout=0.2)
    m = random_model(config, dtype=np.float64)
    options = replace(SETTINGS, seed=2**63 + 5, clip=0.0, checkpointing=checkpointing)  # PyTorch's clipping adds 1e-6
    eager, compiled = (
        Trainer(copied(m), adamw.moments(m.params), options, Execution(device, torch.float64, compile=flag))
        for flag in (False, True)
    )
    expected = [eager.step(t, 1e-2, batches(config, t)) for t in range(1, 7)]
    found = [float(compiled.step(1, 1e-2, batches(config, 1)))]
    graphs = counters["stats"]["unique_graphs"]
    found += [float(compiled.step(t, 1e-2, batches(config, t))) for t in range(2, 7)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for side in (eager, compiled):
        side.backward(7, batches(config, 7))
    for (name, p), (_, q) in zip(named(eager.params), named(compiled.params), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-7, atol=1e-9, msg=name)
    assert counters["stats"]["unique_graphs"] == graphs


def copied(m):
    return m._replace(params=tree_map(np.copy, m.params))


def trained_loss(seed, device, dtype):
    m = init(Config(n_vocab=256, n_ctx=16, n_embd=32, n_head=2, n_layer=2), seed)
    text = np.frombuffer(README.read_bytes(), np.uint8)
    side = Trainer(m, adamw.moments(m.params), SETTINGS, Execution(device, dtype))
    for t in range(1, 81):
        side.step(t, adamw.cosine(t - 1, 80, 1e-2), [(0, *random_batch_of(text, 16, seed, t, np.arange(8)))])
    return side.loss(*random_batch_of(text, 16, 99, 0, np.arange(100)))


def test_bfloat16_changes_the_loss_less_than_another_seed(device):
    full = [trained_loss(seed, device, torch.float32) for seed in range(3)]
    half = trained_loss(0, device, torch.bfloat16)
    assert max(full) < 3.6 < np.log(256)
    assert abs(half - full[0]) < max(full) - min(full) < 0.2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_residual_stream_starts_from_an_embedding_in_float32(checkpointing, device, monkeypatch):
    # In bfloat16, the gradients of a token that occurs often would be lost in their sum
    seen = {"embedding": set(), "layernorm": set(), "linear": set()}
    for name in seen:
        spy(monkeypatch, name, seen[name])
    m = random_model(VARIANTS["untied"])
    options = replace(SETTINGS, checkpointing=checkpointing)
    trainer = Trainer(m, adamw.moments(m.params), options, Execution(device, torch.bfloat16))
    trainer.backward(1, batches(TINY, 1))
    assert seen == {"embedding": {torch.float32}, "layernorm": {torch.bfloat16}, "linear": {torch.bfloat16}}
    assert {p.grad.dtype for _, p in named(trainer.params)} == {torch.float32}


def spy(monkeypatch, name, dtypes):
    """Add the dtypes of the first floating-point argument and the result of an op of the twin's model to a set"""
    op = getattr(model, name)

    def run(*args, **options):
        y = op(*args, **options)
        dtypes.update({next(a.dtype for a in args if a.is_floating_point()), y.dtype})
        return y

    monkeypatch.setattr(model, name, run)
