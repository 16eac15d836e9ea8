"""Does the comparison find a difference on each side and in each precision, and does the report name it?"""

import math

import numpy as np
import pytest

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, GPTError

from . import report
from .compare import Row, compare, disagreements, error
from .inputs import TINY, random_batch, random_model
from .trace import compare_steps, enough_draws, seeds

ULP = 2.0**-24


@pytest.mark.parametrize(
    ("numpy", "torch", "difference", "agrees"),
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
def test_row_agrees_up_to_the_limits_of_the_rule(numpy, torch, difference, agrees):
    assert Row("x", (1,), numpy, torch, difference).agrees == agrees


def draw(truth, errors):
    """Return a draw whose numpy32, torch32 and torch64 have these errors in their second number"""
    numpy32, torch32, torch64 = ({"x": truth + np.array([0.0, e])} for e in errors)
    return numpy32, torch32, {"x": truth}, torch64


def test_error_is_the_median_of_draws_in_float32_and_of_one_vector_in_float64():
    truth = np.array([3.0, 4.0])
    (row,) = compare([draw(truth, (0.5, 1.5, 2.5)), draw(10 * truth, (1, 0, 0)), draw(truth, (500, 2, 0))])
    assert row.shape == (2,)
    np.testing.assert_allclose(row[2:], [0.5 / 5, 1.5 / 5, 2.5 / math.sqrt(50 + 2500)])
    assert error("x", draw(truth, (0.5, 0, 0))[0], {"x": truth}) == 0.1


def test_draw_whose_truth_is_rounding_does_not_count_in_float32():
    truth, rounding = np.array([3.0, 4.0]), np.array([3e-9, 4e-9])
    (row,) = compare([draw(rounding, (1, 2, 0)), draw(truth, (0.5, 1.5, 0)), draw(0 * truth, (0, 0, 0))])
    np.testing.assert_allclose(row[2:], [0.1, 0.3, 0])


@pytest.mark.parametrize("side", [0, 1])
def test_nan_in_one_of_several_draws_disagrees(side):
    truth = np.array([3.0, 4.0])
    errors = [0.0, 0.0, 0.0]
    errors[side] = math.nan
    (row,) = compare([draw(truth, (0, 0, 0)), draw(truth, errors), draw(truth, (0, 0, 0))])
    assert not row.agrees


def test_draws_of_different_seeds_share_no_weights_and_no_tokens():
    drawn = [s for seed in range(4) for s in seeds(seed, 16)]
    weights = {random_model(TINY, s).params.wte.tobytes() for s in drawn}
    tokens = {random_batch(TINY, 2, 7, s)[0].tobytes() for s in drawn}
    assert len(weights) == len(tokens) == 64
    assert drawn[:16] == list(range(16))


def test_narrow_models_dropout_and_short_sequences_take_more_draws():
    def draws(n_embd, dropout=0.0, T=7):
        return enough_draws(Config(61, 11, n_embd, 1, 2, dropout=dropout), T)

    assert draws(48) == draws(768) == draws(16) == 16
    assert draws(48) < draws(8) < draws(4) < draws(4, 0.5) < draws(4, 0.9) <= 1024
    assert draws(48) < draws(48, T=2) < draws(8, T=2)


@pytest.mark.slow
def test_narrow_model_with_dropout_agrees_for_eight_seeds():
    # With squares summed over 16 draws, a third of these seeds fails
    config = Config(61, 11, 8, 1, 2, dropout=0.5)
    for seed in range(8):
        assert disagreements(compare_steps(config, B=2, T=7, seed=seed)) == [], seed


def test_error_of_a_key_bias_is_relative_to_the_query_bias():
    truth = {"c_attn.b.q": np.array([2.0]), "c_attn.b.k": np.array([1e-17])}
    assert error("c_attn.b.k", {"c_attn.b.k": np.array([1e-3])}, truth) == pytest.approx(5e-4)


@pytest.mark.parametrize("truth", [np.zeros(3), np.array([np.nan]), np.array([np.inf])])
def test_truth_that_is_zero_or_not_finite_is_an_error(truth):
    with pytest.raises(GPTError, match=r"the norm of x is .* in float64, so no relative error exists"):
        error("x", {"x": np.ones_like(truth)}, {"x": truth})


@pytest.mark.parametrize("side", [numpy_gpt, torch_gpt])
@pytest.mark.parametrize(("dtype", "change"), [("float32", 1e-5), ("float64", 1e-9)])
def test_small_mistake_on_either_side_is_found_and_named(side, dtype, change, monkeypatch, capsys):
    original = side.model.split_heads

    def slightly_wrong(x, H):
        return original(x * (1 + change) if dtype in str(x.dtype) else x, H)

    monkeypatch.setattr(side.model, "split_heads", slightly_wrong)
    wrong = {row.name for row in disagreements(compare_steps(TINY, B=2, T=7))}
    assert {"h.0.attn.q", "grad.act.h.0.attn.qkv"} <= wrong
    assert not {"emb", "h.0.ln_1.out", "h.0.attn.qkv"} & wrong
    assert report.main(["--draws", "2"]) == 1
    assert "The first that differs, in the order of the run: h.0.attn.q\n" in capsys.readouterr().out


def test_each_option_changes_the_report_and_repetition_does_not(capsys):
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
