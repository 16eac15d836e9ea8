"""Does each box of the diagram have the numbers of its tensor and the code of its op?"""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inspecting import IDS, M, ask

import numpy_gpt
from numpy_gpt import model, ops
from numpy_gpt.record import record
from numpy_gpt.serve.inspection.diagram import IN_BLOCK, OUTER, sources
from parity.inputs import TINY, random_model

BOXES = [*OUTER, *(f"h.{i}.{name}" for i in range(2) for name in IN_BLOCK)]


@pytest.fixture(scope="module")
def tensors():
    with record(model) as tensors:
        numpy_gpt.forward(M, [IDS])
    return tensors


def test_every_result_of_the_run_has_a_box(tensors):
    arguments = {f"h.{i}.attn.{name}" for i in range(2) for name in "qkv"}  # parts of attn.qkv
    assert set(BOXES) == set(tensors) - arguments


@pytest.mark.parametrize("name", BOXES)
def test_box_has_the_statistics_of_its_tensor(name, tensors):
    found, (a,) = ask("diagram", box=name, position=5), tensors[name]
    assert found["box"] == name
    assert tuple(found["shape"]) == a.shape
    mean = a.sum() / a.size
    expected = mean, np.sqrt(((a - mean) ** 2).sum() / a.size), np.sort(a, None)[0], np.sort(a, None)[-1]
    assert [found[key] for key in ("mean", "std", "min", "max")] == pytest.approx(expected, rel=1e-5)
    assert found["values"] == pytest.approx(a[5, :16], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "op", "parameters"),
    [
        ("emb", "embedding", ["wte", "wpe"]),
        ("h.1.ln_1.out", "layernorm", ["h.1.ln_1.g", "h.1.ln_1.b"]),
        ("h.0.attn.qkv", "linear", ["h.0.attn.c_attn.w", "h.0.attn.c_attn.b"]),
        ("h.0.attn.ctx", "attention", []),
        ("h.1.attn.out", "linear", ["h.1.attn.c_proj.w", "h.1.attn.c_proj.b"]),
        ("h.1.resid_mid", "sum", []),
        ("h.1.ln_2.out", "layernorm", ["h.1.ln_2.g", "h.1.ln_2.b"]),
        ("h.1.mlp.fc", "linear", ["h.1.mlp.c_fc.w", "h.1.mlp.c_fc.b"]),
        ("h.1.mlp.act", "gelu", []),
        ("h.1.mlp.out", "linear", ["h.1.mlp.c_proj.w", "h.1.mlp.c_proj.b"]),
        ("h.1.resid_out", "sum", []),
        ("ln_f.out", "layernorm", ["ln_f.g", "ln_f.b"]),
        ("logits", "unembedding", ["wte"]),
    ],
)
def test_box_has_its_op_and_parameters(name, op, parameters):
    found = ask("diagram", box=name, position=0)
    assert found["op"] == op
    assert [parameter["name"] for parameter in found["parameters"]] == parameters
    by_name = dict(numpy_gpt.named(M.params))
    for parameter in found["parameters"]:
        a = by_name[parameter["name"]]
        assert tuple(parameter["shape"]) == a.shape
        assert [parameter["min"], parameter["max"]] == pytest.approx([a.min(), a.max()], rel=1e-5)


def test_parameters_of_layer_10_are_not_those_of_layer_1():
    m = random_model(replace(TINY, n_layer=11))
    names = [parameter["name"] for parameter in ask("diagram", m=m, box="h.1.ln_1.out", position=0)["parameters"]]
    assert names == ["h.1.ln_1.g", "h.1.ln_1.b"]


def test_untied_head_and_absent_bias_are_shown_as_they_are():
    m = random_model(replace(TINY, tied=False, qkv_bias=False))
    assert [p["name"] for p in ask("diagram", m=m, box="logits", position=0)["parameters"]] == ["head.w"]
    assert [p["name"] for p in ask("diagram", m=m, box="h.0.attn.qkv", position=0)["parameters"]] == [
        "h.0.attn.c_attn.w"
    ]


@pytest.mark.parametrize("name", BOXES)
def test_source_is_the_pair_at_its_lines_in_the_file(name):
    found = ask("diagram", box=name, position=0)
    op = "block" if found["op"] == "sum" else found["op"]
    assert [part["title"] for part in found["source"]] == ["forward", "backward"]
    for part, f in zip(found["source"], (op, f"{op}_backward"), strict=True):
        module = model if op == "block" else ops
        assert part["code"] == inspect.getsource(getattr(module, f))
        assert part["file"] == f"numpy_gpt/{module.__name__.split('.')[1]}.py"
        lines = Path(module.__file__).read_text().splitlines()
        assert lines[part["line"] - 1] == part["code"].splitlines()[0]
        assert lines[part["line"] - 1].startswith(f"def {f}(")


def test_statistics_that_overflow_are_null():
    m = random_model(TINY)
    m.params.wpe[10] = 3e30  # a position after the prompt
    _, wpe = ask("diagram", m=m, box="emb", position=0)["parameters"]
    assert wpe["max"] == pytest.approx(3e30)
    assert wpe["std"] is None


def test_source_is_shown_while_the_model_is_recorded():
    with record(model):
        assert "mid = x + a" in sources("sum", None)[0]["code"]
