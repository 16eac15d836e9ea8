"""Does `python -m parity bench` measure what it says, and tell it in a table and as JSON?"""

import json
import re
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

import numpy_gpt
from numpy_gpt import Config, named
from numpy_gpt.fast.threads import openblas

from . import bench, scaling, workloads

SMALL = Config(n_vocab=1001, n_ctx=1024, n_embd=24, n_head=2, n_layer=2)


def test_every_work_is_done_by_each_side_in_every_round(monkeypatch, capsys):
    monkeypatch.setattr(bench, "Config", lambda **sizes: SMALL)
    monkeypatch.setattr(bench, "SETTLE", 0)
    monkeypatch.setattr(scaling, "SETTLE", 0)
    monkeypatch.setattr(bench.memory, "keep_freed", lambda: None)
    assert bench.main(["--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cores"] >= 1
    assert told["numpy_threads"] == (openblas().get() if openblas() else told["cores"])
    assert told["numpy"] == np.__version__
    assert [work["name"] for work in told["works"]] == [
        "start to first token",
        "load",
        "read 512 tokens",
        "decode, 1 at once",
        "decode, 8 at once",
        "training step, 4 x 64",
        "AdamW",
        "forward, backward, 1 x 1024",
        "storyteller's step, 8 x 256",
    ]
    for work in told["works"]:
        fused = ["fused"] * (work["name"] in ("training step, 4 x 64", "AdamW"))
        floor = ["floor"] * (work["name"] not in ("start to first token", "load", "storyteller's step, 8 x 256"))
        assert list(work["seconds"]) == ["numpy", "torch", *fused, *floor]
        assert all(0 < s["min"] <= s["median"] <= s["max"] for s in work["seconds"].values())


@pytest.mark.parametrize(("flags", "rounds"), [([], 3), (["--quick"], 1)])
def test_the_sides_take_turns_in_a_round_that_warms_up_and_in_those_that_count(flags, rounds, monkeypatch):
    done: list[str] = []
    long = workloads.Work(
        "long", {side: lambda side=side: partial(done.append, side) for side in ("numpy", "torch")}, rounds=3
    )
    monkeypatch.setattr(bench, "works", lambda *_: [long])
    monkeypatch.setattr(bench, "init", lambda config: config)
    monkeypatch.setattr(bench, "scaling", lambda *_: {})
    monkeypatch.setattr(bench.memory, "keep_freed", lambda: None)
    assert bench.main([*flags, "--json"]) == 0
    assert done == ["numpy", "torch"] * (1 + rounds)


def test_the_table_shows_the_rate_of_what_is_drawn_and_the_time_of_the_rest():
    seconds = {"numpy": {"median": 0.5, "min": 0.4, "max": 0.8}, "torch": {"median": 1.0, "min": 0.9, "max": 2.0}}
    found = [
        {"name": "decode", "tokens": 32, "seconds": seconds | {"floor": {"median": 0.4, "min": 0.4, "max": 0.4}}},
        {"name": "load", "tokens": None, "seconds": seconds},
    ]
    square = {
        "lengths": [1024],
        "attention": [0.5],
        "attention_per_pair": 5e-7,
        "rest_per_token": 2e-3,
        "rest_per_pair": 0,
    }
    told = {**workloads.machine("cpu"), "works": found, "scaling": square}
    _, decode, load, _, costs, where = bench.table(told).splitlines()
    assert decode.split("  ")[:1] == ["decode"]
    assert "64 (40-80) tokens/s" in decode
    assert "32 (16-36) tokens/s" in decode
    assert "80% of it" in decode
    assert decode.endswith("2.00")
    assert "500 (400-800) ms" in load
    assert "attention takes 0.50 T² µs (at 1024 all of it is 500 ms), the rest 2000 T µs and 0.00 T²." in costs
    assert f"NumPy {np.__version__} on " in where
    assert where.endswith(f"PyTorch {torch.__version__} on cpu")


def test_a_square_is_found_where_there_is_one():
    assert scaling.fitted([0.1 + 2e-3 * T + 5e-7 * T**2 for T in scaling.LENGTHS]) == pytest.approx([0.1, 2e-3, 5e-7])


def test_attention_and_the_rest_are_the_whole():
    m = numpy_gpt.init(SMALL)
    before = numpy_gpt.model.attention
    whole, attention, rest = scaling.clocked(m, 200)
    assert 0 < attention < whole == attention + rest
    assert numpy_gpt.model.attention is before


def test_the_floor_multiplies_with_every_matrix():
    m = numpy_gpt.init(SMALL)
    names = {name for name, w in named(m.params) if w.ndim == 2} - {"wte", "wpe"}
    assert len(workloads.matrices(m)) == len(names) == 8
    assert sum(w.size for w in workloads.matrices(m)) == 2 * 12 * 24 * 24


@pytest.mark.parametrize("nowhere", ["nonsense", "meta", "cuda:99"])
def test_bench_refuses_a_device_that_cannot_be_used(nowhere):
    args = [sys.executable, "-m", "parity", "bench", "--quick", "--device", nowhere]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"parity: the device {nowhere} can't be used: .*\.\n", done.stderr), done.stderr
