"""Does `python -m parity bench` measure each side of each workload, and print a table or JSON?"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import Config, named
from numpy_gpt.fast.openblas import openblas

from . import bench, gpu_workloads, scaling, workloads
from .compiler_warnings import IGNORED

pytestmark = IGNORED

SMALL = Config(n_vocab=1001, n_ctx=1024, n_embd=24, n_head=2, n_layer=2)


@pytest.mark.slow
def test_json_has_the_times_of_each_side_of_each_workload(monkeypatch, capsys):
    monkeypatch.setattr(bench, "Config", lambda **sizes: SMALL)
    monkeypatch.setattr(bench, "PAUSE", 0)
    monkeypatch.setattr(scaling, "PAUSE", 0)
    assert bench.main(["--quick", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["cores"] >= 1
    assert results["numpy_threads"] == (openblas().get_num_threads() if openblas() else results["cores"])
    assert results["numpy"] == np.__version__
    assert [workload["name"] for workload in results["workloads"]] == [
        "start to first token",
        "load",
        "prefill 512 tokens",
        "decode, batch 1",
        "decode, batch 8",
        "training step, 4 x 64",
        "AdamW",
        "forward, backward, 1 x 1024",
        "storyteller step, 8 x 256",
    ]
    for workload in results["workloads"]:
        name = workload["name"]
        fused = ["fused"] * (name in ("training step, 4 x 64", "AdamW"))
        compiled = ["compiled"] * (name == "training step, 4 x 64")
        bound = ["bound"] * (name not in ("start to first token", "load", "storyteller step, 8 x 256"))
        assert list(workload["seconds"]) == ["numpy", "torch", *fused, *compiled, *bound]
        assert all(0 < s["min"] <= s["median"] <= s["max"] for s in workload["seconds"].values())


@pytest.mark.slow
def test_gpu_table_has_rates_of_each_side(device, monkeypatch):
    """Run the workloads of the GPU with a tiny model, on the CPU as well"""
    monkeypatch.setattr(bench, "PAUSE", 0)
    sizes, tiny = bench.Sizes(prompt=4, new=3, long=8, window=16, batch=2, steps=2), replace(SMALL, n_ctx=32, n_layer=1)
    measured: list[dict] = []
    bench.measure_all(gpu_workloads.gpu_workloads(tiny, sizes, device), True, measured)
    versions = {**workloads.machine(device), "device": "NVIDIA H200", "transformers": gpu_workloads.peer_version()}
    results = {**versions, "workloads": measured, "flops_per_token": 10**6}
    decoding = [f"decode, batch {n}, {kind}" for n in (1, 8, 64) for kind in ("greedy", "top-p")]
    assert [workload["name"] for workload in measured] == [
        "prefill 8 tokens",
        *decoding,
        "AdamW, 2 updates",
        "training step, 2 x 16",
    ]
    sides = [list(workload["seconds"]) for workload in measured]
    assert sides[0] == ["eager", "peer", "bound"]
    assert sides[1] == ["compiled", "eager", "peer", "static", "bound"]
    assert sides[-2:] == [["compiled", "bound"], ["compiled", "peer", "bound"]]
    header, *rows, _, training, peer, where = bench.gpu_table(results).splitlines()
    assert re.split("  +", header)[1:] == list(gpu_workloads.SIDES.values())
    assert [row.split("  ")[0] for row in rows if "tokens/s" not in row] == ["AdamW, 2 updates"]
    memory = r", \d+\.\d GB" if torch.device(device).type == "cuda" else ""
    assert re.fullmatch(rf"Training: torch_gpt, compiled .* MFU{memory}; Hugging Face .* MFU{memory}\.", training)
    assert re.fullmatch(r"Hugging Face: transformers \d.+\.", peer)
    assert where.startswith("NVIDIA H200; Python 3.")


def fail():
    raise RuntimeError("no static cache\nTraceback")


def test_a_peer_that_fails_is_reported_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    done: list[str] = []
    sides = {"compiled": lambda: partial(done.append, "compiled"), "static": lambda: fail}
    measured = bench.measure(workloads.Workload("decode", sides, 1), rounds=2)
    assert done == ["compiled"] * 3
    assert list(measured["seconds"]) == ["compiled"]
    versions = {**workloads.machine("cpu"), "transformers": "5.0"}
    table = bench.gpu_table({**versions, "workloads": [measured], "flops_per_token": 1})
    assert re.search(r"^decode .* tokens/s +failed$", table, re.MULTILINE)
    assert "\nHugging Face, static cache failed, decode: RuntimeError: no static cache\n" in table


def test_interrupted_benchmark_prints_the_workloads_that_were_measured(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    first, second = (
        workloads.Workload(name, dict.fromkeys(("numpy", "torch"), lambda run=run: run), 1)
        for name, run in (("first", lambda: None), ("second", interrupt))
    )
    monkeypatch.setattr(bench, "PAUSE", 0)
    monkeypatch.setattr(bench, "workloads", lambda *_: [first, second])
    with pytest.raises(KeyboardInterrupt):
        bench.main(["--quick"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == ["first"]
    assert lines[-1].endswith("on cpu")


def test_error_of_our_own_side_ends_the_benchmark(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    with pytest.raises(RuntimeError, match="no static cache"):
        bench.measure(workloads.Workload("decode", {"compiled": lambda: fail}, 1), rounds=1)


def test_gpu_table_without_transformers_has_memory_and_an_explanation():
    seconds = {"compiled": {"median": 0.5, "min": 0.4, "max": 0.8}, "bound": {"median": 0.4, "min": 0.4, "max": 0.4}}
    step = {"name": "training step", "tokens": 10**6, "seconds": seconds, "memory": {"compiled": 23.3e9, "bound": 1e9}}
    versions = {**workloads.machine("cpu"), "device": "NVIDIA H200", "transformers": None}
    _, row, _, training, peer, _ = bench.gpu_table(
        {**versions, "workloads": [step], "flops_per_token": 247 * 10**6}
    ).splitlines()
    assert re.split("  +", row) == [
        "training step",
        "2000000 (1250000-2500000) tokens/s",
        "2500000 (2500000-2500000) tokens/s",
    ]
    assert training == "Training: torch_gpt, compiled 494 TFLOP/s, 49.9% MFU, 23.3 GB."
    assert peer == bench.NO_PEER


def test_memory_of_a_side_excludes_that_of_the_sides_before_it(monkeypatch):
    calls: list[str] = []
    for name, value in (("memory_allocated", 30), ("reset_peak_memory_stats", None), ("max_memory_allocated", 100)):
        monkeypatch.setattr(torch.cuda, name, lambda _, n=name, v=value: calls.append(n) or v)
    memory: dict[str, int] = {}
    run = partial(calls.append, "run")
    assert gpu_workloads.warmed_up(lambda: calls.append("prepare") or run, memory, "compiled", "cuda") is run
    assert memory == {"compiled": 70}
    assert calls == ["memory_allocated", "reset_peak_memory_stats", "prepare", "run", "max_memory_allocated"]


@pytest.mark.parametrize(("flags", "rounds"), [([], 3), (["--quick"], 1)])
def test_sides_take_turns_in_a_warmup_and_in_each_round(flags, rounds, monkeypatch):
    done: list[str] = []
    long = workloads.Workload(
        "long", {side: lambda side=side: partial(done.append, side) for side in ("numpy", "torch")}, rounds=3
    )
    monkeypatch.setattr(bench, "workloads", lambda *_: [long])
    monkeypatch.setattr(bench, "init", lambda config: config)
    monkeypatch.setattr(bench, "scaling", lambda *_: {})
    assert bench.main([*flags, "--json"]) == 0
    assert done == ["numpy", "torch"] * (1 + rounds)


def test_table_shows_tokens_per_second_of_decoding_and_milliseconds_of_all_else():
    seconds = {"numpy": {"median": 0.5, "min": 0.4, "max": 0.8}, "torch": {"median": 1.0, "min": 0.9, "max": 2.0}}
    measured = [
        {"name": "decode", "tokens": 32, "seconds": seconds | {"bound": {"median": 0.4, "min": 0.4, "max": 0.4}}},
        {"name": "load", "tokens": None, "seconds": seconds},
    ]
    costs = {
        "lengths": [1024],
        "attention": [0.5],
        "attention_per_pair": 5e-7,
        "rest_per_token": 2e-3,
        "rest_per_pair": 0,
    }
    results = {**workloads.machine("cpu"), "workloads": measured, "scaling": costs}
    header, decode, load, _, fitted, where = bench.table(results).splitlines()
    assert header.split("  ")[-1] == "PyTorch / NumPy"
    assert decode.split("  ")[:1] == ["decode"]
    assert "64 (40-80) tokens/s" in decode
    assert "32 (16-36) tokens/s" in decode
    assert "80%" in decode
    assert decode.endswith("2.00")
    assert "500 (400-800) ms" in load
    assert "attention takes 0.50 T² µs (500 ms at T = 1024), everything else 2000 T + 0.00 T² µs." in fitted
    assert f"NumPy {np.__version__} on " in where
    assert where.endswith(f"PyTorch {torch.__version__} on cpu")


def test_fit_of_a_parabola_returns_its_coefficients():
    assert scaling.fit([0.1 + 2e-3 * T + 5e-7 * T**2 for T in scaling.LENGTHS]) == pytest.approx([0.1, 2e-3, 5e-7])


def test_time_of_attention_is_separated_from_the_total(monkeypatch):
    """Use a clock that advances by 1 with each reading: 2 forwards and 2 backwards of attention take 1 each"""
    m = numpy_gpt.init(SMALL)
    original = numpy_gpt.model.attention
    monkeypatch.setattr(scaling, "perf_counter", partial(next, count()))
    seconds = scaling.time_window(m, 200)
    assert (seconds.total, seconds.attention, seconds.rest) == (9, 4, 5)
    assert numpy_gpt.model.attention is original


def test_matmuls_of_the_lower_bound_cover_every_matrix():
    m = numpy_gpt.init(SMALL)
    names = {name for name, w in named(m.params) if w.ndim == 2} - {"wte", "wpe"}
    assert len(workloads.matrices(m)) == len(names) == 8
    assert sum(w.size for w in workloads.matrices(m)) == 2 * 12 * 24 * 24


@pytest.mark.parametrize("device", ["nonsense", "meta", "cuda:99"])
def test_unusable_device_exits_2_with_an_explanation(device):
    args = [sys.executable, "-m", "parity", "bench", "--quick", "--device", device]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"parity: the device {device} can't be used: .*\.\n", done.stderr), done.stderr


def test_compiled_step_has_its_parameters_on_the_device_of_the_others(monkeypatch):
    devices, original = [], torch_gpt.init
    monkeypatch.setattr(torch_gpt, "init", lambda c, device="cpu": devices.append(str(device)) or original(c))
    workloads.compiled_step(SMALL, 1, 4, "cpu:0")
    assert devices == ["cpu:0"]
