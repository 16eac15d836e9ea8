"""Split the difference of two logits into the parts that each head, MLP, embedding and bias adds directly.

    logit(target) - logit(other) = ln_f(x) · (w_target - w_other)          x = Σ parts

With the scale of ln_f frozen at its value rstd for x, ln_f is linear in x. A part then adds part · u with

    u = rstd (d - mean d)        d = g (w_target - w_other)
"""

import numpy as np

from ...generate.sampling import best

NOTE = (
    "The scale of ln_f is frozen at its value for the whole sum, so the effect of a part on this scale isn't counted. "
    "Only the direct path to the logits is counted: a part's effect on later heads and MLPs is counted as theirs."
)


def answer_attribution(request):
    """Return the parts of the difference of two tokens' logits; they sum to the difference"""
    position, target, other = request.position(), request.token_id("target"), request.token_id("other")
    logits = request.logits(position)
    two = best(logits.astype(np.float64), min(2, len(logits)))
    target = two[0] if target is None else target
    other = two[-1] if other is None else other
    return {
        "target": request.token(target),
        "other": request.token(other),
        "difference": float(logits[target]) - float(logits[other]),
        **attribute(request.run, position, request.ids[position], target, other),
        "note": NOTE,
    }


def attribute(run, position, token, target, other):
    """Return the part of the difference that each component adds, computed in float64"""
    p, config = run.m.params, run.m.config
    u, bias = direction(run, position, target, other)
    at = {name: a[position].astype(np.float64) for name, a in run.tensors.items() if name.endswith(("ctx", "mlp.out"))}
    return {
        "heads": [
            (at[f"h.{i}.attn.ctx"] * (p_i.attn.c_proj.w @ u)).reshape(config.n_head, -1).sum(-1).tolist()
            for i, p_i in enumerate(p.h)
        ],
        "mlps": [float(at[f"h.{i}.mlp.out"] @ u) for i in range(config.n_layer)],
        "attention_biases": [float(p_i.attn.c_proj.b @ u) for p_i in p.h],
        "token_embedding": float(p.wte[token] @ u),
        "position_embedding": float(p.wpe[position] @ u),
        "final_bias": bias,
    }


def direction(run, position, target, other):
    """Return u (C,), whose product with a part is what it adds, and what the bias of ln_f adds"""
    p, config = run.m.params, run.m.config
    x = run.tensors[f"h.{config.n_layer - 1}.resid_out"][position].astype(np.float64)
    w = p.wte if p.head is None else p.head.w
    difference = w[target].astype(np.float64) - w[other]
    d = p.ln_f.g * difference
    rstd = 1 / np.sqrt(x.var() + 1e-5)
    return rstd * (d - d.mean()), float(p.ln_f.b @ difference)
