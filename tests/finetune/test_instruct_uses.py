"""Do the other commands use a model that finetune instruct has trained, and its template?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from finetune_runs import finetuned
from instruction_runs import BYTES, RUN, SHORT, trained_on, write_files
from training_runs import log

from numpy_gpt import complete, load, named
from numpy_gpt.checkpoint import read_checkpoint
from numpy_gpt.text.template import render


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Work in a directory that contains a small model, a template and instructions"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_files()


def command(module, *args, **options):
    """Run a command, which must succeed, and return its stdout"""
    done = subprocess.run([sys.executable, "-m", module, *args], capture_output=True, text=True, timeout=60, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


MOMENTS = {
    "all": ([], "56 moments"),
    "last": (["--train", "last"], "28 moments"),
    "lora": (["--lora", "2"], "48 moments and adapters"),
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_checkpoint_verify_accepts_a_run(kind):
    options, moments = MOMENTS[kind]
    finetuned("instruct", *RUN, *options, "--epochs", "1", "--out", "run")
    lines = command("numpy_gpt.checkpoint", "verify", "run").splitlines()
    assert lines[-2:] == ["a template of instructions", f"{moments} of a training run, each matches its checksum"]


def test_merged_adapters_of_a_run_are_the_model_of_the_run_with_its_template():
    finetuned("instruct", *RUN, "--lora", "2", "--epochs", "1", "--out", "run")
    finetuned("merge", "run/adapter", "--out", "merged")
    for name in ("model.safetensors", "template.json", "config.json", "tokenizer_config.json"):
        assert Path("merged", name).read_bytes() == Path("run", name).read_bytes(), name


@pytest.mark.parametrize("kind", MOMENTS)
def test_checkpoint_verify_finds_moments_of_another_model_or_run(kind):
    options, _ = MOMENTS[kind]
    finetuned("instruct", *RUN, *options, "--epochs", "1", "--out", "run")
    content = Path("run/moments.safetensors").read_bytes()
    name = b"m.h.1.attn.c_proj.a" if kind == "lora" else b"m.h.1.attn.c_proj.w"
    assert content.count(name) == 2  # in the header, and among the checksums
    for other in (name.replace(b"h.1", b"h.7"), name.replace(b"m.h", b"x.h")):
        Path("run/moments.safetensors").write_bytes(content.replace(name, other))
        done = subprocess.run(
            [sys.executable, "-m", "numpy_gpt.checkpoint", "verify", "run"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 3
        assert f"has the tensor {other.decode()}, which doesn't belong to the run" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--lora", "8"]])
def test_storyteller_learns_from_real_instructions(options, data):
    entries = json.loads((data / "text" / "instruction-data.json").read_text())
    Path("data.json").write_text(json.dumps(entries[:150]))
    out = finetuned("instruct", "--data", "data.json", "--epochs", "1", *options, "--out", "run")
    first, last = (entry["val_loss"] for entry in log("run"))
    assert first > 4.5
    assert last < first - 0.5
    assert "\n### Response:\n" in out.split("--- step 17\n")[1]


@pytest.mark.slow
def test_tuned_model_is_inspected_converted_trained_and_served():
    options = ["--epochs", "60", "--lr", "0.02", "--eval-every", "200", "--save-every", "200", "--sample-every", "0"]
    finetuned("instruct", *RUN, *options, "--out", "tuned")
    assert json.dumps(SHORT.prompt) in command("numpy_gpt.checkpoint", "info", "tuned")
    entry = next(entry for entry in trained_on() if "input" not in entry)
    m = load("tuned")
    ids = complete(m, BYTES.encode(render(SHORT, entry["instruction"])), 20, temperature=0, stop=[m.tokenizer.eot])
    expected = m.tokenizer.decode(ids)
    for place in ("openai", "huggingface"):
        assert command("numpy_gpt.checkpoint", "convert", "tuned", place, "--to", place) == f"{place}\n"
        assert read_checkpoint(Path(place)).template == SHORT
        assert all((p == dict(named(m.params))[name]).all() for name, p in named(load(place).params))
        greedy = ["--temperature", "0", "-n", "20", "--instruct", entry["instruction"]]
        assert command("numpy_gpt.generate", "--model", place, *greedy) == expected + "\n"
    Path("text.txt").write_text("the sky is blue. " * 100)
    small = ["--context", "16", "--batch-size", "2", "--steps", "2", "--eval-batches", "1", "--sample-every", "0"]
    command("numpy_gpt.train", "--data", "text.txt", "--init-from", "tuned", *small, "--out", "trained")
    assert load("trained").tokenizer.vocabulary == m.tokenizer.vocabulary
    again = [*RUN[2:4], "--init-from", "tuned", "--epochs", "1", "--out", "again"]
    finetuned("instruct", *again)
    assert log("again")[0]["train_loss"] < log("tuned")[0]["train_loss"] / 2
    assert answer_of_the_server("tuned", entry["instruction"]) == expected


def answer_of_the_server(model, instruction):
    """Return the greedy answer of serve's chat"""
    pytest.importorskip("numpy_gpt.serve.server", reason="web isn't installed: pip install -e '.[web]'")
    import requests

    line = [sys.executable, "-m", "numpy_gpt.serve", "--model", model, "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            message = {"role": "user", "content": instruction}
            body = {"messages": [message], "temperature": 0, "max_tokens": 20}
            response = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        finally:
            server.kill()
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]
