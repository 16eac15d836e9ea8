"""Does training adapters and a part of the parameters agree with the twin, from new adapters to AdamW's step?"""

import math

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import numpy_gpt
import torch_gpt
import torch_gpt.lora
import torch_gpt.masked_loss
from numpy_gpt import GPTError, named
from numpy_gpt.lora import TARGETS, adapt, adapt_backward, lora, new_adapters
from numpy_gpt.masked_loss import masked_cross_entropy, masked_cross_entropy_backward
from numpy_gpt.model import gpt2, gpt2_backward
from numpy_gpt.params import GPT2, Head, tree_map

from . import trace
from .compare import compare, disagreements
from .inputs import TINY, VARIANTS, random_adapters, random_batch, random_model

SCALE = 0.4
SOME = {"targets": ("attn.c_attn", "mlp.c_proj"), "first": 1}


def numpy_step(m, adapters, tokens, targets, mask, noise):
    """Return the loss of an adapted model on the positions of mask, and the gradients of the adapters, by name"""
    h, s_adapt = adapt(m.params.h, adapters, SCALE)
    logits, s_gpt2 = gpt2(tokens, m.params._replace(h=h), m.config, noise)
    loss, s_loss = masked_cross_entropy(logits, targets, mask)
    grads = gpt2_backward(*masked_cross_entropy_backward(1.0, s_loss), s_gpt2)
    return {"loss": loss} | dict(named(adapt_backward(grads.h, s_adapt)))


def torch_step(m, adapters, tokens, targets, mask, noise, device):
    """Return the loss and the gradients by name, as numpy_step"""
    adapters = tree_map(lambda a: torch.tensor(a, device=device, requires_grad=True), adapters)
    m = torch_gpt.from_numpy(m, device)
    tokens, targets, mask = (torch.tensor(a, device=device) for a in (tokens, targets, mask))
    h = torch_gpt.lora.adapt(m.params.h, adapters, SCALE)
    with sdpa_kernel(SDPBackend.MATH):
        logits = torch_gpt.model.gpt2(tokens, m.params._replace(h=h), m.config, torch_gpt.Noise(*noise))
        loss = torch_gpt.masked_loss.masked_cross_entropy(logits, targets, mask)
        loss.backward()
    return {"loss": torch_gpt.to_numpy(loss)} | {name: torch_gpt.to_numpy(a.grad) for name, a in named(adapters)}


@pytest.mark.parametrize("options", [{}, SOME], ids=["all matrices", "some matrices"])
@pytest.mark.parametrize("variant", ["as released", "all three"])
def test_masked_loss_and_gradients_of_adapters_agree_with_the_twin(variant, options, device):
    config = VARIANTS[variant]

    def four_runs(seed):
        for dtype in (np.float32, np.float64):
            m, adapters = random_model(config, seed, dtype), random_adapters(config, 3, seed, dtype, **options)
            tokens, targets = random_batch(config, B=2, T=7, seed=seed)
            step = m, adapters, tokens, targets, (tokens + targets) % 3 > 0, numpy_gpt.Noise(seed, step=1)
            yield from (numpy_step(*step), torch_step(*step, device))

    rows = compare(tuple(four_runs(seed)) for seed in range(trace.DRAWS))
    assert len(rows) == 1 + 2 * (len(SOME["targets"]) if options else config.n_layer * len(TARGETS))
    assert disagreements(rows) == []


def linears(h):
    """Return {name: Linear} of the matrices of blocks"""
    parts = ((i, name, *name.split(".")) for i in range(len(h)) for name in TARGETS)
    return {f"{i}.{name}": getattr(getattr(h[i], branch), linear) for i, name, branch, linear in parts}


@pytest.mark.parametrize(("targets", "first"), [(TARGETS, 0), (("attn.c_proj", "mlp.c_fc"), 1), ((), 0), (TARGETS, 2)])
def test_adapt_changes_the_targets_alone(targets, first):
    h = random_model(TINY).params.h
    adapters = random_adapters(TINY, 3, targets=targets, first=first)
    adapted, _ = adapt(h, adapters, SCALE)
    changed = {f"{i}.{name}" for i in range(first, TINY.n_layer) for name in targets}
    for name, p in linears(h).items():
        adapter, new = linears(adapters)[name], linears(adapted)[name]
        assert (adapter is not None) == (name in changed)
        assert new.b is p.b
        assert (new.w is p.w) == (adapter is None)
        if adapter:
            np.testing.assert_array_equal(new.w, lora(p.w, *adapter, SCALE)[0])
    for p, new in zip(h, adapted, strict=True):
        assert (new.ln_1, new.ln_2) == (p.ln_1, p.ln_2)


def test_model_with_new_adapters_computes_the_same_bits():
    h = random_model(TINY).params.h
    adapted, _ = adapt(h, new_adapters(TINY, rank=5), SCALE)
    for (name, a), (_, b) in zip(named(h), named(adapted), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_new_adapters_fit_their_matrices_and_have_pytorchs_initial_distribution():
    torch.manual_seed(0)
    matrices = linears(random_model(TINY).params.h)
    for name, (a, b) in linears(new_adapters(TINY, rank=64)).items():
        I, O = matrices[name].w.shape
        linear = torch.nn.Linear(I, 64, bias=False).weight.detach()
        assert (a.shape, a.dtype, b.shape, b.dtype) == ((I, 64), np.float32, (64, O), np.float32)
        assert not b.any()
        for ours, theirs in [(a.max(), linear.max()), (a.min(), linear.min()), (a.std(), linear.std())]:
            assert math.isclose(ours, theirs, rel_tol=0.03)
        assert abs(a.mean()) < 0.03 * a.max()


def test_new_adapters_of_both_packages_are_drawn_by_the_seed(device):
    drawn = [dict(named(new_adapters(TINY, 3, seed=seed))) for seed in (0, 1)]
    again = dict(named(new_adapters(TINY, 3)))
    twin = torch_gpt.lora.new_adapters(TINY, 3, seed=1, device=device, dtype=torch.float64)
    assert len({a.tobytes() for name, a in [*drawn[0].items(), *drawn[1].items()] if name.endswith(".a")}) == 16
    for name, a in drawn[0].items():
        np.testing.assert_array_equal(a, again[name])
    for name, a in named(twin):
        assert (a.dtype, a.device.type) == (torch.float64, torch.device(device).type)
        np.testing.assert_array_equal(a.cpu(), drawn[1][name])


def test_new_adapters_of_the_twin_on_an_unknown_device_are_refused():
    with pytest.raises(GPTError, match="the device gpu can't be used"):
        torch_gpt.lora.new_adapters(TINY, 3, device="gpu")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adamw_of_a_tree_with_adapters_and_absent_parameters_has_the_same_bits(dtype, device):
    def tree(seed):
        p, adapters = random_model(TINY, seed, dtype).params, random_adapters(TINY, 3, seed, dtype, **SOME)
        return GPT2(None, None, [None, adapters[1], p.h[1]], p.ln_f, Head(p.wpe))

    def twin_of(tree):
        return tree_map(lambda a: torch.tensor(a, device=device), tree)

    params = tree(0)
    twin = twin_of(params)
    ours, theirs = numpy_gpt.adamw.moments(params), torch_gpt.adamw.moments(twin)
    for t in range(1, 4):
        numpy_gpt.adamw.step(params, tree(t), ours, t, lr=3e-3)
        torch_gpt.adamw.step(twin, twin_of(tree(t)), theirs, t, lr=3e-3)
    names = [name for name, _ in named(params)]
    assert names[:4] == [f"h.1.{target}.{factor}" for target in SOME["targets"] for factor in "ab"]
    assert len(names) == 4 + 12 + 3
    for tree_1, tree_2 in zip([params, *ours], [twin, *theirs], strict=True):
        for (name, a), (_, b) in zip(named(tree_1), named(tree_2), strict=True):
            np.testing.assert_array_equal(a, b.cpu(), err_msg=name)
    assert all((a != b).all() for (_, a), (_, b) in zip(named(params), named(tree(0)), strict=True))
