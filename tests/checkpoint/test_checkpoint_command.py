"""Does python -m numpy_gpt.checkpoint say what is so, and end with the status that a script can go by?"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import RELEASED, adamw, init, load, named, save
from numpy_gpt.checkpoint import bundle, openai, verify
from numpy_gpt.checkpoint.stored import Contents, Stored, expand
from numpy_gpt.text import bpe
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model

DATA = "model.ckpt.data-00000-of-00001"


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


def test_info_lists_every_tensor_and_counts_as_others_do(tmp_path):
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
    """a file of holes has its shapes"""
    (tmp_path / "hparams.json").write_text(json.dumps(openai.hparams(RELEASED["124M"])))
    (tmp_path / "model.ckpt.index").write_bytes(bundle.write_index(openai.entries(RELEASED["124M"])))
    with open(tmp_path / DATA, "wb") as f:
        f.truncate(497_759_232)
    out = command("info", tmp_path)
    for number in ("148 tensors", "124,439,808", "163,037,184", "137,022,720", "117M"):
        assert number in out


def test_verify_finds_one_flipped_bit_and_names_the_tensor(tmp_path):
    save(random_model(TINY), tmp_path)
    assert command("verify", tmp_path).splitlines() == [
        "28 tensors, 240,384 bytes, no NaN and no infinity",
        "each matches its checksum in the index",
    ]
    content = bytearray((tmp_path / DATA).read_bytes())
    for byte, tensor in ((0, "model/h0/attn/c_attn/b"), (240_383, "model/wte"), (240_383 - 4 * 61 * 48, "model/wpe")):
        content[byte] ^= 16
        (tmp_path / DATA).write_bytes(content)
        content[byte] ^= 16
        assert f"the tensor {tensor} is corrupt: its checksum is" in command("verify", tmp_path, status=3)


def test_verify_reports_nan(tmp_path):
    m = random_model(TINY)
    m.params.h[1].mlp.c_fc.b[7] = np.nan
    for place, name in (
        ("directory", "model/h1/mlp/c_fc/b"),
        ("m.safetensors", "h.1.mlp.c_fc.bias"),
        ("m.bin", r"fcb[1]"),
    ):
        save(m, tmp_path / place)
        assert f"the tensor {name} has a NaN or an infinity" in command("verify", tmp_path / place, status=3)


def test_verify_says_what_it_cannot_know(tmp_path):
    save(random_model(TINY), tmp_path / "m.bin")
    assert "llm.c's format has no checksums" in command("verify", tmp_path / "m.bin")


def released_checks(data):
    """Real tensors of the 124M, and what verify finds of them; of the others what it would find"""
    checks = {name: verify.Check(crc, True) for name, crc in verify.released_checksums().items()}
    ours = {theirs: name for name, (theirs, _) in expand(openai.TABLE, RELEASED["124M"]).items()}
    tensors = {name: Stored(name, "float32", (), np.zeros(1, np.float32)) for name in checks}
    for file in ("small", "attn_h0"):
        with np.load(data / "gpt2-124M-partial" / f"{file}.npz") as real:
            tensors |= {ours[name]: Stored(name, "float32", a.shape, np.squeeze(a)) for name, a in real.items()}
    return Contents("OpenAI", RELEASED["124M"], tensors, data), checks


def test_real_tensors_are_openais_bit_by_bit(data):
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


def test_other_weights_in_the_124ms_shapes_are_not_openais(tmp_path):
    """in the order of the tree the first is wte"""
    zeros = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, (_, shape) in expand(openai.TABLE, RELEASED["124M"]).items()
    }
    tensors = {name: Stored(name, "float32", a.shape, a) for name, a in zeros.items()}
    assert verify.first_different(Contents("", RELEASED["124M"], tensors, tmp_path), verify.check(tensors)) == "wte"


@pytest.mark.full
def test_verify_of_another_124m_fails_in_every_format(tmp_path):
    m = init(RELEASED["124M"])
    for place, name in (("directory", "model/wte"), ("m.safetensors", "wte.weight"), ("m.bin", "wte")):
        save(m, tmp_path / place)
        assert f"is not OpenAI's 124M: the first tensor that differs is {name}." in command(
            "verify", tmp_path / place, status=1
        )


def test_convert_takes_a_model_through_all_formats(tmp_path):
    save(random_model(TINY), tmp_path / "a")
    places = [tmp_path / name for name in ("a", "b.safetensors", "c.bin", "d", "e.bin", "f")]
    options = [[], [], ["--to", "huggingface"], ["--to", "llmc-v1"], ["--dtype", "float16"]]
    for source, destination, option in zip(places[:-1], places[1:], options, strict=True):
        assert command("convert", source, destination, *option) == f"{destination}\n"
    assert sorted(file.name for file in places[3].iterdir()) == ["config.json", "model.safetensors"]
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
    assert out == f"{file}\n"  # the second time nothing else is written
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
    """load looks for Hugging Face's names first beside a .safetensors file"""
    for name, content in zip(("encoder.json", "vocab.bpe"), load("storyteller").tokenizer.files, strict=True):
        (tmp_path / name).write_bytes(content)
    other = bpe.tokenizer(bpe.train(["the cat and the hat"], 262))
    for name, content in zip(("vocab.json", "merges.txt"), other.files, strict=True):
        (tmp_path / name).write_bytes(content)
    expected = f"can't be written beside {tmp_path}/vocab.json, another model's vocabulary"
    assert expected in command("convert", "storyteller", tmp_path / "st.safetensors", status=1)
    assert command("convert", "storyteller", tmp_path / "st.bin") == f"{tmp_path}/st.bin\n"


def test_convert_gives_no_vocabulary_to_other_files_of_the_directory(tmp_path):
    save(random_model(TINY), tmp_path / "a.safetensors")
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", "storyteller", tmp_path / "st.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{tmp_path}/st.bin\n")
    assert f"st.bin has no tokenizer, since a vocabulary in {tmp_path} would be that of a.safetensors too" in run.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "st.bin"]


def test_convert_gives_no_vocabulary_to_a_checkpoint_of_the_directory(tmp_path):
    save(random_model(TINY), tmp_path)
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", "storyteller", tmp_path / "st.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 0
    assert "would be that of model.ckpt.index too" in run.stderr
    assert load(tmp_path).tokenizer is None


def test_convert_prints_what_it_writes(tmp_path):
    assert command("convert", "storyteller", tmp_path / "st.bin").splitlines() == [
        f"{tmp_path}/{name}" for name in ("st.bin", "encoder.json", "vocab.bpe")
    ]


def test_convert_of_a_corrupt_checkpoint_is_refused(tmp_path):
    save(random_model(TINY), tmp_path / "a")
    flip_bit(tmp_path / "a" / DATA, 1000)
    for destination in ("b", "b.bin"):
        assert "is corrupt: its checksum is" in command("convert", tmp_path / "a", tmp_path / destination, status=3)
    assert os.listdir(tmp_path) == ["a"]


def test_convert_to_bin_reports_that_dropout_is_left_out(tmp_path):
    save(random_model(replace(TINY, dropout=0.25)), tmp_path / "a")
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", "convert", tmp_path / "a", tmp_path / "a.bin"]
    run = subprocess.run(line, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, f"{tmp_path}/a.bin\n")
    assert run.stderr == f"checkpoint: {tmp_path}/a.bin has no place for the dropout rate 0.25: it was left out.\n"


def test_verify_refuses_a_tokenizer_that_is_larger_than_n_vocab(tmp_path):
    save(random_model(TINY)._replace(tokenizer=load("storyteller").tokenizer), tmp_path)
    assert "has the vocabulary of another model" in command("verify", tmp_path, status=3)


def test_verify_checks_the_moments_of_a_training_run(tmp_path):
    resume.save(tmp_path, random_state())
    assert command("verify", tmp_path).splitlines()[-1] == "56 moments of a training run, each matches its checksum"
    flip_bit(tmp_path / "moments.safetensors", -1)
    assert "moments.safetensors: the tensor v.ln_f.b is corrupt" in command("verify", tmp_path, status=3)


def test_mistakes_get_a_sentence_and_a_status(tmp_path):
    save(random_model(replace(TINY, tied=False)), tmp_path / "a")
    assert "nosuch is no file or directory here" in command("info", "nosuch", status=3)
    assert "llm.c's format has no place for an output head" in command(
        "convert", tmp_path / "a", tmp_path / "b.bin", status=1
    )
    assert "can't be written" in command("convert", tmp_path / "a", tmp_path / "a" / "checkpoint" / "b", status=1)
    assert "the following arguments are required: destination" in command("convert", tmp_path / "a", status=2)
    assert "invalid choice: 'prove'" in command("prove", tmp_path / "a", status=2)
    (tmp_path / "a" / DATA).write_bytes(b"")
    assert f"{DATA} has 0 bytes" in command("verify", tmp_path / "a", status=3)


def test_a_reader_that_stops_reading_is_no_mistake(tmp_path):
    save(random_model(TINY), tmp_path)
    line = f"{sys.executable} -m numpy_gpt.checkpoint info {tmp_path} | head -1; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
