"""Do both packages answer POST /inspect with the same numbers?"""

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch

import numpy_gpt.serve.inspection as numpy_inspection
import torch_gpt
import torch_gpt.serve.inspection as torch_inspection
from numpy_gpt import GPTError
from numpy_gpt.params import tree_map
from numpy_gpt.serve.inspection import answer
from torch_gpt.ops import gelu

from .compare import compare, disagreements
from .inputs import TINY, VARIANTS, random_model

DRAWS = 64  # more than of a training step, since the loss is that of a single position
IDS = [5, 11, 5, 60, 0, 17, 3]
FIELDS = {
    "tokens": {},
    "candidates": {"position": 4, "temperature": 0.8, "top_k": 30, "top_p": 0.9},
    "attention": {},
    "head": {"layer": 1, "head": 2, "first": 2},
    "row": {"layer": 1, "head": 0, "position": 5},
    "lens": {"positions": [0, 6]},
    "attribution": {"position": 5},
    "backward": {"position": 5},
    "diagram": {"box": "h.1.mlp.act", "position": 3},
}


def gradients(config, seed, device):
    """Return (numpy32, torch32, numpy64, torch64): the gradients of one log-probability, each a {name: array}"""
    *ids, target = np.random.default_rng(seed).integers(0, config.n_vocab, 8).tolist()
    for dtype in (np.float32, np.float64):
        m = random_model(config, seed, dtype)
        for package, model in ((numpy_inspection, m), (torch_inspection, torch_gpt.from_numpy(m, device))):
            yield package.FUNCTIONS.run_backward(model, ids, target, config.n_vocab)[1]


@pytest.mark.parametrize("variant", ["as released", "untied", "no qkv bias"])
def test_gradients_of_a_log_probability_agree_by_the_rule(variant, device):
    rows = compare(tuple(gradients(VARIANTS[variant], seed, device)) for seed in range(DRAWS))
    assert len(rows) == 1 + 2 * 13 + 2
    assert disagreements(rows) == []


def test_rule_finds_a_wrong_gradient(device):
    draws = [[dict(side) for side in gradients(TINY, seed, device)] for seed in range(8)]
    for draw in draws:
        draw[1]["h.0.mlp.act"] = draw[1]["h.0.mlp.act"] * np.float32(1 + 1e-5)
    assert [row.name for row in disagreements(compare(draws))] == ["h.0.mlp.act"]


@pytest.mark.parametrize("view", FIELDS)
def test_answers_of_both_packages_agree(view, device):
    m = random_model(TINY, dtype=np.float64)
    body = {"view": view, "prompt": IDS, **FIELDS[view]}
    ours = answer(numpy_inspection.FUNCTIONS, m, body)
    theirs = answer(torch_inspection.FUNCTIONS, torch_gpt.from_numpy(m, device), body)
    if view == "diagram":
        assert theirs["source"].pop()["title"] == "PyTorch"
    if view == "backward":
        for found in (ours, theirs):
            found["norms"] = np.frombuffer(base64.b64decode(found["norms"]), np.float32).tolist()
    assert ours == close(theirs)


def close(found):
    """Return an answer that equals another one if its floats agree in nearly 6 digits"""
    if isinstance(found, dict):
        return {name: close(value) for name, value in found.items()}
    if isinstance(found, list):
        return [close(value) for value in found]
    return pytest.approx(found, rel=2e-5, abs=1e-12) if isinstance(found, float) else found


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_compare_lists_the_difference_of_every_tensor(dtype, most, device):
    m = torch_gpt.from_numpy(random_model(TINY, dtype=dtype), device)
    found = answer(torch_inspection.FUNCTIONS, m, {"view": "compare", "prompt": IDS})
    assert found["tensors"] == list(numpy_inspection.FUNCTIONS.run_forward(random_model(TINY), IDS))
    assert 0 < max(found["differences"]) < most
    assert found["dtype"] == np.dtype(dtype).name
    assert found["device"] == str(m.params.wte.device)


def test_compare_shows_from_where_on_the_packages_differ(device):
    m = random_model(TINY)
    changed = m._replace(params=tree_map(np.copy, m.params))
    changed.params.h[1].mlp.c_fc.w[...] *= 1.01
    functions = torch_inspection.FUNCTIONS._replace(to_numpy=lambda _: changed)
    found = answer(functions, torch_gpt.from_numpy(m, device), {"view": "compare", "prompt": IDS})
    first = found["tensors"].index("h.1.mlp.fc")
    assert max(found["differences"][:first]) < 1e-5 < 1e-3 < min(found["differences"][first:])


def test_bfloat16_model_is_inspected_in_float32(device):
    m = torch_gpt.from_numpy(random_model(TINY), device, torch.bfloat16)
    for view, fields in FIELDS.items():
        assert answer(torch_inspection.FUNCTIONS, m, {"view": view, "prompt": IDS, **fields})
    found = answer(torch_inspection.FUNCTIONS, m, {"view": "compare", "prompt": IDS})
    assert found["dtype"] == "bfloat16"
    assert 1e-4 < found["differences"][-1] < 0.1


def test_backward_in_a_thread_without_autograd_is_the_same(device):
    m, body = torch_gpt.from_numpy(random_model(TINY), device), {"view": "backward", "prompt": IDS, "position": 3}
    expected = answer(torch_inspection.FUNCTIONS, m, body)
    with torch.no_grad():
        assert answer(torch_inspection.FUNCTIONS, m, body) == expected


def test_parameters_of_the_model_get_no_gradient(device):
    m = torch_gpt.from_numpy(random_model(TINY), device)
    answer(torch_inspection.FUNCTIONS, m, {"view": "backward", "prompt": IDS, "position": 3})
    assert all(a.grad is None and not a.requires_grad for _, a in torch_gpt.named(m.params))


def test_diagram_shows_the_function_of_the_twin(device):
    m = torch_gpt.from_numpy(random_model(TINY), device)
    body = {"view": "diagram", "prompt": IDS, "box": "h.0.mlp.act", "position": 0}
    *_, part = answer(torch_inspection.FUNCTIONS, m, body)["source"]
    assert part["file"] == "torch_gpt/ops.py"
    assert "F.gelu" in part["code"]
    assert part["line"] == gelu.__code__.co_firstlineno


def test_invalid_request_is_refused_by_both(device):
    m = torch_gpt.from_numpy(random_model(replace(TINY, n_ctx=8)), device)
    with pytest.raises(GPTError, match="prompt has 9 tokens, and the model's context is 8"):
        answer(torch_inspection.FUNCTIONS, m, {"view": "tokens", "prompt": [1] * 9})
