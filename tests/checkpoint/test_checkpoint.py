"""Do load and save map files, restore models, and refuse invalid files and arguments?"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numpy_gpt
from numpy_gpt import CheckpointError, Config, GPTError, adamw, init, load, loss_and_grads, named, save
from parity.inputs import TINY, random_batch, random_model

PLACES = {"openai": "openai", "huggingface": "huggingface", "safetensors": "model.safetensors", "llmc-v3": "m.bin"}


def store(m, directory, format):
    """Save a model in a format"""
    save(m, directory / PLACES[format], "openai" if format == "openai" else None)


@pytest.mark.parametrize("format", PLACES)
def test_loaded_arrays_are_aligned_and_writable_without_changing_the_file(format, tmp_path):
    m = random_model(TINY)
    store(m, tmp_path, format)
    for _ in range(2):
        loaded = load(tmp_path / PLACES[format])
        for (name, a), (_, b) in zip(named(loaded.params), named(m.params), strict=True):
            assert type(a) is np.ndarray
            assert a.flags.aligned
            np.testing.assert_array_equal(a, b, err_msg=name)
            a[...] = 0  # doesn't change the file


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists the pages that were touched")
@pytest.mark.parametrize("format", PLACES)
def test_load_touches_no_page_of_the_weights(format, tmp_path):
    store(init(Config(20_000, 64, 64, 4, 2)), tmp_path, format)
    m = load(tmp_path / PLACES[format])
    before = resident(tmp_path)
    assert m.params.wte.sum() != 0
    assert before <= 256 < 5000 <= resident(tmp_path)  # kB: the header, and the pages that the kernel maps around it


def resident(directory):
    """Return the kB of a directory's files that are in this process's memory"""
    maps = Path("/proc/self/smaps").read_text()
    return sum(map(int, re.findall(rf"{re.escape(str(directory))}[^\n]*\n(?:\w+:[^\n]*\n)*?Rss: +(\d+) kB", maps)))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("format", PLACES)
def test_load_of_the_124m_touches_no_page_of_the_weights(format, tmp_path):
    store(init(numpy_gpt.RELEASED["124M"]), tmp_path, format)
    m = load(tmp_path / PLACES[format])
    before = resident(tmp_path)
    assert m.params.wte[:4000].sum() != 0
    assert before <= 256 < 5000 <= resident(tmp_path)


@pytest.mark.parametrize("format", PLACES)
def test_loaded_model_trains_like_the_saved_one(format, tmp_path):
    # Transposed views, such as llm.c's matrices, are updated too
    losses = []
    m = random_model(TINY)
    store(m, tmp_path, format)
    for model in (m, load(tmp_path / PLACES[format])):
        moments = adamw.moments(model.params)
        for t in (1, 2, 3):
            loss, grads = loss_and_grads(model, *random_batch(TINY, 2, 7))
            adamw.step(model.params, grads, moments, t, lr=0.1)
            losses.append(float(loss))
    np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-5)
    assert losses[2] < 0.9 * losses[0]


def test_import_loads_no_framework_and_no_network_library():
    script = """
import sys, numpy_gpt, numpy_gpt.checkpoint.__main__
heavy = {"torch", "tensorflow", "requests", "tqdm", "tiktoken", "regex", "safetensors", "urllib.request", "http.client"}
print(sorted(heavy & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_load_refuses_paths_without_a_checkpoint(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"nosuch is neither a path nor a model's name: choose one of storyteller, 124M.*gpt2-xl"
    ):
        load("nosuch")
    for impossible in ("x" * 300, "a\0b"):
        with pytest.raises(CheckpointError, match="is neither a path nor a model's name"):
            load(impossible)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"notes.txt isn't a .safetensors or .bin file"):
        load(tmp_path / "notes.txt")
    with pytest.raises(
        CheckpointError, match=r"has no checkpoint: neither model.ckpt.index nor model.safetensors is there"
    ):
        load(tmp_path)


def test_load_and_save_refuse_arguments_of_other_types(tmp_path):
    for source in (None, 7, b"124M"):
        with pytest.raises(GPTError, match=r"source is .*: it must be a path, or the name of a released model"):
            load(source)
    for m, path in ((init(TINY), ""), (init(TINY), None), ("x", "y"), (init(TINY).params, "y")):
        with pytest.raises(GPTError, match="save takes a Model and a path, not "):
            save(m, path)
    with pytest.raises(GPTError, match=r"path is 'a\\x00b': no name of a file can contain a NUL"):
        save(init(TINY), "a\0b")


def test_load_and_save_refuse_invalid_dtypes_formats_and_models(tmp_path):
    m = init(TINY)
    save(m, tmp_path)
    for dtype in ("float16", "int32", ">f4", "nonsense", object):
        with pytest.raises(GPTError, match=r"dtype is .*: it must be one of NumPy's float32, float64"):
            load(tmp_path, dtype=dtype)
    with pytest.raises(GPTError, match="dtype is 'int8': it must be one of NumPy's float16, float32, float64"):
        save(m, tmp_path, dtype="int8")
    with pytest.raises(GPTError, match="format is 'pickle': it must be one of huggingface, openai, llmc-v3, llmc-v1"):
        save(m, tmp_path, "pickle")
    with pytest.raises(GPTError, match=r"format is \['openai'\]: it must be one of"):
        save(m, tmp_path, ["openai"])
    with pytest.raises(GPTError, match="the parameters are not those of"):
        save(m._replace(config=Config(61, 11, 48, 3, 1)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


SUFFIXES = {
    ("m.bin", "openai"): r"m.bin can't be in openai's format, since \.bin files are llm\.c's: choose another name\.",
    ("m.bin", "huggingface"): r"m.bin can't be in huggingface's format, since \.bin files are llm\.c's",
    ("m.safetensors", "openai"): r"can't be in OpenAI's layout, which is a directory: leave \.safetensors out\.",
    ("m.safetensors", "llmc-v1"): r"can't be a file of llmc-v1, since llm\.c's files end in \.bin: give such a name\.",
    ("m", "llmc-v3"): r"m can't be a file of llmc-v3, since llm\.c's files end in \.bin: give such a name\.",
}


@pytest.mark.parametrize(("place", "format"), SUFFIXES)
def test_save_refuses_a_suffix_of_another_format(place, format, tmp_path):
    with pytest.raises(GPTError, match=SUFFIXES[place, format]):
        save(init(TINY), tmp_path / place, format)
    assert not (tmp_path / place).exists()


@pytest.mark.parametrize("place", ["file/directory", "file/m.bin", "file/m.safetensors", "file"])
def test_save_to_an_unwritable_path_raises(place, tmp_path):
    (tmp_path / "file").write_text("hello")
    message = r"can't be written, since (it|.*/file) is a file: choose another directory\."
    with pytest.raises(GPTError, match=message):
        save(init(TINY), tmp_path / place)
    assert (tmp_path / "file").read_text() == "hello"


@pytest.mark.parametrize("target", ["nosuch", "link"])
@pytest.mark.parametrize("place", ["link", "link/m.bin"])
def test_save_to_a_broken_symbolic_link_says_so(place, target, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(GPTError, match=r"can't be written, since (it|.*/link) is a broken symbolic link"):
        save(init(TINY), tmp_path / place)


def test_load_of_an_empty_name_ignores_the_checkpoint_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(init(TINY), ".")
    with pytest.raises(CheckpointError, match="source is '': give a path or a model's name"):
        load("")


WRONG = {
    "n_layer": (10**9, r"tensors, too few for the 1000000000 layers"),
    "n_vocab": (10**9, r"the tensor model/wte is \(61, 48\) and should be \(1000000000, 48\)"),
    "n_ctx": (12, r"the tensor model/wpe is \(11, 48\) and should be \(12, 48\)"),
    "n_embd": (51, r"the tensor model/wte is \(61, 48\) and should be \(61, 51\)"),
    "n_head": (5, r"hparams.json: n_embd 48 is not divisible by n_head 5"),
    "dropout": ("high", r"hparams.json: dropout is 'high'"),
    "qkv_bias": (False, r"has a tensor model/h0/attn/c_attn/b that no GPT-2 of"),
    "tied": (False, r"lacks the tensor model/head/w"),
}


@pytest.mark.parametrize("key", WRONG)
def test_load_refuses_hparams_with_a_wrong_value(key, tmp_path):
    save(init(TINY), tmp_path, "openai")
    value, message = WRONG[key]
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    (tmp_path / "hparams.json").write_text(json.dumps(hparams | {key: value}))
    with pytest.raises(CheckpointError, match=message) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("key", ["n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"])
def test_load_refuses_hparams_without_a_size(key, tmp_path):
    save(init(TINY), tmp_path, "openai")
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    del hparams[key]
    (tmp_path / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(CheckpointError, match=f"hparams.json lacks {key}"):
        load(tmp_path)


def test_load_follows_the_pointer_within_the_directory(tmp_path):
    save(random_model(TINY), tmp_path / "run", "openai")
    for file in (tmp_path / "run").glob("model.ckpt.*"):
        file.rename(file.with_name(file.name.replace("model.ckpt", "model-1000")))
    pointer = tmp_path / "run" / "checkpoint"
    for prefix in ("model-1000", "/old/place/model-1000"):
        pointer.write_text(f'model_checkpoint_path: "{prefix}"\n')
        assert load(tmp_path / "run").config == TINY
    for name in ("x" * 300, "x" * 300 + "/model", "x**y", "x\0/model"):
        pointer.write_text(f'model_checkpoint_path: "{name}"')
        with pytest.raises(CheckpointError, match=r"be read: (File name too|No such file|(stat: )?embedded null)"):
            load(tmp_path / "run")
    for wrong in (
        'model_checkpoint_path: "."',
        'model_checkpoint_path: "/"',
        'model_checkpoint_path: "../run/model-1000"',
        "",
        "all_model_checkpoint_paths: 7",
    ):
        pointer.write_text(wrong)
        with pytest.raises(CheckpointError, match="checkpoint names no checkpoint of its directory"):
            load(tmp_path / "run")
    pointer.unlink()
    with pytest.raises(CheckpointError, match=r"has no checkpoint"):
        load(tmp_path / "run")


def test_save_refuses_a_missing_or_transposed_parameter(tmp_path):
    m = init(TINY)
    m.params.h[1] = m.params.h[1]._replace(ln_2=m.params.h[1].ln_2._replace(b=None))
    with pytest.raises(GPTError, match=r"parameter h\.1\.ln_2\.b is missing"):
        save(m, tmp_path / "m.safetensors")
    m = init(TINY)
    a = m.params.h[0].attn.c_attn
    m.params.h[0] = m.params.h[0]._replace(attn=m.params.h[0].attn._replace(c_attn=a._replace(w=a.w.T)))
    with pytest.raises(
        GPTError, match=r"parameter h\.0\.attn\.c_attn\.w has the shape \(144, 48\): Config\(.*\) needs \(48, 144\)"
    ):
        save(m, tmp_path)
