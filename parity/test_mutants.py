"""Does `python -m parity mutants` make each change, restore the function, and report survivors?"""

import pytest

from numpy_gpt import ops

from . import mutants
from .mutate import mutants as mutants_of


@pytest.fixture(autouse=True)
def restore_draws(monkeypatch):
    monkeypatch.setattr(mutants.trace, "DRAWS", mutants.trace.DRAWS)  # main lowers it
    monkeypatch.setattr(mutants.torch, "set_num_threads", lambda n: None)


def hypotenuse(a, b, scale=2.0):
    """a docstring, which no mutant changes"""
    a -= b
    return (a * a + b * b) ** -0.5 / scale if a > b else -(a @ b.mT)


def test_each_change_is_made_exactly_once():
    changes = [m.change for m in mutants_of(hypotenuse)]
    assert len(changes) == len(set(changes)) == 28
    for change in [
        "a -= b  ->  pass",
        "a -= b  ->  a = b",
        "a -= b  ->  a += b",
        "a * a + b * b  ->  a * a - b * b",
        "a * a + b * b  ->  a * a",
        "a * a + b * b  ->  b * b",
        "(a * a + b * b) ** (-0.5) / scale  ->  (a * a + b * b) ** (-0.5)",
        "(a * a + b * b) ** (-0.5) / scale  ->  scale / (a * a + b * b) ** (-0.5)",
        "-0.5  ->  0.5",
        "0.5  ->  1.0",
        "2.0  ->  4.0",
        "-(a @ b.mT)  ->  a @ b.mT",
        "a @ b.mT  ->  b.mT @ a",
        "b.mT  ->  b",
        "a > b  ->  a >= b",
    ]:
        assert changes.count(change) == 1, change


def test_first_failure_runs_the_mutant_and_restores_the_function():
    suite = object.__new__(mutants.Suite)
    results = []
    suite.tests = {"test": lambda: results.append(hypotenuse(4.0, 1.0))}
    suite.order = ["test"]
    original = hypotenuse(4.0, 1.0)
    (doubled,) = [m for m in mutants_of(hypotenuse) if m.change == "2.0  ->  4.0"]
    assert suite.first_failure(hypotenuse, doubled) is None
    assert results == [original / 2]
    assert hypotenuse(4.0, 1.0) == original


@pytest.mark.parametrize("survives", [True, False])
def test_survivor_is_printed_and_exits_1(survives, monkeypatch, capsys):
    def test():
        assert survives or ops.rows(ops.np.ones((2, 3, 4))).shape == (6, 4)

    monkeypatch.setattr(mutants, "collect", lambda: [("test_of_rows", test)])
    monkeypatch.setattr(mutants, "FUNCTIONS", [ops.rows])
    same = ("rows", "return a.reshape(-2, a.shape[-1])")
    monkeypatch.setattr(mutants, "EQUIVALENT", {same: "a reason"})
    assert mutants.main([]) == int(survives)
    out = capsys.readouterr().out
    assert "equivalent: a reason" in out
    assert ("SURVIVED: " in out) == survives
    assert ("caught: test_of_rows" in out) == (not survives)


def test_wrong_or_stale_entry_in_equivalents_exits_1(monkeypatch, capsys):
    def test():
        assert ops.rows(ops.np.ones((2, 3, 4))).shape == (6, 4)

    listed = {("rows", f"return a.reshape({shape}, a.shape[-1])"): "a reason" for shape in ("-2", "1", "7")}
    monkeypatch.setattr(mutants, "collect", lambda: [("test_of_rows", test)])
    monkeypatch.setattr(mutants, "FUNCTIONS", [ops.rows])
    monkeypatch.setattr(mutants, "EQUIVALENT", listed)
    assert mutants.main([]) == 1
    out = capsys.readouterr().out
    assert "CAUGHT THOUGH LISTED AS EQUIVALENT: test_of_rows" in out
    assert "listed as equivalent, but not a mutant: rows: return a.reshape(7, a.shape[-1])" in out
