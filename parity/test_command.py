"""Test that python -m torch_gpt.generate prints the same as numpy_gpt's command, and that its own options work."""

import json
import subprocess
import sys

import pytest


def generate(package, *args):
    done = subprocess.run(
        [sys.executable, "-m", f"{package}.generate", *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=300
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--temperature", "0", "--stop", "mom"],
        ["--num-samples", "3", "--top-k", "40"],
        ["--num-samples", "2", "--sample", "7"],
        ["--logprobs", "3", "-n", "20"],
    ],
)
def test_both_commands_print_the_same_text(flags, device):
    flags = ["Once upon a time", "--seed", "4", *flags]
    ours = generate("numpy_gpt", *flags)
    assert ours[0] == 0
    assert len(ours[1]) > 100
    assert generate("torch_gpt", *flags, "--device", device) == ours


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--temperature", "0"], ["--seed", "4"], ["--seed", "4", "--top-p", "0.9"]])
def test_compile_option_prints_the_same_text(options, device):
    flags = ["Once upon a time", "-n", "20", *options]
    assert generate("torch_gpt", *flags, "--device", device, "--compile") == generate("numpy_gpt", *flags)


@pytest.mark.slow
def test_a_missing_compiler_fails_with_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "nosuch"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    status, out, err = generate("torch_gpt", "Once", "--temperature", "0", "--device", "cpu", "--compile")
    assert status == 1
    assert err.startswith("generate: PyTorch can't compile a step here: ")
    assert "No working C++ compiler" in err
    assert out == "\n"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtype_option_changes_probabilities_by_its_rounding(dtype, device):
    flags = ["Once upon a time", "--temperature", "0", "-n", "9", "--json", "--logprobs", "1", "--device", device]
    probabilities = []
    for d in ("float32", dtype):
        status, out, _ = generate("torch_gpt", *flags, "--dtype", d)
        assert status == 0
        probabilities.append(json.loads(out)["logprobs"][0]["probability"])
    difference = abs(probabilities[0] - probabilities[1])
    assert 1e-10 < difference < 1e-4 if dtype == "float64" else 1e-5 < difference < 0.05


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--device", "nosuch"], 1, "generate: the device nosuch can't be used: "),
        (["--device", "meta"], 1, "generate: the device meta can't be used: Cannot copy out of meta tensor; no data."),
        (["--device", "cuda:99"], 1, "generate: the device cuda:99 can't be used: "),
        (["--device", "cuda:99", "--model", "nowhere"], 1, "generate: the device cuda:99 can't be used: "),
        (["--dtype", "int8"], 2, "invalid choice: 'int8'"),
        (["--top-p", "7"], 2, "top_p is 7.0"),
    ],
)
def test_an_invalid_option_fails_with_a_message(flags, status, message):
    found = generate("torch_gpt", "Once", *flags)
    assert found[:2] == (status, "")
    assert message in found[2].splitlines()[-1]
    assert "Traceback" not in found[2]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("dtype = 'int8'", "run.toml: dtype is 'int8': it must be one of float32, float64, bfloat16."),
        ("compile = 'yes'", "run.toml: compile is 'yes': it must be true or false."),
        ("devices = 'cpu'", "run.toml: devices is an unknown option (did you mean device?)."),
    ],
)
@pytest.mark.parametrize("command", ["generate", "train"])
def test_an_invalid_key_of_the_config_file_is_named(command, toml, message, tmp_path):
    (tmp_path / "run.toml").write_text(toml)
    command_line = [sys.executable, "-m", f"torch_gpt.{command}", "--config", "run.toml"]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(f"error: {message}")


def test_torch_train_reads_its_config_file_from_a_pipe(tmp_path):
    command_line = f"{sys.executable} -m torch_gpt.train --config <(echo 'steps = 0') --data x --out run --device cpu"
    done = subprocess.run(["bash", "-c", command_line], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2
    assert "--steps is 0: it must be a whole number" in done.stderr
