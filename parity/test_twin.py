"""Is the twin as careful as the reference: the same sentences, nothing half-updated, memory saved where it says so?"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError, named
from numpy_gpt.params import tree_map

from .inputs import TINY, VARIANTS, random_batch, random_model

GOOD = np.zeros((2, 7), int)


@pytest.fixture
def m(device):
    return torch_gpt.from_numpy(random_model(TINY), device)


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (np.full((2, 7), 61), "tokens has the id 61: the model's vocabulary is 0 to 60"),
        (torch.full((2, 7), -1), "tokens has the id -1"),
        (np.zeros((1, 12), int), "tokens has 12 positions and the model knows 11"),
        (torch.zeros((0, 7), dtype=torch.long), "tokens is empty"),
        (torch.zeros(2, 7, requires_grad=True), "tokens has the dtype float32"),
        ([[1, 2], [3]], "tokens has rows of different lengths"),
    ],
)
def test_bad_tokens_get_a_sentence(tokens, sentence, m):
    with pytest.raises(GPTError, match=sentence):
        torch_gpt.forward(m, tokens)
    with pytest.raises(GPTError, match=sentence):
        torch_gpt.loss_and_grads(m, tokens, tokens)


def test_targets_must_fit_the_tokens(m):
    with pytest.raises(GPTError, match=r"targets has the shape \(2, 6\) and tokens \(2, 7\)"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD[:, 1:])


def test_tokens_may_come_in_any_kind_of_integers(m, device):
    batch = random_batch(TINY, B=2, T=7)
    loss, _ = torch_gpt.loss_and_grads(m, *batch)
    for kind in (lambda a: a.tolist(), lambda a: a.astype(">u2"), lambda a: a[:, ::-1].copy()[:, ::-1]):
        assert torch_gpt.loss_and_grads(m, *map(kind, batch))[0] == loss
    assert torch_gpt.loss_and_grads(m, *(torch.tensor(a, device=device) for a in batch))[0] == loss


def test_a_model_of_another_kind_is_refused(m):
    with pytest.raises(GPTError, match="the model holds NumPy arrays"):
        torch_gpt.forward(random_model(TINY), GOOD)
    half = m._replace(params=tree_map(lambda a: a.half(), m.params))
    with pytest.raises(GPTError, match=r"parameter wte has the dtype torch.float16"):
        torch_gpt.loss_and_grads(half, GOOD, GOOD)
    with pytest.raises(GPTError, match="the parameters are not those of Config"):
        torch_gpt.forward(m._replace(config=replace(TINY, n_layer=3)), GOOD)
    with pytest.raises(GPTError, match=r"it must be None or a torch_gpt.Noise\(seed, step\)"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD, numpy_gpt.Noise(0, 0))
    with pytest.raises(GPTError, match="dtype is 'bfloat16'"):
        torch_gpt.init(TINY, dtype="bfloat16")


def test_a_parameter_that_is_not_finite_is_named(m):
    m.params.h[1].mlp.c_proj.w[3, 2] = torch.nan
    for run in (lambda: torch_gpt.forward(m, GOOD), lambda: torch_gpt.loss_and_grads(m, GOOD, GOOD)):
        with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_proj.w isn't"):
            run()


def test_a_loss_that_overflows_is_told(device):
    m = torch_gpt.from_numpy(random_model(VARIANTS["untied"]), device)
    m.params.ln_f.g[...], m.params.ln_f.b[...] = 0, 1
    m.params.head.w[...] = 0
    m.params.head.w[0, 0], m.params.head.w[1, 0] = 3e38, -3e38
    assert torch.isfinite(torch_gpt.forward(m, GOOD)).all()
    with pytest.raises(GPTError, match="the loss is not finite though every parameter is"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD + 1)


def test_a_kv_that_is_full_is_left_as_it_was(m, device):
    kv = torch_gpt.kv.new_kv(TINY, B=2, device=device)
    tokens = np.zeros((2, 11), int)
    torch_gpt.model.gpt2_next([tokens], m.params, TINY, [kv])
    with pytest.raises(GPTError, match="the kv has room for 11 positions, holds 11 and can't take 1 more"):
        torch_gpt.model.gpt2_next([tokens[:, :1]], m.params, TINY, [kv])
    assert [layer.length for layer in kv] == [11, 11]


def test_gradients_are_taken_where_they_are_needed_alone(m):
    with torch.no_grad():
        loss, grads = torch_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7))
    assert not loss.requires_grad
    assert grads.wte.any()
    trainable = m._replace(params=tree_map(lambda a: a.clone().requires_grad_(), m.params))
    assert not torch_gpt.forward(trainable, GOOD).requires_grad
    torch_gpt.adamw.step(trainable.params, grads, torch_gpt.adamw.moments(m.params), 1, lr=1e-3)
    assert trainable.params.wte.is_leaf


def test_checkpointing_keeps_less(m):
    def kept(checkpointing):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda a: sizes.append(a.numel()) or a, lambda a: a):
            params = tree_map(lambda a: a.detach().requires_grad_(), m.params)
            tokens = torch.zeros(2, 7, dtype=torch.long, device=m.params.wte.device)
            torch_gpt.model.gpt2(tokens, params, TINY, None, checkpointing)
        return sum(sizes)

    assert kept(checkpointing=True) < kept(checkpointing=False) / 3


@pytest.mark.parametrize("setting", [{"t": 0}, {"lr": -1.0}, {"beta1": 1.0}, {"eps": float("nan")}, {"lr": None}])
def test_a_step_that_makes_no_sense_updates_nothing(setting, m):
    before = [a.clone() for _, a in named(m.params)]
    state = torch_gpt.adamw.moments(m.params)
    with pytest.raises(GPTError):
        torch_gpt.adamw.step(m.params, m.params, state, **({"t": 1, "lr": 0.1} | setting))
    with pytest.raises(GPTError, match="grads doesn't fit params at wpe"):
        torch_gpt.adamw.step(m.params, m.params._replace(wpe=m.params.wpe[1:]), state, t=1, lr=0.1)
    elsewhere = tree_map(lambda a: a.to("meta"), m.params)
    with pytest.raises(GPTError, match=r"grads doesn't fit params at h.0.attn.c_attn.b: both need one shape"):
        torch_gpt.adamw.step(m.params, elsewhere, state, t=1, lr=0.1)
    for max_norm in (0, None):
        with pytest.raises(GPTError, match=f"max_norm is {max_norm}"):
            torch_gpt.adamw.clip(m.params, max_norm)
    assert all((a == b).all() for a, (_, b) in zip(before, named(m.params), strict=True))


def test_bfloat16_trains(device):
    m = torch_gpt.init(TINY, dtype=torch.bfloat16, device=device)
    batch = random_batch(TINY, B=2, T=7)
    state = torch_gpt.adamw.moments(m.params)
    losses = []
    for t in range(1, 21):
        loss, grads = torch_gpt.loss_and_grads(m, *batch)
        torch_gpt.adamw.clip(grads, 1.0)
        torch_gpt.adamw.step(m.params, grads, state, t, lr=1e-2)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_start_is_the_references(variant, device):
    ours = numpy_gpt.init(VARIANTS[variant], seed=3)
    theirs = torch_gpt.init(VARIANTS[variant], seed=3, device=device)
    for (name, a), (_, b) in zip(named(ours.params), named(theirs.params), strict=True):
        np.testing.assert_array_equal(a, b.cpu(), err_msg=name)


def test_on_the_cpu_the_tensors_are_the_arrays():
    ours = random_model(TINY)
    theirs = torch_gpt.from_numpy(ours)
    theirs.params.wte[3, 4] = 7
    assert ours.params.wte[3, 4] == 7
    assert torch_gpt.init(TINY, dtype=torch.float64).params.wte.dtype == torch.float64
