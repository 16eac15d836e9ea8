"""Does docs/measure_peers.py time every implementation, and write figures that speed.svg can show?"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PICOGPT = """
def generate(inputs, params, n_head, n_tokens_to_generate):
    assert len(inputs) == 18 and n_tokens_to_generate == 32 and n_head == 3
    assert list(params) == ["wte", "wpe", "blocks", "ln_f"]
    assert sorted(params["blocks"][1]) == ["attn", "ln_1", "ln_2", "mlp"]
    assert params["blocks"][1]["attn"]["c_attn"]["w"].shape == (48, 144)
"""
LLMC = """#!/usr/bin/env python3
import pathlib, time
assert pathlib.Path("gpt2_124M.bin").stat().st_size > 4 * 80_000
for part in ("train", "val"):
    text = pathlib.Path(f"dev/data/tinyshakespeare/tiny_shakespeare_{part}.bin").read_bytes()
    assert len(text) == 1024 + 2 * int.from_bytes(text[8:12], "little")
print("val loss 11.0", flush=True)
for step, ms in enumerate([9000, 40, 70, 50, 1]):
    print(f"step {step}: train loss 11.0 (took {ms}.5 ms)", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="llm.c's output is read through stdbuf")
def test_measure_peers_times_all_by_turns_and_writes_what_speed_svg_needs(tmp_path):
    (tmp_path / "gpt2.py").write_text(PICOGPT)
    (tmp_path / "train_gpt2").write_text(LLMC)
    (tmp_path / "train_gpt2").chmod(0o755)
    peers = ["--picogpt", tmp_path, "--llmc", tmp_path]
    figures = tmp_path / "speed.json"
    command = [sys.executable, DOCS / "measure_peers.py", *peers, "--json", figures, "--quick"]
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "PYTHONDONTWRITEBYTECODE": "1"}  # compiling takes long
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    both = ["NumPy", "PyTorch eager", "PyTorch compiled", "Hugging Face"]
    assert list(found["decode"]["seconds"]) == [*both, "picoGPT"]
    assert list(found["train"]["seconds"]) == [*both, "llm.c"]
    for part in ("decode", "train"):
        for times in found[part]["seconds"].values():
            assert 0 < times["min"] <= times["median"] <= times["max"]
    assert found["train"]["seconds"]["llm.c"]["median"] == 0.0505  # of the three steps after the first
    order = re.findall(r"^(.+), round (\d): (.+) [\d.]+ s$", done.stderr, re.M)
    assert order == [
        (part, i, side)
        for part, peer in (("decode", "picoGPT"), ("training step", "llm.c"))
        for i in "01"
        for side in [*both, peer]
    ]
    picture = tmp_path / "speed.svg"
    command = [sys.executable, DOCS / "pictures/make.py", "speed", "--json", figures, "--to", picture]
    subprocess.run(command, check=True)
    assert "llm.c" in picture.read_text()
