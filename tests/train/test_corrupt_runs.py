"""Does training refuse weights, moments and settings that changed on disk?"""

import json
from pathlib import Path

import pytest
from training_runs import SHORT, train, trained

from numpy_gpt import load, save
from numpy_gpt.checkpoint import safetensors
from numpy_gpt.train import resume

DATA, WEIGHTS, MOMENTS = "model.ckpt.data-00000-of-00001", "model.safetensors", "moments.safetensors"
MORE = ["--steps", "9"]
TENSORS = {  # layout, file, a byte of it, and the tensor that it belongs to
    ("openai", DATA, 0): "model/h0/attn/c_attn/b",
    ("openai", DATA, -1): "model/wte",
    ("huggingface", WEIGHTS, -1): "ln_f.bias",
    ("huggingface", WEIGHTS, -20000): "wte.weight",
    ("huggingface", MOMENTS, -1): "v.ln_f.b",
    ("openai", MOMENTS, -20000): "v.wte",
}


def flip_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def without_checksums(run):
    """Remove the checksums of the moments and of training.json, which 0.1.0 didn't write"""
    moments = Path(run, "moments.safetensors")
    metadata, tensors = safetensors.read(moments)
    arrays = {name: stored.array.copy() for name, stored in tensors.items()}
    with open(moments, "wb") as f:
        safetensors.write(f, arrays, "float32", {"step": metadata["step"]})


@pytest.mark.parametrize(("format", "name", "at"), TENSORS)
def test_resume_from_a_corrupt_file_is_refused(format, name, at, text):
    trained("--data", text, "--out", "run", "--format", format, *SHORT)
    flip_bit(Path("run", name), at)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert f"the tensor {TENSORS[format, name, at]} is corrupt: its checksum is" in err
    assert err.endswith("restore the directory from a copy, or start a new run.\n")
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


@pytest.mark.parametrize("at", [7, 8, 30])
def test_resume_with_a_corrupt_header_of_the_moments_advises_to_restore_the_run(at, text):
    trained("--data", text, "--out", "run", *SHORT)
    flip_bit(Path("run", MOMENTS), at)  # in the header's length, its JSON, and a name in the JSON
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("train: run/moments.safetensors ")
    assert err.endswith(": restore the directory from a copy, or start a new run.\n")


def test_resume_of_a_run_without_checksums_of_its_moments(text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    trained("--resume", "--out", "run", *SHORT, *MORE)
    assert resume.load(Path("run")).step == 9
    assert safetensors.CHECKSUMS in safetensors.read(Path("run", "moments.safetensors"))[0]


BROKEN = {"no JSON": "{", "other names": '{"m.wte": "00000000"}', "no hexadecimal digits": None}


@pytest.mark.parametrize("case", BROKEN)
def test_resume_with_invalid_checksums_is_refused(case, text):
    trained("--data", text, "--out", "run", *SHORT)
    moments = Path("run", "moments.safetensors")
    metadata, tensors = safetensors.read(moments)
    arrays = {name: stored.array.copy() for name, stored in tensors.items()}
    checksums = BROKEN[case] or json.dumps(dict.fromkeys(arrays, "x"))
    with open(moments, "wb") as f:
        safetensors.write(f, arrays, "float32", metadata | {safetensors.CHECKSUMS: checksums})
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "moments.safetensors" in err
    assert err.endswith("restore the directory from a copy, or start a new run.\n")


@pytest.mark.parametrize(("format", "name"), [("openai", DATA), ("huggingface", WEIGHTS)])
def test_init_from_a_corrupt_checkpoint_is_refused(format, name, text):
    save(load("storyteller"), "copy", format)
    flip_bit(Path("copy", name), -1000)
    status, out, err = train("--init-from", "copy", "--data", text, "--out", "run", "--steps", "1")
    assert (status, out) == (3, "")
    assert "is corrupt: its checksum is" in err
    assert not Path("run", "model.safetensors").exists()


@pytest.mark.parametrize(("old", "new"), [("batch_size", "bavch_size"), ('"seed": 0', '"seed": 1')])
def test_resume_with_a_changed_training_json_is_refused(old, new, text):
    trained("--data", text, "--out", "run", *SHORT)
    path = Path("run", "training.json")
    path.write_text(path.read_text().replace(old, new))
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert "training.json is corrupt: its checksum isn't the one in moments.safetensors" in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"batch_size"', '"bavch_size"', "the run to resume has no option batch_size"),
        ('"accumulate":', '"a": 1, "accumulate":', "the run to resume has an unknown option a"),
        ('"lr": 0.001', '"lr": null', "the run to resume has an invalid option: --lr is None"),
    ],
)
def test_resume_with_invalid_settings_is_refused(old, new, message, text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert message in err


def test_resume_of_a_run_with_eps_0_requires_another_eps(text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    path.write_text(path.read_text().replace('"eps": 1e-08', '"eps": 0.0'))
    status, _, err = train("--resume", "--out", "run", *MORE)
    assert status == 1
    assert "eps is 0.0: in float32 it must be at least" in err
    trained("--resume", "--out", "run", *MORE, "--eps", "1e-8")
    assert resume.load(Path("run")).about["settings"]["eps"] == 1e-8


def test_resume_of_a_run_without_text_keys_requires_data(text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    about = json.loads(path.read_text())
    about["settings"]["data"], about["text"] = ["/nowhere"], None
    path.write_text(json.dumps(about))
    status, _, err = train("--resume", "--out", "run", *MORE)
    assert status == 1
    assert "/nowhere can't be read again, and its tokens aren't in the cache: give the same text with --data." in err
