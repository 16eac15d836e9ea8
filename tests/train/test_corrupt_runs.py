"""Does training refuse weights and moments that changed on the disk?"""

import json
from pathlib import Path

import pytest
from training_runs import SHORT, train, trained

from numpy_gpt import load, save
from numpy_gpt.checkpoint import safetensors
from numpy_gpt.train import resume

DATA = "model.ckpt.data-00000-of-00001"
MORE = ["--steps", "9"]
TENSORS = {  # a byte of the file, and the tensor that it belongs to
    (DATA, 0): "model/h0/attn/c_attn/b",
    (DATA, -1): "model/wte",
    ("moments.safetensors", -1): "v.ln_f.b",
    ("moments.safetensors", -20000): "v.wte",
}


def flip_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("name", "at"), TENSORS)
def test_resume_from_a_corrupt_file_is_refused(name, at, text):
    trained("--data", text, "--out", "run", *SHORT)
    flip_bit(Path("run", name), at)
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert f"the tensor {TENSORS[name, at]} is corrupt: its checksum is" in err
    assert err.endswith("restore the directory from a copy, or begin a new run.\n")
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_run_without_checksums_of_its_moments_is_resumed(text):
    trained("--data", text, "--out", "run", *SHORT)
    moments = Path("run", "moments.safetensors")
    metadata, tensors = safetensors.read(moments)
    arrays = {name: stored.array.copy() for name, stored in tensors.items()}
    with open(moments, "wb") as f:
        safetensors.write(f, arrays, "float32", {"step": metadata["step"]})
    trained("--resume", "--out", "run", *SHORT, *MORE)
    assert resume.load(Path("run")).step == 9
    assert safetensors.CHECKSUMS in safetensors.read(moments)[0]


BROKEN = {"no JSON": "{", "other names": '{"m.wte": "00000000"}', "no hexadecimal digits": None}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_checksums_get_a_sentence(what, text):
    trained("--data", text, "--out", "run", *SHORT)
    moments = Path("run", "moments.safetensors")
    metadata, tensors = safetensors.read(moments)
    arrays = {name: stored.array.copy() for name, stored in tensors.items()}
    checksums = BROKEN[what] or json.dumps(dict.fromkeys(arrays, "x"))
    with open(moments, "wb") as f:
        safetensors.write(f, arrays, "float32", metadata | {safetensors.CHECKSUMS: checksums})
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "moments.safetensors" in err


def test_init_from_a_corrupt_checkpoint_is_refused(text):
    save(load("storyteller"), "copy")
    flip_bit(Path("copy", DATA), 1000)
    status, out, err = train("--init-from", "copy", "--data", text, "--out", "run", "--steps", "1")
    assert (status, out) == (3, "")
    assert "is corrupt: its checksum is" in err
    assert not Path("run", "checkpoint").exists()
