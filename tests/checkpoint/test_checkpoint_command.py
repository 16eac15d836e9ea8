"""Does python -m numpy_gpt.checkpoint print correct results, and exit with the status that scripts rely on?"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import RELEASED, CheckpointError, adamw, init, load, named, save
from numpy_gpt.checkpoint import bundle, classifier, openai, verify
from numpy_gpt.checkpoint.classifier import Classifier
from numpy_gpt.checkpoint.stored import Contents, Stored, expand
from numpy_gpt.params import Head
from numpy_gpt.text import bpe
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model

DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"


def flip_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 16
    file.write_bytes(content)


def random_state():
    m, *moments = (random_model(TINY, seed=seed) for seed in range(3))
    return resume.State(m, adamw.Moments(*(moment.params for moment in moments)), 7, {"settings": {}, "text": []})


def command(*arguments, status=0):
    run = subprocess.run([sys.executable, "-m", "numpy_gpt.checkpoint", *arguments], capture_output=True, text=True)
    assert run.returncode == status, run.stderr
    assert "Traceback" not in run.stderr
    assert bool(run.stderr) == bool(status)
    return run.stderr if status else run.stdout


def test_info_lists_every_tensor_and_the_counts_in_use(tmp_path):
    m = random_model(TINY)
    save(m, tmp_path / "m.safetensors")
    lines = command("info", tmp_path / "m.safetensors").splitlines()
    for name, a in named(m.params):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert line.split()[2] == "float32"
        assert line.split()[-1] == f"{a.size:,}"
    assert "h.1.mlp.c_fc.w     h.1.mlp.c_fc.weight" in "\n".join(lines)
    assert [line.split()[0] for line in lines[-3:]] == ["60,096", "63,024", "60,338"]


def test_info_explains_the_names_of_the_124m(tmp_path):
    """Use a sparse file with the shapes of the 124M"""
    (tmp_path / "hparams.json").write_text(json.dumps(openai.hparams(RELEASED["124M"])))
    (tmp_path / "model.ckpt.index").write_bytes(bundle.write_index(openai.entries(RELEASED["124M"])))
    with open(tmp_path / DATA, "wb") as f:
        f.truncate(497_759_232)
    out = command("info", tmp_path)
    for number in ("148 tensors", "124,439,808", "163,037,184", "137,022,720", "117M"):
        assert number in out


TENSORS = {  # a byte of the file, from its end, and the name of the tensor that it belongs to
    ("openai", DATA): {-240_384: "model/h0/attn/c_attn/b", -1: "model/wte", -1 - 4 * 61 * 48: "model/wpe"},
    ("huggingface", "model.safetensors"): {
        -240_384: "wte.weight",
        -1: "ln_f.bias",
        -1 - 2 * 4 * 48: "h.1.mlp.c_proj.bias",
    },
}


@pytest.mark.parametrize(("format", "file"), TENSORS)
def test_verify_names_the_tensor_with_a_flipped_bit(format, file, tmp_path):
    save(random_model(TINY), tmp_path, format)
    assert command("verify", tmp_path).splitlines() == [
        "28 tensors, 240,384 bytes, no NaN and no infinity",
        "each matches its checksum",
    ]
    content = bytearray((tmp_path / file).read_bytes())
    for byte, tensor in TENSORS[format, file].items():
        content[byte] ^= 16
        (tmp_path / file).write_bytes(content)
        content[byte] ^= 16
        assert f"the tensor {tensor} is corrupt: its checksum is" in command("verify", tmp_path, status=3)


def test_verify_reports_nan(tmp_path):
    m = random_model(TINY)
    m.params.h[1].mlp.c_fc.b[7] = np.nan
    for place, name in (
        ("directory", "h.1.mlp.c_fc.bias"),
        ("m.safetensors", "h.1.mlp.c_fc.bias"),
        ("m.bin", r"fcb[1]"),
    ):
        save(m, tmp_path / place)
        assert f"the tensor {name} has a NaN or an infinity" in command("verify", tmp_path / place, status=3)


def test_verify_reports_a_format_without_checksums(tmp_path):
    save(random_model(TINY), tmp_path / "m.bin")
    assert "the files contain no checksums" in command("verify", tmp_path / "m.bin")


def released_checks(data):
    """Return some real tensors of the 124M, and the checks of all of its tensors"""
    checks = {name: verify.Check(crc, True) for name, crc in verify.released_checksums().items()}
    ours = {theirs: name for name, (theirs, _) in expand(openai.TABLE, RELEASED["124M"]).items()}
    tensors = {name: Stored(name, "float32", (), np.zeros(1, np.float32)) for name in checks}
    for file in ("small", "attn_h0"):
        with np.load(data / "gpt2-124M-partial" / f"{file}.npz") as real:
            tensors |= {ours[name]: Stored(name, "float32", a.shape, np.squeeze(a)) for name, a in real.items()}
    return Contents("OpenAI", RELEASED["124M"], tensors, data), checks


def test_first_different_of_released_tensors_is_none(data):
    contents, checks = released_checks(data)
    real = {name: stored for name, stored in contents.tensors.items() if stored.array.size > 1}
    assert len(real) == 50 + 48 + 1 + 2  # LayerNorms, biases, wpe, two matrices
    real |= {
        name: stored._replace(array=np.asfortranarray(stored.array)) for name, stored in real.items()
    }  # as llm.c's
    assert verify.first_different(contents, checks | verify.check(real)) is None
    name = "h.0.attn.c_proj.w"
    real[name].array[5, 7] = np.nextafter(real[name].array[5, 7], np.float32(9))
    assert verify.first_different(contents, checks | verify.check(real)) == "model/h0/attn/c_proj/w"


def test_first_different_of_other_weights_is_wte(tmp_path):
    # wte is the first in the order of the tree
    zeros = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, (_, shape) in expand(openai.TABLE, RELEASED["124M"]).items()
    }
    tensors = {name: Stored(name, "float32", a.shape, a) for name, a in zeros.items()}
    assert verify.first_different(Contents("", RELEASED["124M"], tensors, tmp_path), verify.check(tensors)) == "wte"


@pytest.mark.slow
@pytest.mark.full
def test_verify_of_other_weights_in_the_124ms_shapes_fails(tmp_path):
    m = init(RELEASED["124M"])
    for place, name in (("directory", "wte.weight"), ("m.safetensors", "wte.weight"), ("m.bin", "wte")):
        save(m, tmp_path / place)
        assert f"is not OpenAI's 124M: the first tensor that differs is {name}." in command(
            "verify", tmp_path / place, status=1
        )


def test_convert_through_all_formats_keeps_the_weights(tmp_path):
    save(random_model(TINY), tmp_path / "a")
    places = [tmp_path / name for name in ("a", "b.safetensors", "c.bin", "d", "e.bin", "f")]
    options = [[], [], ["--to", "openai"], ["--to", "llmc-v1"], ["--dtype", "float16"]]
    for source, destination, option in zip(places[:-1], places[1:], options, strict=True):
        assert command("convert", source, destination, *option) == f"{destination}\n"
    assert sorted(file.name for file in places[5].iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(file.name for file in places[3].iterdir()) == [
        "checkpoint",
        "hparams.json",
        DATA,
        f"{DATA[:10]}.index",
    ]
    assert (places[4].stat().st_size, places[2].stat().st_size) == (241_408, 241_408 + 4 * 67 * 48)
    np.testing.assert_array_equal(load(places[4]).params.wte, load(places[0]).params.wte)
    np.testing.assert_array_equal(load(places[5]).params.wte, load(places[0]).params.wte.astype(np.float16))


def test_convert_onto_a_training_runs_directory_is_refused(tmp_path):
    run = tmp_path / "run"
    resume.save(run, random_state())
    before = {path: path.read_bytes() for path in run.iterdir()}
    for destination in (run, run / "m.safetensors", run / "m.bin"):
        assert "choose another directory" in command("convert", run, destination, status=1)
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    command("convert", run, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").params.wte, load(run).params.wte)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_convert_to_a_file_and_back_keeps_the_tokenizer(suffix, tmp_path):
    m = load("storyteller")
    save(m, tmp_path / "w1")
    file = tmp_path / f"w1{suffix}"
    for _ in range(2):
        out = command("convert", tmp_path / "w1", file)
        assert load(file).tokenizer.files == m.tokenizer.files
    assert out == f"{file}\n"  # the second call writes nothing else
    assert (tmp_path / "encoder.json").read_bytes() == m.tokenizer.files[0]
    for destination in (tmp_path / "w1", tmp_path / "w2"):
        command("convert", file, destination)
        assert load(destination).tokenizer.files == m.tokenizer.files


def test_convert_to_a_file_beside_another_vocabulary_is_refused(tmp_path):
    bpe.write(tmp_path, bpe.train(["the cat and the hat"], 262))
    before = sorted(os.listdir(tmp_path))
    expected = f"{tmp_path}/st.bin can't be written beside {tmp_path}/encoder.json, another model's vocabulary"
    assert expected in command("convert", "storyteller", tmp_path / "st.bin", status=1)
    assert sorted(os.listdir(tmp_path)) == before


def test_convert_to_a_file_beside_another_vocabulary_of_its_layout_is_refused(tmp_path):
    # Beside a .safetensors file, load looks for Hugging Face's names first
    for name, content in zip(("encoder.json", "vocab.bpe"), load("storyteller").tokenizer.files, strict=True):
        (tmp_path / name).write_bytes(content)
    other = bpe.tokenizer(bpe.train(["the cat and the hat"], 262))
    for name, content in zip(("vocab.json", "merges.txt"), other.files, strict=True):
        (tmp_path / name).write_bytes(content)
    expected = f"can't be written beside {tmp_path}/vocab.json, another model's vocabulary"
    assert expected in command("convert", "storyteller", tmp_path / "st.safetensors", status=1)
    assert command("convert", "storyteller", tmp_path / "st.bin") == f"{tmp_path}/st.bin\n"


def test_convert_writes_no_vocabulary_beside_other_weights(tmp_path):
    save(random_model(TINY), tmp_path / "a.safetensors")
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", "storyteller", tmp_path / "st.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{tmp_path}/st.bin\n")
    assert (
        f"st.bin has no tokenizer, since load would use a vocabulary in {tmp_path} for a.safetensors too" in run.stderr
    )
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "st.bin"]


@pytest.mark.parametrize(("format", "file"), [("openai", "model.ckpt.index"), ("huggingface", "model.safetensors")])
def test_convert_writes_no_vocabulary_beside_a_checkpoint(format, file, tmp_path):
    save(random_model(TINY), tmp_path, format)
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", "storyteller", tmp_path / "st.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 0
    assert f"for {file} too" in run.stderr
    assert load(tmp_path).tokenizer is None


def test_convert_prints_the_paths_of_written_files(tmp_path):
    assert command("convert", "storyteller", tmp_path / "st.bin").splitlines() == [
        f"{tmp_path}/{name}" for name in ("st.bin", "encoder.json", "vocab.bpe")
    ]


@pytest.mark.parametrize(("format", "file"), TENSORS)
def test_convert_of_a_corrupt_checkpoint_is_refused(format, file, tmp_path):
    save(random_model(TINY), tmp_path / "a", format)
    flip_bit(tmp_path / "a" / file, -1000)
    for destination in ("b", "b.bin"):
        assert "is corrupt: its checksum is" in command("convert", tmp_path / "a", tmp_path / destination, status=3)
    assert os.listdir(tmp_path) == ["a"]


def test_convert_to_bin_reports_that_dropout_is_left_out(tmp_path):
    save(random_model(replace(TINY, dropout=0.25)), tmp_path / "a")
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", tmp_path / "a", tmp_path / "a.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{tmp_path}/a.bin\n")
    assert run.stderr == f"checkpoint: {tmp_path}/a.bin can't contain the dropout rate 0.25: it was left out.\n"


def test_verify_refuses_a_tokenizer_that_is_larger_than_n_vocab(tmp_path):
    save(random_model(TINY)._replace(tokenizer=load("storyteller").tokenizer), tmp_path)
    assert "has the vocabulary of another model" in command("verify", tmp_path, status=3)


def test_verify_checks_the_moments_of_a_training_run(tmp_path):
    resume.save(tmp_path, random_state())
    assert command("verify", tmp_path).splitlines()[-1] == "56 moments of a training run, each matches its checksum"
    flip_bit(tmp_path / "moments.safetensors", -1)
    assert "moments.safetensors: the tensor v.ln_f.b is corrupt" in command("verify", tmp_path, status=3)


PROGRESS = {
    "not JSON": ("{", "", "training.json isn't valid JSON"),
    "another step": ('"step": 7', '"step": 8', "moments.safetensors is of step 7, and training.json of step 8"),
    "no settings": ("settings", "settinks", "training.json lacks the step, the settings or the text of its run"),
    "another text": ("[]", "[1]", "training.json is corrupt: its checksum isn't the one in moments.safetensors"),
}


@pytest.mark.parametrize("case", PROGRESS)
def test_verify_and_resume_refuse_a_training_run_with_an_invalid_training_json(case, tmp_path):
    old, new, message = PROGRESS[case]
    resume.save(tmp_path, random_state())
    path = tmp_path / "training.json"
    assert path.read_text().count(old) >= 1
    path.write_text(path.read_text().replace(old, new))
    error = command("verify", tmp_path, status=3)
    assert message in error
    assert error.endswith(": restore the directory from a copy, or start a new run.\n") or case == "another text"
    with pytest.raises(CheckpointError, match=re.escape(error.removeprefix("checkpoint: ").strip())):
        resume.load(tmp_path)


def test_verify_refuses_the_moments_of_another_model(tmp_path):
    resume.save(tmp_path, random_state())
    save(random_model(replace(TINY, n_ctx=12)), tmp_path / "other")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "other" / name).replace(tmp_path / name)
    message = "moments.safetensors has no tensor m.wpe of the shape (12, 48) in float32"
    assert message in command("verify", tmp_path, status=3)


def test_verify_refuses_a_training_run_without_training_json(tmp_path):
    resume.save(tmp_path, random_state())
    (tmp_path / "training.json").unlink()
    message = f"{tmp_path} is a training run without training.json, so it can't be resumed: restore the file, or remove"
    assert message in command("verify", tmp_path, status=3)


@pytest.mark.parametrize("format", ["huggingface", "openai"])
def test_verify_refuses_a_training_run_without_moments(format, tmp_path):
    resume.save(tmp_path, random_state(), format)
    (tmp_path / "moments.safetensors").unlink()
    message = f"{tmp_path} is a training run without moments.safetensors, so it can't be resumed"
    assert message in command("verify", tmp_path, status=3)
    (tmp_path / "training.json").unlink()
    command("verify", tmp_path)


def test_invalid_arguments_exit_with_a_message(tmp_path):
    save(random_model(replace(TINY, tied=False)), tmp_path / "a", "openai")
    assert "nosuch is neither a path nor a model" in command("info", "nosuch", status=3)
    assert "llm.c's format doesn't support an output head" in command(
        "convert", tmp_path / "a", tmp_path / "b.bin", status=1
    )
    assert "can't be written" in command("convert", tmp_path / "a", tmp_path / "a" / "checkpoint" / "b", status=1)
    assert "the following arguments are required: destination" in command("convert", tmp_path / "a", status=2)
    assert "invalid choice: 'prove'" in command("prove", tmp_path / "a", status=2)
    (tmp_path / "a" / DATA).write_bytes(b"")
    assert f"{DATA} has 0 bytes" in command("verify", tmp_path / "a", status=3)


def test_convert_to_an_empty_destination_leaves_the_working_directory_unchanged(tmp_path, monkeypatch):
    save(random_model(TINY), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    assert "destination is '': give a directory" in command("convert", "storyteller", "", status=2)
    assert "source is '': give a path or a model's name" in command("convert", "", "x", status=3)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_convert_to_a_suffix_of_another_format_is_wrong_usage(tmp_path):
    for name, format in (("m.bin", "openai"), ("m.safetensors", "openai"), ("m", "llmc-v1")):
        expected = f"error: {tmp_path / name} can't be"
        assert expected in command("convert", "storyteller", tmp_path / name, "--to", format, status=2)


def test_info_into_a_closed_pipe_exits_with_0(tmp_path):
    save(random_model(TINY), tmp_path)
    line = f"{sys.executable} -m numpy_gpt.checkpoint info {tmp_path} | head -1; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def save_classifier(directory):
    """Write a classifier of three labels, and return the number of its parameters"""
    m = random_model(TINY)
    head = Head(np.ones((3, TINY.n_embd), np.float32))
    directory.mkdir()
    classifier.fill(directory, Classifier(TINY, m.params._replace(head=head), ["a", "b\t", "c"], None, TINY.n_ctx))
    return TINY.num_parameters() + head.w.size


def test_info_lists_the_head_and_the_labels_of_a_classifier(tmp_path):
    n = save_classifier(tmp_path / "m")
    lines = command("info", tmp_path / "m").splitlines()
    assert re.fullmatch(rf"head.w +score.weight +float32 +3 x {TINY.n_embd} +{3 * TINY.n_embd}", lines[-6])
    assert lines[-5].split()[-1] == lines[-3].split()[0] == f"{n:,}"
    assert lines[-3].split("  ")[-1] == "parameters, each counted once"
    assert lines[-1] == r"classifier of 3 labels: 'a', 'b\t', 'c'"


def test_verify_finds_a_flipped_bit_in_the_head_of_a_classifier(tmp_path):
    save_classifier(tmp_path / "m")
    out = command("verify", tmp_path / "m")
    assert "each matches its checksum\na classifier of 3 labels\n" in out
    flip_bit(tmp_path / "m/model.safetensors", -2)
    assert "the tensor score.weight is corrupt" in command("verify", tmp_path / "m", status=3)


def test_convert_of_a_classifier_is_refused(tmp_path):
    save_classifier(tmp_path / "m")
    err = command("convert", tmp_path / "m", tmp_path / "new", status=3)
    assert err == f"checkpoint: {tmp_path}/m is a classifier: use it with python -m numpy_gpt.finetune predict.\n"
    assert not (tmp_path / "new").exists()
