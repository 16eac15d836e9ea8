"""Do the parts of a logit difference sum to it, and are the gradients those of finite differences?"""

from dataclasses import replace

import numpy as np
import pytest
from inspecting import IDS, M, ask, decoded, softmax

import numpy_gpt
from numpy_gpt.params import tree_map
from numpy_gpt.serve.inspection.attribution import attribute
from numpy_gpt.serve.inspection.last_run import Run
from numpy_gpt.serve.inspection.recording import run_backward, run_forward
from parity.inputs import VARIANTS, random_model

H = 1e-5


def run_of(m, ids=IDS):
    return Run(m, m, ids, run_forward(m, ids))


def test_parts_of_an_answer_sum_to_the_difference():
    m = numpy_gpt.load("storyteller", dtype=np.float64)
    found = ask("attribution", "Once upon a time, there was a", m, position=6)
    parts = [found[name] for name in ("token_embedding", "position_embedding", "final_bias")]
    parts += [part for heads in found["heads"] for part in heads] + found["mlps"] + found["attention_biases"]
    assert len(parts) == 3 + 4 * 4 + 4 + 4
    assert sum(parts) == pytest.approx(found["difference"], abs=1e-4)
    z = numpy_gpt.forward(m, [m.tokenizer.encode("Once upon a time, there was a")])[0, 6]
    second, first = np.argsort(z)[-2:]
    assert (found["target"]["id"], found["other"]["id"]) == (first, second)
    assert found["difference"] == pytest.approx(z[first] - z[second], rel=1e-5)
    assert "frozen" in found["note"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_sum_to_the_logit_difference(variant):
    m = random_model(VARIANTS[variant], dtype=np.float64)
    z = numpy_gpt.forward(m, [IDS])[0]
    for position, target, other in ((0, 3, 5), (4, 60, 0), (6, 0, 17)):
        parts = attribute(run_of(m), position, IDS[position], target, other)
        total = sum(np.sum(part) for part in parts.values())
        assert total == pytest.approx(z[position, target] - z[position, other], rel=1e-10)


def linearised(m, x, part, target, other):
    """Return the effect of a part (C,) on logit(target) - logit(other), with the mean linear and the scale frozen"""
    w = m.params.wte if m.params.head is None else m.params.head.w
    scaled = (part - part.mean()) / np.sqrt(x.var() + 1e-5) * m.params.ln_f.g
    return scaled @ w[target] - scaled @ w[other]


@pytest.mark.parametrize("variant", ["as released", "all three"])
def test_each_part_is_its_output_through_ln_f_with_a_frozen_scale(variant):
    m = random_model(VARIANTS[variant], dtype=np.float64)
    t, target, other, H, D = 5, 7, 9, 3, 16
    run = run_of(m)
    parts, at = attribute(run, t, IDS[t], target, other), {name: a[t] for name, a in run.tensors.items() if a.ndim == 2}
    effect = lambda part: pytest.approx(linearised(m, at["h.1.resid_out"], part, target, other), rel=1e-9)  # noqa: E731
    assert parts["token_embedding"] == effect(m.params.wte[IDS[t]])
    assert parts["position_embedding"] == effect(m.params.wpe[t])
    for i, p in enumerate(m.params.h):
        for head in range(H):
            ctx = np.zeros(H * D)
            ctx[head * D : (head + 1) * D] = at[f"h.{i}.attn.ctx"][head * D : (head + 1) * D]
            assert parts["heads"][i][head] == effect(ctx @ p.attn.c_proj.w)
        assert parts["attention_biases"][i] == effect(p.attn.c_proj.b)
        assert parts["mlps"][i] == effect(at[f"h.{i}.resid_out"] - at[f"h.{i}.resid_mid"])


def logprob(m, ids, target):
    return np.log(softmax(numpy_gpt.forward(m, [ids])[0, -1])[target])


def test_gradient_times_input_is_the_derivative_of_scaling_an_embedding():
    found = ask("backward", position=4, target=9)
    x = M.params.wte[IDS] + M.params.wpe[:7]
    assert found["logprob"] == pytest.approx(logprob(M, IDS[:5], 9), rel=1e-5)
    assert len(found["times_input"]) == 5
    for t, product in enumerate(found["times_input"]):
        ahead, behind = (
            M._replace(params=M.params._replace(wpe=M.params.wpe + sign * H * x[t] * (np.arange(80) == t)[:, None]))
            for sign in (1, -1)
        )
        slope = (logprob(ahead, IDS[:5], 9) - logprob(behind, IDS[:5], 9)) / (2 * H)
        assert product == pytest.approx(slope, rel=1e-5)


# a tensor, and the bias that is added to it at every position
BIASES = {
    "ln_1.out": lambda p: p.ln_1.b,
    "attn.qkv": lambda p: p.attn.c_attn.b,
    "attn.out": lambda p: p.attn.c_proj.b,
    "ln_2.out": lambda p: p.ln_2.b,
    "mlp.fc": lambda p: p.mlp.c_fc.b,
    "mlp.out": lambda p: p.mlp.c_proj.b,
}


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("layer", [0, 1])
def test_gradients_sum_to_the_derivative_of_a_bias(name, layer):
    _, gradients = run_backward(M, IDS, 9, 61)
    direction = np.random.default_rng(1).standard_normal(BIASES[name](M.params.h[layer]).shape)
    values = []
    for sign in (1, -1):
        m = M._replace(params=tree_map(np.copy, M.params))
        BIASES[name](m.params.h[layer])[...] += sign * H * direction
        values.append(logprob(m, IDS, 9))
    slope = (values[0] - values[1]) / (2 * H)
    assert gradients[f"h.{layer}.{name}"].sum(0) @ direction == pytest.approx(slope, rel=1e-6)


def test_norms_are_those_of_the_gradients_of_the_whole_prompt():
    # of a run with all tokens, in which the gradient at the later ones is 0
    position, target = 3, 60
    with numpy_gpt.record.record(numpy_gpt.model) as tensors:
        logits, saved = numpy_gpt.model.gpt2(np.array([IDS]), M.params, M.config)
        dlogits = np.zeros_like(logits)
        dlogits[0, position] = -softmax(logits[0, position])
        dlogits[0, position, target] += 1
        numpy_gpt.model.gpt2_backward(dlogits, saved)
    found = ask("backward", position=position, target=target)
    names = [name for name in tensors if not name.startswith("grad.")]
    assert found["tensors"] == names
    assert {"emb", "h.1.attn.q", "h.0.resid_mid", "logits"} < set(names)
    norms = decoded(found["norms"], np.float32).reshape(len(names), position + 1)
    for name, row in zip(names, norms, strict=True):
        g = tensors[f"grad.act.{name}"][0]
        for t in range(7):
            norm = np.linalg.norm(g[:, t] if name[-1] in "qkv" and g.ndim == 3 else g[t])
            if t <= position:
                assert row[t] == pytest.approx(norm, rel=1e-6), (name, t)
            else:
                assert norm == 0, (name, t)


def test_target_is_the_next_token_or_the_best_one():
    assert ask("backward", position=4)["target"]["id"] == IDS[5]
    assert ask("backward", position=6)["target"]["id"] == numpy_gpt.forward(M, [IDS])[0, 6].argmax()


def test_backward_has_no_dropout():
    m = random_model(replace(VARIANTS["dropout"], n_ctx=80), dtype=np.float64)
    without = m._replace(config=replace(m.config, dropout=0.0))
    assert ask("backward", m=m, position=4) == ask("backward", m=without, position=4)
