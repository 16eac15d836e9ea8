"""Do the pages in docs/ show the output of the commands?

Times and memory depend on the machine, and rounding on the CPU's matmul kernels. So errors may differ by a factor of
1.5, and of docs/speed.md only the names of rows and columns are compared.
"""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from numpy_gpt import Config

from . import bench, footprint, mutants, server_load
from .mutate import mutants as mutants_of

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```\w*\n\$ (python -m parity [^\n]*)\n(.*?)^```", re.M | re.S)
ERROR = re.compile(r"\d\.\de[-+]\d\d")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FACTOR = 1.5


def blocks(page):
    """Return [(command, output lines)] of the fenced blocks of a page that begin with a command of parity"""
    return [(command, output.splitlines()) for command, output in BLOCK.findall((ROOT / "docs" / page).read_text())]


FULL_SIZE = [pytest.mark.full, pytest.mark.slow]
REPORTS = [
    pytest.param(
        command, output, marks=[pytest.mark.full, pytest.mark.slow] if "--n-embd 768" in command else [], id=command
    )
    for command, output in blocks("parity.md")
    if command.startswith("python -m parity report")
]


def test_parity_page_has_the_report_of_the_small_model():
    assert "python -m parity report" in [report.id for report in REPORTS]


@pytest.mark.parametrize(("command", "documented"), REPORTS)
def test_report_prints_the_documented_lines(command, documented):
    args = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(args, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.stderr == ""
    assert missing(documented, done.stdout.splitlines()) == []


def missing(documented, printed):
    """Return the documented lines that weren't printed in this order; a line "..." matches any number of lines"""
    rest, elided, lines = list(printed), False, []
    for line in documented:
        if line == "...":
            elided = True
            continue
        n = next((n for n, other in enumerate(rest) if same(line, other)), None) if elided else 0
        if n is None or not rest or not same(line, rest[n]):
            lines.append(line)
        else:
            rest, elided = rest[n + 1 :], False
    return lines if elided else lines + [f"undocumented: {line}" for line in rest]


def same(line, other):
    """Return whether two lines are identical except for errors, and each error is within the factor"""
    errors = [sorted(map(float, pair)) for pair in zip(ERROR.findall(line), ERROR.findall(other), strict=False)]
    return ERROR.sub("", line) == ERROR.sub("", other) and all(large <= FACTOR * small for small, large in errors)


PRINTED = ["tensor  NumPy", "emb  2x7  2.0e-08", "wte  61  4.0e-07", "loss  0.0e+00", "2 of 2 tensors agree."]


@pytest.mark.parametrize(
    ("documented", "expected"),
    [
        (PRINTED, []),
        (["tensor  NumPy", "...", *PRINTED[3:]], []),
        (["...", "loss  0.0e+00", "..."], []),
        (["tensor  NumPy", "emb  2x7  3.0e-08", *PRINTED[2:]], []),
        (["tensor  NumPy", "emb  2x7  3.1e-08", "..."], ["emb  2x7  3.1e-08"]),
        (["tensor  NumPy", "emb  2x8  2.0e-08", "..."], ["emb  2x8  2.0e-08"]),
        (["...", "loss  1.0e-08", "..."], ["loss  1.0e-08"]),
        (["...", "loss  0.0e+00", "...", "wte  61  4.0e-07", "..."], ["wte  61  4.0e-07"]),
        (PRINTED[:4], ["undocumented: 2 of 2 tensors agree."]),
        ([*PRINTED, "The end"], ["The end"]),
    ],
)
def test_missing_lists_the_lines_that_differ(documented, expected):
    assert missing(documented, PRINTED) == expected


def test_docs_and_readme_have_the_number_of_mutants():
    keys = [(mutant.function, mutant.statement) for f in mutants.FUNCTIONS for mutant in mutants_of(f)]
    equivalent = sum(key in mutants.EQUIVALENT for key in keys)  # two functions may share a name
    text = " ".join((ROOT / "docs" / "parity.md").read_text().split() + (ROOT / "README.md").read_text().split())
    counts = re.findall(r"([\d,]+) mutants[^.]*?([\d,]+) (?:are )?caught[^.]*?([\d,]+) (?:are )?equivalent", text)
    assert counts
    for found in counts:
        assert tuple(int(n.replace(",", "")) for n in found) == (len(keys), len(keys) - equivalent, equivalent)


SPREAD = {"median": 0.5, "min": 0.4, "max": 0.6}
COSTS = {"lengths": [1024], "attention": [0.5], "attention_per_pair": 0.0, "rest_per_token": 0.0, "rest_per_pair": 0.0}


@pytest.fixture
def nothing_is_measured(monkeypatch):
    """Let bench print its tables with made-up figures, of a small model"""
    small = Config(n_vocab=101, n_ctx=1024, n_embd=24, n_head=2, n_layer=1)
    monkeypatch.setattr(bench, "Config", lambda: small)
    monkeypatch.setattr(bench, "scaling", lambda *_: COSTS)
    monkeypatch.setattr(bench, "measure", lambda w, _: {**w._asdict(), "seconds": dict.fromkeys(w.sides, SPREAD)})
    monkeypatch.setattr(footprint, "row", lambda *_: ["0.0 GB"] * 6)
    load = {"streams": 50, "seconds": 60.0, "requests": 9, "tokens_per_s": 9.5, "memory": [10**8, 10**8]}
    rates = {"tokens_per_s": {"1": SPREAD, "8": SPREAD}, "ready_s": SPREAD, "first_token_s": SPREAD}
    monkeypatch.setattr(server_load, "measure", lambda _, results: results.update(rates, load=load))


def names(line):
    """Return the cells of a line, with # for each number except in the row's name and in its count of parameters"""
    name, *cells = re.split(r"  +", line)
    return [name, *(cell if NUMBER.fullmatch(cell) and "," in cell else NUMBER.sub("#", cell) for cell in cells)]


@pytest.mark.parametrize("flags", ["", " --memory"])
def test_bench_prints_the_documented_rows_and_columns(flags, nothing_is_measured, capsys):
    (documented,) = [output for command, output in blocks("speed.md") if command == f"python -m parity bench{flags}"]
    assert bench.main(flags.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    if flags:
        documented = [re.sub(r"  -(?=  |$)", "  0.0 GB", line) for line in documented]  # - is out of memory
        assert documented[:2] == printed[:2]
        assert [names(line) for line in documented] == [names(line) for line in printed]
    else:
        *table, blank, costs, machine = documented
        assert [names(line) for line in table] == [names(line) for line in printed[:-3]]
        assert (blank, NUMBER.sub("#", costs)) == (printed[-3], NUMBER.sub("#", printed[-2]))
        assert re.fullmatch(r".+, \d+ cores; Python .+, NumPy .+ on .+, PyTorch .+ on .+", machine)


def test_bench_of_the_server_prints_the_documented_rows(nothing_is_measured, capsys):
    ((_, documented),) = [block for block in blocks("speed.md") if block[0] == "python -m parity bench --serve"]
    assert bench.main(["--serve"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [unmeasured(line) for line in documented[:-1]] == [unmeasured(line) for line in printed[:-1]]


def unmeasured(line):
    """Return the cells of a line, with # for each figure except in the row's name"""
    name, *cells = re.split(r"  +", line.strip())
    return [name, *(NUMBER.sub("#", cell) for cell in cells)]


@pytest.mark.parametrize("title", ["Speed", "On a GPU"])
def test_section_of_readme_has_only_figures_of_the_speed_page(title):
    readme = (ROOT / "README.md").read_text()
    (section,) = re.findall(rf"^## {title}$.*?(?=^## |\Z)", readme, re.M | re.S)
    figures = set(NUMBER.findall(section))
    assert len(figures) > 5
    assert figures - set(NUMBER.findall((ROOT / "docs" / "speed.md").read_text())) == set()


def rates():
    """Return the rows of docs/speed.md's table of implementations as {name: (tokens/s, seconds)}"""
    figures = json.loads((ROOT / "docs" / "speed.json").read_text())
    decode, train = figures["decode"], figures["train"]
    step = {name: f"{times['median']:.2f}" for name, times in train["seconds"].items()}
    drawn = {name: decode["tokens"] / times["median"] for name, times in decode["seconds"].items()}
    per_second = {name: f"{rate:.{0 if rate >= 10 else 1}f}" for name, rate in drawn.items()}
    return {name: (per_second.get(name, ""), step.get(name, "")) for name in per_second | step}


def test_speed_page_has_the_figures_of_the_bars():
    rows = re.findall(r"^\| (.+?) \| ?(.*?) ?\| ?(.*?) ?\|$", (ROOT / "docs" / "speed.md").read_text(), re.M)
    documented = {name: (rate, seconds) for name, rate, seconds in rows}
    assert {name: documented[name] for name in rates()} == rates()


@pytest.mark.parametrize("package", ["numpy_gpt", "torch_gpt"])
def test_readme_example_trains_a_model_in_both_packages(package, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    code = code.replace("import numpy_gpt\n", f"import {package} as numpy_gpt\n").replace(
        "from numpy_gpt", f"from {package}"
    )
    exec(code, {})
    first, last = map(float, re.findall(r"^loss (?:tensor\()?([\d.]+)", capsys.readouterr().out, re.M))
    of_each_byte_equally_often = math.log(len(set((ROOT / "README.md").read_bytes())))
    assert first > 5 > of_each_byte_equally_often > last
