"""Does `python -m parity mutants` break what it says, put it back, and tell when nobody sees it?"""

from pathlib import Path

import pytest

from numpy_gpt import ops

from . import mutants
from .mutate import mutants as mutants_of


@pytest.fixture(autouse=True)
def draws_as_before(monkeypatch):
    monkeypatch.setattr(mutants.trace, "DRAWS", mutants.trace.DRAWS)  # which main lowers


def hypotenuse(a, b, scale=2.0):
    """not a mutant"""
    a -= b
    return (a * a + b * b) ** -0.5 / scale if a > b else -(a @ b.mT)


def test_each_change_is_made_once_and_alone():
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


def test_a_mutant_computes_something_else_and_the_function_comes_back():
    suite = object.__new__(mutants.Suite)
    seen = []
    suite.tests = {"test": lambda: seen.append(hypotenuse(4.0, 1.0))}
    suite.order = ["test"]
    original = hypotenuse(4.0, 1.0)
    (doubled,) = [m for m in mutants_of(hypotenuse) if m.change == "2.0  ->  4.0"]
    assert suite.first_failure(hypotenuse, doubled) is None
    assert seen == [original / 2]
    assert hypotenuse(4.0, 1.0) == original


@pytest.mark.parametrize("blind", [True, False])
def test_a_survivor_is_told_and_gives_status_1(blind, monkeypatch, capsys):
    def test():
        assert blind or ops.rows(ops.np.ones((2, 3, 4))).shape == (6, 4)

    monkeypatch.setattr(mutants, "collect", lambda: [("test_of_rows", test)])
    monkeypatch.setattr(mutants, "FUNCTIONS", [ops.rows])
    same = ("rows", "return a.reshape(-2, a.shape[-1])")
    monkeypatch.setattr(mutants, "EQUIVALENT", {same: "the reason"})
    assert mutants.main([]) == int(blind)
    out = capsys.readouterr().out
    assert "equivalent: the reason" in out
    assert ("SURVIVED: " in out) == blind
    assert ("caught: test_of_rows" in out) == (not blind)


def test_a_wrong_or_stale_list_of_equivalents_gives_status_1(monkeypatch, capsys):
    def test():
        assert ops.rows(ops.np.ones((2, 3, 4))).shape == (6, 4)

    listed = {("rows", f"return a.reshape({shape}, a.shape[-1])"): "a reason" for shape in ("-2", "1", "7")}
    monkeypatch.setattr(mutants, "collect", lambda: [("test_of_rows", test)])
    monkeypatch.setattr(mutants, "FUNCTIONS", [ops.rows])
    monkeypatch.setattr(mutants, "EQUIVALENT", listed)
    assert mutants.main([]) == 1
    out = capsys.readouterr().out
    assert "CAUGHT THOUGH LISTED AS EQUIVALENT: test_of_rows" in out
    assert "listed as equivalent, but no mutant: rows: return a.reshape(7, a.shape[-1])" in out


def test_readme_counts_the_mutants_that_there_are():
    keys = [(mutant.function, mutant.statement) for f in mutants.FUNCTIONS for mutant in mutants_of(f)]
    n, equivalent = len(keys), sum(key in mutants.EQUIVALENT for key in keys)  # two functions may share a name
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert f"of {n:,} mutants {n - equivalent:,} are caught, and {equivalent} are equivalent." in " ".join(
        readme.split()
    )
