"""Would the comparison see a difference, on each side and in each precision, and does the report say so?"""

import numpy as np
import pytest

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError

from . import report
from .compare import Row, compare, disagreements, error
from .inputs import TINY
from .trace import compare_steps

ULP = 2.0**-24


@pytest.mark.parametrize(
    ("numpy", "torch", "apart", "agrees"),
    [
        (5.9 * ULP, 1 * ULP, 0.0, True),
        (6.1 * ULP, 1 * ULP, 0.0, False),
        (1 * ULP, 5.9 * ULP, 0.0, True),
        (1 * ULP, 6.1 * ULP, 0.0, False),
        (203 * ULP, 100 * ULP, 0.0, True),
        (205 * ULP, 100 * ULP, 0.0, False),
        (0.0, 0.0, 0.99e-10, True),
        (0.0, 0.0, 1.01e-10, False),
        (float("nan"), 0.0, 0.0, False),
        (0.0, float("nan"), 0.0, False),
        (0.0, 0.0, float("nan"), False),
    ],
)
def test_the_rule(numpy, torch, apart, agrees):
    assert Row("x", (1,), numpy, torch, apart).agrees == agrees


def test_an_error_is_relative_and_of_all_draws_together():
    truth = {"x": np.array([3.0, 4.0])}
    off = [{"x": truth["x"] + [0.0, d]} for d in (0.5, 1.5, 2.5)]
    same = [truth, truth, truth, truth]
    (row,) = compare([[*off[:2], truth, off[2]], same])
    assert row.shape == (2,)
    np.testing.assert_allclose(row[2:], np.array([0.5, 1.5, 2.5]) / np.sqrt(50))
    assert error("x", off[0], truth) == 0.1


def test_the_key_biases_gradient_is_measured_by_the_querys():
    truth = {"c_attn.b.q": np.array([2.0]), "c_attn.b.k": np.array([1e-17])}
    assert error("c_attn.b.k", {"c_attn.b.k": np.array([1e-3])}, truth) == pytest.approx(5e-4)


@pytest.mark.parametrize("nothing", [np.zeros(3), np.array([np.nan]), np.array([np.inf])])
def test_a_truth_that_is_zero_or_not_finite_proves_nothing(nothing):
    with pytest.raises(GPTError, match="there is nothing to compare"):
        error("x", {"x": np.ones_like(nothing)}, {"x": nothing})


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
@pytest.mark.parametrize(("dtype", "change"), [("float32", 1e-5), ("float64", 1e-9)])
def test_a_small_mistake_on_either_side_is_seen(side, dtype, change, monkeypatch, capsys):
    original = side.model.split_heads

    def slightly_wrong(x, H):
        return original(x * (1 + change) if dtype in str(x.dtype) else x, H)

    monkeypatch.setattr(side.model, "split_heads", slightly_wrong)
    wrong = {row.name for row in disagreements(compare_steps(TINY, B=2, T=7))}
    assert {"h.0.attn.q", "grad.act.h.0.attn.qkv"} <= wrong
    assert not {"emb", "h.0.ln_1.out", "h.0.attn.qkv"} & wrong
    assert report.main(["--draws", "2"]) == 1
    assert "The first that differs, in the order of the run, is h.0.attn.q." in capsys.readouterr().out


def test_each_option_of_the_report_has_its_effect(capsys):
    def printed(*options):
        assert report.main(["--draws", "1", "--n-layer", "1", *options]) in (0, 1)
        return capsys.readouterr().out

    plain = printed()
    for options in (
        ["--seed", "7"],
        ["--fused-attention"],
        ["--no-qkv-bias"],
        ["--dropout", "0.2"],
        ["--batch-size", "3"],
    ):
        assert printed(*options) != plain, options
    assert printed() == plain
