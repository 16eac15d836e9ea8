"""Do the two models agree in every tensor: values, their gradients, gradients of parameters?"""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, GPTError, named
from numpy_gpt.fast.attention import QUERIES
from numpy_gpt.model import gpt2, gpt2_backward
from numpy_gpt.ops import cross_entropy, cross_entropy_backward
from numpy_gpt.params import tree_map

from .compare import FEW_ULP, FLOAT64, disagreements, error
from .inputs import TINY, VARIANTS, random_batch, random_model
from .trace import compare_steps, numpy_trace, torch_trace


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_a_step_agrees(variant, device):
    config = VARIANTS[variant]
    rows = compare_steps(config, B=2, T=7, device=device)
    assert len(rows) == 30 + 30 + tensors(config)
    assert disagreements(rows) == []


def tensors(config):
    """Return the number of gradients: of parameters, of the three parts of c_attn.b, of the two parts of a tied wte"""
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
def test_every_tensor_of_a_step_of_any_shape_agrees_in_float64(device, step):
    # In float32, a narrow model can amplify a single rounding by any factor, on either side
    config, B, T, seed = step
    m, batch = random_model(config, seed, np.float64), random_batch(config, B, T, seed)
    ours, theirs = numpy_trace(m, *batch), torch_trace(torch_gpt.from_numpy(m, device), *batch)
    assert [name for name in ours if error(name, theirs, ours) > FLOAT64] == []


def test_step_of_the_whole_context_agrees(device):
    rows = compare_steps(TINY, B=1, T=TINY.n_ctx, device=device)
    assert disagreements(rows) == []


def test_step_of_several_tiles_of_attention_agrees(device):
    T = 2 * QUERIES + 3
    rows = compare_steps(replace(TINY, n_ctx=T), B=2, T=T, device=device)
    assert disagreements(rows) == []


def test_step_of_several_tiles_with_dropout_agrees_in_float64(device):
    T = 2 * QUERIES + 3
    config = replace(TINY, n_ctx=T, dropout=0.2)
    m, batch = random_model(config, dtype=np.float64), random_batch(config, B=2, T=T)
    ours = numpy_trace(m, *batch, noise=(5, 3))
    theirs = torch_trace(torch_gpt.from_numpy(m, device), *batch, noise=(5, 3))
    assert len(ours) == 30 + 30 + tensors(config)
    assert [name for name in ours if error(name, theirs, ours) > FLOAT64] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpointed_gradients_of_the_twin_equal_its_plain_ones(variant, device):
    config = VARIANTS[variant]
    m = torch_gpt.from_numpy(random_model(config), device)
    batch = random_batch(config, B=2, T=7)
    noise = torch_gpt.Noise(5, 3)
    loss, grads = torch_gpt.loss_and_grads(m, *batch, noise)
    again, checkpointed = torch_gpt.loss_and_grads(m, *batch, noise, checkpointing=True)
    assert loss == again
    for (name, g), (_, c) in zip(named(grads), named(checkpointed), strict=True):
        np.testing.assert_array_equal(g.cpu(), c.cpu(), err_msg=name)


def test_checkpointed_block_passes_only_tensors_to_pytorch():
    """PyTorch 2.11 rebuilds each tuple among the arguments with None as its items, which Noise rejects"""
    leaves = []

    def checkpoint(f, *args, **options):
        leaves.extend(tree_leaves(args))
        return f(*args)

    m, batch = torch_gpt.init(TINY), random_batch(TINY, B=2, T=7)
    with patch.object(torch_gpt.model, "checkpoint", checkpoint):
        torch_gpt.loss_and_grads(m, *batch, torch_gpt.Noise(5, 3), checkpointing=True)
    assert len(leaves) == TINY.n_layer * (1 + 12)  # the input of each block and its parameters
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)


def test_bfloat16_error_is_that_of_float32_times_2_to_the_16th(device):
    m = random_model(TINY)
    batch = random_batch(TINY, B=2, T=7)
    rows = compare_steps(TINY, B=2, T=7, device=device)
    truth = numpy_trace(m._replace(params=tree_map(lambda a: a.astype(np.float64), m.params)), *batch)
    coarse = torch_trace(torch_gpt.from_numpy(m, device, torch.bfloat16), *batch)
    for row in rows:
        if row.name not in ("loss", "grad.act.loss"):  # the error of one number depends on chance
            assert error(row.name, coarse, truth) / 2**16 <= 2 * row.torch + FEW_ULP, row.name  # 8 bits, not 24


def test_logits_of_forward_agree_in_float64(device):
    m = random_model(TINY, dtype=np.float64)
    tokens, _ = random_batch(TINY, B=2, T=7)
    ours = {"logits": numpy_gpt.forward(m, tokens)}
    theirs = {"logits": torch_gpt.to_numpy(torch_gpt.forward(torch_gpt.from_numpy(m, device), tokens))}
    assert error("logits", theirs, ours) <= FLOAT64


@pytest.mark.parametrize("tile", [3, 64])
@pytest.mark.parametrize("pieces", [[11], [1] * 11, [4, 1, 1, 3, 2]])
def test_logits_with_a_kv_equal_those_of_the_whole_text(pieces, tile, device):
    """Run three groups at a time, each cut at different places; the text is longer than a head is wide"""
    m = random_model(replace(TINY, n_head=12), dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    texts = [random_batch(m.config, B, T=11, seed=B)[0] for B in (3, 1, 2)]
    cuts = [np.cumsum(pieces), np.cumsum(pieces[::-1]), np.cumsum(pieces)]
    expected = [numpy_gpt.forward(m, text)[:, ends - 1] for text, ends in zip(texts, cuts, strict=True)]
    sizes = [{"B": 3}, {}, {"B": 2, "N": 11}]
    our_kv = [numpy_gpt.generate.kv.new_kv(m.config, np.float64, **size) for size in sizes]
    their_kv = [torch_gpt.generate.kv.new_kv(m.config, torch.float64, device, **size) for size in sizes]
    splits = [np.split(text, ends[:-1], axis=1) for text, ends in zip(texts, cuts, strict=True)]
    for i, groups in enumerate(zip(*splits, strict=True)):
        truth = {"logits": np.concatenate([logits[:, i] for logits in expected])}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numpy_gpt.fast.attention, "QUERIES", tile)
            ours = numpy_gpt.generate.step.gpt2_next(groups, m.params, m.config, our_kv)
        theirs = torch_gpt.to_numpy(torch_gpt.generate.step.gpt2_next(groups, twin.params, m.config, their_kv))
        for side in (ours, theirs):
            assert error("logits", {"logits": side}, truth) <= FLOAT64


@pytest.mark.parametrize("name", ["as released", "untied"])
def test_logits_of_all_tokens_with_a_kv_equal_those_of_the_whole_text(name, device):
    m = random_model(VARIANTS[name], dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    text, _ = random_batch(m.config, B=1, T=9)
    truth = numpy_gpt.forward(m, text)[0]
    our_kv = numpy_gpt.generate.kv.new_kv(m.config, np.float64)
    their_kv = torch_gpt.generate.kv.new_kv(m.config, torch.float64, device)
    for part in (slice(0, 4), slice(4, 9)):
        ours = numpy_gpt.generate.step.gpt2_all(text[:, part], m.params, m.config, our_kv)
        theirs = torch_gpt.generate.step.gpt2_all(text[:, part], twin.params, m.config, their_kv)
        for side in (ours, torch_gpt.to_numpy(theirs)):
            assert error("logits", {"logits": side}, {"logits": truth[part]}) <= FLOAT64


def test_sequences_taken_from_a_kv_keep_their_past(device):
    m = random_model(TINY, dtype=np.float64)
    twin = torch_gpt.from_numpy(m, device)
    text, _ = random_batch(TINY, B=3, T=9)
    order = [2, 0, 2, 1]
    kvs = [
        numpy_gpt.generate.kv.new_kv(TINY, np.float64, 3, 10),
        torch_gpt.generate.kv.new_kv(TINY, torch.float64, device, 3, 10),
    ]
    truth = {"logits": numpy_gpt.forward(m, text)[order, -1]}
    for package, model, kv in ((numpy_gpt, m, kvs[0]), (torch_gpt, twin, kvs[1])):
        package.generate.step.gpt2_next([text[:, :7]], model.params, TINY, [kv])
        taken = [layer.take(order) for layer in kv]
        package.generate.step.gpt2_next([text[order, 7:8]], model.params, TINY, [taken])
        logits = package.generate.step.gpt2_next([text[order, 8:]], model.params, TINY, [taken])
        found = logits if package is numpy_gpt else torch_gpt.to_numpy(logits)
        assert error("logits", {"logits": found}, truth) <= FLOAT64
        assert [layer.k.shape[2] for layer in taken] == [10] * TINY.n_layer


SCALED = ["wte", "attn.c_proj.w", "ln_2.g", "c_fc.w", "mlp.c_proj.w", "ln_f.g", "head.w"]
WIDER = np.finfo(np.longdouble).maxexp > np.finfo(np.float64).maxexp
DTYPES = {
    "float32": (np.float32, np.float64, [5, 7, 9, 12, 13, 15, 18, 20, 30]),
    "float64": (np.float64, np.longdouble, [20, 100, 103, 150, 155, 160, 300]),
}


def scaled(leaf, factor, dtype):
    """Return an untied model whose parameters of this name are multiplied by factor

    Queries and keys are never multiplied: with huge scores, the gradients of softmax are 0 in exact arithmetic.
    """
    m = random_model(replace(TINY, tied=False), dtype=np.float64)
    for name, a in named(m.params):
        if name.endswith(leaf):
            a *= factor
    with np.errstate(over="ignore"):
        return m._replace(params=tree_map(lambda a: a.astype(dtype), m.params))


def plain_step(m, tokens, targets):
    """Return logits, loss and gradients without any check"""
    logits, s_gpt2 = gpt2(tokens, m.params, m.config)
    loss, s_cross_entropy = cross_entropy(logits, targets)
    return logits, loss, gpt2_backward(*cross_entropy_backward(1.0, s_cross_entropy), s_gpt2)


def result_or_none(f, *args):
    """Return f(*args), or None if it raises the error of an overflow"""
    try:
        return f(*args)
    except GPTError as e:
        if "is not finite though every parameter is: some parameters are too large" not in str(e):
            raise
        return None


@pytest.mark.parametrize("leaf", SCALED)
@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        pytest.param("float64", marks=pytest.mark.skipif(not WIDER, reason="longdouble is no wider than float64")),
    ],
)
def test_large_weights_give_the_right_result_or_an_error(dtype, leaf, device):
    dtype, wide, exponents = DTYPES[dtype]
    tokens, targets = random_batch(TINY, B=2, T=7)
    for exponent in exponents:
        m = scaled(leaf, 10.0**exponent, dtype)
        truth = m._replace(params=tree_map(lambda a: a.astype(wide), m.params))
        logits, loss, grads = plain_step(truth, tokens, targets)
        norm = np.sqrt(sum((g**2).sum() for _, g in named(grads)))
        for side in (numpy_gpt, torch_gpt):
            here = m if side is numpy_gpt else torch_gpt.from_numpy(m, device)
            found = result_or_none(side.forward, here, tokens)
            if found is not None:
                assert distance(on_cpu(found), logits) < 1e-3 * np.linalg.norm(logits), (side, exponent)
                assert side.complete(here, tokens[0].tolist(), 1, temperature=0) == [logits[0, -1].argmax()]
            found = result_or_none(side.loss_and_grads, here, tokens, targets)
            if found is not None:
                assert abs(float(found[0]) - loss) < 1e-3 * loss
                for (name, g), (_, true) in zip(named(found[1]), named(grads), strict=True):
                    error = distance(on_cpu(g), true)
                    assert error < 1e-2 * np.linalg.norm(true) + 1e-6 * norm, (side, exponent, name)


def on_cpu(a):
    return a if isinstance(a, np.ndarray) else torch_gpt.to_numpy(a)


def distance(a, b):
    return np.linalg.norm(a - b)


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
@pytest.mark.parametrize("T", [1, 7])
def test_layernorm_variance_overflow_is_an_error(side, T, device):
    # 1 / sqrt(inf) is 0, so the output of LayerNorm is its bias, and everything after it is finite
    m = scaled("wte", 1e20, np.float32)
    here = m if side is numpy_gpt else torch_gpt.from_numpy(m, device)
    tokens, targets = random_batch(TINY, B=1, T=T)
    for run in (
        lambda: side.forward(here, tokens),
        lambda: side.loss_and_grads(here, tokens, targets),
        lambda: side.complete(here, tokens[0].tolist(), 3),
    ):
        with pytest.raises(GPTError, match="the output is not finite though every parameter is"):
            run()


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
def test_scores_that_all_overflow_to_minus_infinity_are_an_error(side, device):
    # PyTorch's attention returns 0 for a query whose scores are all -inf
    m = random_model(Config(61, 11, 12, 1, 1))
    w, b = m.params.h[0].attn.c_attn
    w[:, :24], b[:12], b[12:24] = 0, 1e20, -1e20
    here = m if side is numpy_gpt else torch_gpt.from_numpy(m, device)
    for run in (
        lambda: side.forward(here, [[1, 2]]),
        lambda: side.loss_and_grads(here, [[1, 2]], [[2, 3]]),
        lambda: side.complete(here, [1, 2], 3),
    ):
        with pytest.raises(GPTError, match="the output is not finite though every parameter is"):
            run()


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
def test_a_loss_that_overflows_is_an_error(side, device):
    m = random_model(VARIANTS["untied"])
    m.params.ln_f.g[...], m.params.ln_f.b[...] = 0, 1
    m.params.head.w[...] = 0
    m.params.head.w[:2, 0] = 3e38, -3e38
    here = m if side is numpy_gpt else torch_gpt.from_numpy(m, device)
    with pytest.raises(GPTError, match="the loss is not finite though every parameter is"):
        side.loss_and_grads(here, [[3]], [[1]])


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
def test_a_backward_that_overflows_is_an_error(side, device):
    # For a residual stream near 0, LayerNorm's backward multiplies by 1 / sqrt(eps) = 316
    m = scaled("head.w", 1e38, np.float32)
    m.params.wte[...] *= 1e-6
    m.params.wpe[...] = 0
    for p in m.params.h:
        for leaf in (*p.attn.c_proj, *p.mlp.c_proj):
            leaf[...] = 0
    here = m if side is numpy_gpt else torch_gpt.from_numpy(m, device)
    assert np.isfinite(on_cpu(side.forward(here, [[3]]))).all()
    with pytest.raises(GPTError, match=r"the gradient.* is not finite though every parameter is"):
        side.loss_and_grads(here, [[3]], [[1]])


def test_a_matmul_that_overflows_in_the_backward_is_an_error():
    # With queries of 0 and huge keys the scores are 0, and the first overflow is a sum in the gradient of w
    m = random_model(TINY)
    p = m.params.h[0]
    p.attn.c_attn.w[:, :48], p.attn.c_attn.b[:48] = 0, 0
    p.attn.c_attn.w[:, 48:96] *= 1e38 / 64
    p.ln_1.g[...] *= 64
    tokens, targets = random_batch(TINY, B=2, T=7)
    assert np.isfinite(numpy_gpt.forward(m, tokens)).all()
    with pytest.raises(GPTError, match=r"the gradient of h.0.attn.c_attn.w is not finite though every parameter is"):
        numpy_gpt.loss_and_grads(m, tokens, targets)
