"""Do the two models agree tensor by tensor: values, their gradients, the parameters' gradients?"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, named
from numpy_gpt.params import tree_map

from .compare import FEW_ULP, FLOAT64, disagreements, error
from .inputs import TINY, VARIANTS, random_batch, random_model
from .trace import compare_steps, numpy_trace, torch_trace


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_a_step(variant, device):
    config = VARIANTS[variant]
    rows = compare_steps(config, B=2, T=7, device=device)
    assert len(rows) == 30 + 30 + tensors(config)
    assert disagreements(rows) == []


def tensors(config):
    """Parameters, a bias of c_attn counted as three, and the two parts of a tied wte"""
    a_block = 12 + (2 if config.qkv_bias else -1)
    return 2 + a_block * config.n_layer + 2 + (2 if config.tied else 1)


@st.composite
def steps(draw):
    n_head = draw(st.integers(1, 4))
    config = Config(
        n_vocab=draw(st.integers(5, 90)),
        n_ctx=draw(st.integers(2, 24)),
        n_embd=n_head * draw(st.integers(5, 8)),
        n_head=n_head,
        n_layer=draw(st.integers(1, 3)),
        qkv_bias=draw(st.booleans()),
        tied=draw(st.booleans()),
    )
    return config, draw(st.integers(1, 4)), draw(st.integers(2, config.n_ctx)), draw(st.integers(0, 2**32 - 1))


@settings(max_examples=100)
@given(step=steps())
def test_in_any_shape(device, step):
    """In float64: a narrow model can amplify one rounding of float32 at will, and whose it is would be luck"""
    config, B, T, seed = step
    m, batch = random_model(config, seed, np.float64), random_batch(config, B, T, seed)
    ours, theirs = numpy_trace(m, *batch), torch_trace(torch_gpt.from_numpy(m, device), *batch)
    assert [name for name in ours if error(name, theirs, ours) > FLOAT64] == []


def test_the_whole_context(device):
    rows = compare_steps(TINY, B=1, T=TINY.n_ctx, device=device)
    assert disagreements(rows) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_twins_checkpointed_gradients_are_its_plain_ones(variant, device):
    config = VARIANTS[variant]
    m = torch_gpt.from_numpy(random_model(config), device)
    batch = random_batch(config, B=2, T=7)
    noise = torch_gpt.Noise(5, 3)
    loss, grads = torch_gpt.loss_and_grads(m, *batch, noise)
    again, checkpointed = torch_gpt.loss_and_grads(m, *batch, noise, checkpointing=True)
    assert loss == again
    for (name, g), (_, c) in zip(named(grads), named(checkpointed), strict=True):
        np.testing.assert_array_equal(g.cpu(), c.cpu(), err_msg=name)


def test_bfloat16_errs_as_float32_does_in_units_of_its_own(device):
    m = random_model(TINY)
    batch = random_batch(TINY, B=2, T=7)
    rows = compare_steps(TINY, B=2, T=7, device=device)
    truth = numpy_trace(m._replace(params=tree_map(lambda a: a.astype(np.float64), m.params)), *batch)
    coarse = torch_trace(torch_gpt.from_numpy(m, device, torch.bfloat16), *batch)
    for row in rows:
        if row.name not in ("loss", "grad.act.loss"):  # a scalar's error is luck
            assert error(row.name, coarse, truth) / 2**16 <= 2 * row.torch + FEW_ULP, row.name  # 8 bits, not 24


def test_logits_of_forward(device):
    m = random_model(TINY, dtype=np.float64)
    tokens, _ = random_batch(TINY, B=2, T=7)
    ours = {"logits": numpy_gpt.forward(m, tokens)}
    theirs = {"logits": torch_gpt.to_numpy(torch_gpt.forward(torch_gpt.from_numpy(m, device), tokens))}
    assert error("logits", theirs, ours) <= FLOAT64


@pytest.mark.parametrize("batch", [{}, {"B": 3}])
@pytest.mark.parametrize("pieces", [[11], [1] * 11, [4, 1, 1, 3, 2]])
def test_with_a_kv_both_give_the_logits_of_the_whole(pieces, batch, device):
    m = random_model(TINY, dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    tokens, _ = random_batch(TINY, batch.get("B", 1), T=11)
    whole, _ = numpy_gpt.model.gpt2(tokens, m.params, TINY)
    our_kv = numpy_gpt.kv.new_kv(TINY, **batch, dtype=np.float64)
    their_kv = torch_gpt.kv.new_kv(TINY, **batch, dtype=torch.float64, device=device)
    ours, theirs = [], []
    for piece in np.split(tokens, np.cumsum(pieces)[:-1], axis=1):
        logits, saved = numpy_gpt.model.gpt2(piece, m.params, TINY, our_kv)
        assert saved is None
        ours.append(logits)
        logits = torch_gpt.model.gpt2(torch.tensor(piece, device=device), twin.params, TINY, their_kv)
        theirs.append(torch_gpt.to_numpy(logits))
    for side in (ours, theirs):
        assert error("logits", {"logits": np.concatenate(side, 1)}, {"logits": whole}) <= FLOAT64
