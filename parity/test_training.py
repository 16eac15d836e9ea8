"""Do both packages and torch.optim compute the same AdamW, clipping and schedule, and the same losses in training?"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError, named
from numpy_gpt.params import tree_map

from .compare import FEW_ULP, FLOAT64
from .inputs import TINY, random_batch, random_model

SETTINGS = {"lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adamw_in_both_packages_has_the_same_bits(dtype, device):
    m = random_model(TINY, dtype=dtype)
    twin = torch_gpt.from_numpy(m._replace(params=tree_map(np.copy, m.params)), device)
    ours, theirs = numpy_gpt.adamw.moments(m.params), torch_gpt.adamw.moments(twin.params)
    for t in range(1, 6):
        grads = random_model(TINY, seed=t, dtype=dtype).params
        numpy_gpt.adamw.step(m.params, grads, ours, t, **SETTINGS)
        torch_gpt.adamw.step(twin.params, on(device, grads), theirs, t, **SETTINGS)
    for tree, other in zip([m.params, *ours], [twin.params, *theirs], strict=True):
        for (name, a), (_, b) in zip(named(tree), named(other), strict=True):
            np.testing.assert_array_equal(a, b.cpu(), err_msg=name)


def on(device, tree):
    return tree_map(lambda a: torch.tensor(a, device=device), tree)


def test_adamw_in_both_packages_has_the_same_bits_over_several_tiles(device):
    rng = np.random.default_rng(0)
    p, g, m, v = rng.random((4, 3000, 300)).astype(np.float32)
    theirs = [on(device, [a.copy()]) for a in (p, g, m, v)]
    numpy_gpt.adamw.step([p], [g], numpy_gpt.adamw.Moments([m], [v]), 1, **SETTINGS)
    torch_gpt.adamw.step(*theirs[:2], numpy_gpt.adamw.Moments(*theirs[2:]), 1, **SETTINGS)
    for a, (b,) in zip((p, g, m, v), theirs, strict=True):
        np.testing.assert_array_equal(a, b.cpu())


def test_adamw_agrees_with_torch_optim(device):
    m = random_model(TINY, dtype=np.float64)
    leaves = dict(named(on(device, m.params)))
    matrices = [a for a in leaves.values() if a.ndim == 2]
    vectors = [a for a in leaves.values() if a.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95), eps=1e-8)
    state = numpy_gpt.adamw.moments(m.params)
    for t in range(1, 6):
        grads = random_model(TINY, seed=t, dtype=np.float64).params
        numpy_gpt.adamw.step(m.params, grads, state, t, **SETTINGS)
        for (_, g), leaf in zip(named(grads), leaves.values(), strict=True):
            leaf.grad = torch.tensor(g, device=device)
        optimiser.step()
    for (name, a), leaf in zip(named(m.params), leaves.values(), strict=True):
        np.testing.assert_allclose(a, leaf.cpu(), rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.25, 4])
def test_clip_agrees_with_torch_in_both_packages(dtype, share, device):
    grads = random_model(TINY, dtype=dtype).params
    twins = on(device, grads)
    leaves = [torch.nn.Parameter(a.clone()) for _, a in named(twins)]
    for leaf in leaves:
        leaf.grad = leaf.detach().double().clone() if dtype == np.float64 else leaf.detach().clone()
    norm = math.sqrt(sum((g.astype(float) ** 2).sum() for _, g in named(grads)))
    theirs = torch.nn.utils.clip_grad_norm_(leaves, share * norm)
    assert math.isclose(numpy_gpt.adamw.clip(grads, share * norm), norm, rel_tol=1e-12)
    assert math.isclose(torch_gpt.adamw.clip(twins, share * norm), norm, rel_tol=1e-12)
    assert math.isclose(float(theirs), norm, rel_tol=1e-6)
    for (name, g), (_, t), leaf in zip(named(grads), named(twins), leaves, strict=True):
        np.testing.assert_allclose(g, t.cpu(), rtol=2.0**-23 if dtype == np.float32 else 1e-14, err_msg=name)
        np.testing.assert_allclose(g, leaf.grad.cpu(), rtol=1e-5, err_msg=name)  # PyTorch divides by the norm + 1e-6


def test_clip_returns_the_norm_of_several_tiles_and_of_zeros(device):
    g = np.random.default_rng(0).standard_normal((3000, 300))
    for grads in ([g], [np.zeros(3)]):
        norm = numpy_gpt.adamw.clip(grads, 1e9)
        assert math.isclose(norm, np.linalg.norm(grads[0]), rel_tol=1e-12)
        assert math.isclose(norm, torch_gpt.adamw.clip(on(device, grads), 1e9), rel_tol=1e-12)


def test_clip_by_a_norm_that_is_not_finite_is_refused(device):
    grads = [np.array([1.0, np.nan])]
    with pytest.raises(GPTError, match="the gradient of 0 is not finite"):
        numpy_gpt.adamw.clip(grads, 1.0)
    with pytest.raises(GPTError, match="the gradient of 0 is not finite"):
        torch_gpt.adamw.clip(on(device, grads), 1.0)


def train(side, m, batches, device="cpu", **settings):
    """Take a step on each batch with clipping and the schedule, and return the losses"""
    if side is torch_gpt:
        m = torch_gpt.from_numpy(m, device)
    m = m._replace(params=tree_map(lambda a: a + 0, m.params))
    state = side.adamw.moments(m.params)
    losses = []
    for t, batch in enumerate(batches, 1):
        loss, grads = side.loss_and_grads(m, *batch, side.Noise(seed=7, step=t), **settings)
        side.adamw.clip(grads, 1.0)
        lr = side.adamw.cosine(t - 1, len(batches), lr=1e-2, min_lr=1e-3, warmup=3)
        side.adamw.step(m.params, grads, state, t, lr=lr)
        losses.append(float(loss))
    return np.array(losses)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_of_ten_steps_agree(dropout, checkpointing, device):
    config = replace(TINY, dropout=dropout)
    batches = [random_batch(config, B=2, T=11, seed=step % 2) for step in range(10)]
    runs = {}
    for dtype in (np.float32, np.float64):
        m = random_model(config, dtype=dtype)
        for side in (numpy_gpt, torch_gpt):
            runs[side, dtype] = train(side, m, batches, device, checkpointing=checkpointing)
    truth = runs[numpy_gpt, np.float64]
    assert truth[-1] < truth[0] - 0.1
    np.testing.assert_allclose(runs[torch_gpt, np.float64], truth, rtol=FLOAT64)
    ours, theirs = (np.linalg.norm(runs[side, np.float32] / truth - 1) for side in (numpy_gpt, torch_gpt))
    assert ours <= 2 * theirs + FEW_ULP
    assert theirs <= 2 * ours + FEW_ULP


def test_cosine_agrees_with_torch_optim():
    steps, warmup, lr, min_lr = 30, 5, 0.5, 0.1
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    up = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps - 1 - warmup, eta_min=min_lr)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [up, down], milestones=[warmup])
    for step in range(steps):
        ours = numpy_gpt.adamw.cosine(step, steps, lr, min_lr, warmup)
        assert math.isclose(ours, schedule.get_last_lr()[0], rel_tol=1e-12), step
        optimiser.step()
        schedule.step()


def test_cosine_at_the_first_and_last_steps():
    cosine = numpy_gpt.adamw.cosine
    assert cosine(29, 30, 0.5, min_lr=0.1, warmup=5) == 0.1  # last step
    assert cosine(39, 30, 0.5, min_lr=0.1, warmup=5) == 0.1
    assert cosine(0, 30, 0.5) == 0.5  # without a warm-up
    assert math.isclose(cosine(15, 31, 0.5), 0.25)  # without a minimum
    assert cosine(2, 3, 0.5, warmup=3) == 0.5  # warm-up in all steps
    assert cosine(3, 4, 0.5, min_lr=0.1, warmup=3) == 0.1  # warm-up in all steps except the last
    assert cosine(0, 1, 0.5, min_lr=0.1) == 0.1  # one step in total
    with pytest.raises(GPTError, match="the step of the schedule is -1: it must be a whole number of at least 0"):
        cosine(-1, 30, 0.5)


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
@pytest.mark.parametrize("eps", [0, 1e-50])
def test_adamw_with_an_eps_below_the_dtypes_range_updates_nothing(side, eps, device):
    m = random_model(TINY) if side is numpy_gpt else torch_gpt.from_numpy(random_model(TINY), device)
    before = tree_map(lambda a: a + 0, m.params)
    with pytest.raises(GPTError, match=r"eps is .*: in (torch.)?float32 it must be at least 5.3e-38"):
        side.adamw.step(m.params, m.params, side.adamw.moments(m.params), 1, lr=0.1, eps=eps)
    assert all((a == b).all() for (_, a), (_, b) in zip(named(m.params), named(before), strict=True))
