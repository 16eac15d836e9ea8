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


def without_checksums(run):
    """Take the checksums away that 0.1.0 didn't write"""
    moments = Path(run, "moments.safetensors")
    metadata, tensors = safetensors.read(moments)
    arrays = {name: stored.array.copy() for name, stored in tensors.items()}
    with open(moments, "wb") as f:
        safetensors.write(f, arrays, "float32", {"step": metadata["step"]})


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
    without_checksums("run")
    trained("--resume", "--out", "run", *SHORT, *MORE)
    assert resume.load(Path("run")).step == 9
    assert safetensors.CHECKSUMS in safetensors.read(Path("run", "moments.safetensors"))[0]


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


@pytest.mark.parametrize(("old", "new"), [("batch_size", "bavch_size"), ('"seed": 0', '"seed": 1')])
def test_resume_with_a_changed_training_json_is_refused(old, new, text):
    trained("--data", text, "--out", "run", *SHORT)
    path = Path("run", "training.json")
    path.write_text(path.read_text().replace(old, new))
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert "training.json is corrupt: its checksum isn't the one in moments.safetensors" in err


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"batch_size"', '"bavch_size"', "the run to resume has no setting batch_size"),
        ('"accumulate":', '"a": 1, "accumulate":', "the run to resume has an unknown setting a"),
        ('"lr": 0.001', '"lr": null', "the run to resume has an invalid setting: --lr is None"),
    ],
)
def test_resume_with_settings_that_cannot_be_is_refused(old, new, sentence, text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    status, out, err = train("--resume", "--out", "run", *MORE)
    assert (status, out) == (3, "")
    assert sentence in err


def test_resume_of_a_run_with_an_eps_of_0_takes_another(text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    path.write_text(path.read_text().replace('"eps": 1e-08', '"eps": 0.0'))
    status, _, err = train("--resume", "--out", "run", *MORE)
    assert status == 1
    assert "eps is 0.0: in float32 it must be at least" in err
    trained("--resume", "--out", "run", *MORE, "--eps", "1e-8")
    assert resume.load(Path("run")).about["settings"]["eps"] == 1e-8


def test_resume_of_a_run_without_its_texts_keys_asks_for_the_text(text):
    trained("--data", text, "--out", "run", *SHORT)
    without_checksums("run")
    path = Path("run", "training.json")
    about = json.loads(path.read_text())
    about["settings"]["data"], about["text"] = ["/nowhere"], None
    path.write_text(json.dumps(about))
    status, _, err = train("--resume", "--out", "run", *MORE)
    assert status == 1
    assert "/nowhere can't be read again, and its tokens aren't in the cache: give the same text with --data." in err
