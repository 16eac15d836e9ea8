"""Does load map and never believe, and does what is saved come back?"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import numpy_gpt
from numpy_gpt import CheckpointError, Config, GPTError, adamw, init, load, loss_and_grads, named, save
from parity.inputs import TINY, random_batch, random_model

PLACES = {"openai": "directory", "huggingface": "model.safetensors", "llmc-v3": "m.bin"}


@pytest.mark.parametrize("format", PLACES)
def test_arrays_are_mapped_writable_and_plain(format, tmp_path):
    m = random_model(TINY)
    save(m, tmp_path / PLACES[format])
    for _ in range(2):
        loaded = load(tmp_path / PLACES[format])
        for (name, a), (_, b) in zip(named(loaded.params), named(m.params), strict=True):
            assert type(a) is np.ndarray
            assert a.flags.aligned
            np.testing.assert_array_equal(a, b, err_msg=name)
            a[...] = 0  # the file stays as it is


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells which pages were touched")
@pytest.mark.parametrize("format", PLACES)
def test_no_page_of_the_weights_is_touched_before_it_is_used(format, tmp_path):
    save(init(Config(20_000, 64, 64, 4, 2)), tmp_path / PLACES[format])
    m = load(tmp_path / PLACES[format])
    before = resident(tmp_path)
    assert m.params.wte.sum() != 0
    assert before <= 256 < 5000 <= resident(tmp_path)  # kB: the header, and what the kernel maps around it


def resident(directory):
    """kB of the files below it that are in this process's memory"""
    maps = Path("/proc/self/smaps").read_text()
    return sum(map(int, re.findall(rf"{re.escape(str(directory))}[^\n]*\n(?:\w+:[^\n]*\n)*?Rss: +(\d+) kB", maps)))


@pytest.mark.full
@pytest.mark.parametrize("format", PLACES)
def test_the_124m_loads_at_once(format, tmp_path):
    save(init(numpy_gpt.RELEASED["124M"]), tmp_path / PLACES[format])
    started = time.perf_counter()
    load(tmp_path / PLACES[format])
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize("format", PLACES)
def test_a_loaded_model_trains_like_the_one_that_was_saved(format, tmp_path):
    """llm.c's matrices are transposed views: they must be updated too"""
    losses = []
    m = random_model(TINY)
    save(m, tmp_path / PLACES[format])
    for model in (m, load(tmp_path / PLACES[format])):
        moments = adamw.moments(model.params)
        for t in (1, 2, 3):
            loss, grads = loss_and_grads(model, *random_batch(TINY, 2, 7))
            adamw.step(model.params, grads, moments, t, lr=0.1)
            losses.append(float(loss))
    np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-5)
    assert losses[2] < 0.9 * losses[0]


def test_loading_imports_no_framework_and_asks_no_network():
    script = """
import sys, numpy_gpt, numpy_gpt.checkpoint.__main__
heavy = {"torch", "tensorflow", "requests", "tqdm", "tiktoken", "regex", "safetensors", "urllib.request", "http.client"}
print(sorted(heavy & sys.modules.keys()))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_nowhere_gets_a_sentence(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"nosuch is no file or directory here, nor a model's name: storyteller, 124M.*gpt2-xl"
    ):
        load("nosuch")
    for impossible in ("x" * 300, "a\0b", ""):
        with pytest.raises(CheckpointError, match="is no file or directory here"):
            load(impossible)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"notes.txt is no .safetensors or .bin file"):
        load(tmp_path / "notes.txt")
    with pytest.raises(
        CheckpointError, match=r"has no checkpoint: neither model.ckpt.index nor model.safetensors is there"
    ):
        load(tmp_path)


def test_arguments_of_other_kinds_get_a_sentence(tmp_path):
    for source in (None, 7, b"124M"):
        with pytest.raises(GPTError, match=r"source is .*: it must be a path, or the name of a released model"):
            load(source)
    for m, path in ((init(TINY), ""), (init(TINY), None), ("x", "y"), (init(TINY).params, "y")):
        with pytest.raises(GPTError, match="save takes a Model and a path"):
            save(m, path)


def test_settings_that_are_none_get_a_sentence(tmp_path):
    m = init(TINY)
    save(m, tmp_path)
    for dtype in ("float16", "int32", ">f4", "nonsense", object):
        with pytest.raises(GPTError, match=r"dtype is .*: it must be one of NumPy's float32, float64"):
            load(tmp_path, dtype=dtype)
    with pytest.raises(GPTError, match="dtype is 'int8': it must be one of NumPy's float16, float32, float64"):
        save(m, tmp_path, dtype="int8")
    with pytest.raises(GPTError, match="format is 'pickle': it must be one of openai, huggingface, llmc-v3, llmc-v1"):
        save(m, tmp_path, "pickle")
    with pytest.raises(GPTError, match="the parameters are not those of"):
        save(m._replace(config=Config(61, 11, 48, 3, 1)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("place", "format"), [("m.bin", "openai"), ("m.safetensors", "openai"), ("m", "llmc-v3"), ("m.bin", "huggingface")]
)
def test_a_name_that_load_would_take_for_another_format_is_refused(place, format, tmp_path):
    with pytest.raises(GPTError, match=f"{place} is no name for {format}"):
        save(init(TINY), tmp_path / place, format)
    assert not (tmp_path / place).exists()


@pytest.mark.parametrize("place", ["file/directory", "file/m.bin", "file/m.safetensors", "file"])
def test_a_place_that_cannot_be_written_gets_a_sentence(place, tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(GPTError, match="can't be written"):
        save(init(TINY), tmp_path / place)
    assert (tmp_path / "file").read_text() == "hello"


LIES = {
    "n_layer": (10**9, r"tensors, too few for the 1000000000 layers"),
    "n_vocab": (10**9, r"the tensor model/wte is \(61, 48\) and should be \(1000000000, 48\)"),
    "n_ctx": (12, r"the tensor model/wpe is \(11, 48\) and should be \(12, 48\)"),
    "n_embd": (51, r"the tensor model/wte is \(61, 48\) and should be \(61, 51\)"),
    "n_head": (5, r"hparams.json: n_embd 48 is not divisible by n_head 5"),
    "dropout": ("high", r"hparams.json: dropout is 'high'"),
    "qkv_bias": (False, r"has a tensor model/h0/attn/c_attn/b that no GPT-2 of"),
    "tied": (False, r"lacks the tensor model/head/w"),
}


@pytest.mark.parametrize("word", LIES)
def test_hparams_that_lie_are_named(word, tmp_path):
    save(init(TINY), tmp_path)
    value, sentence = LIES[word]
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    (tmp_path / "hparams.json").write_text(json.dumps(hparams | {word: value}))
    with pytest.raises(CheckpointError, match=sentence) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("word", ["n_vocab", "n_ctx", "n_embd", "n_head", "n_layer"])
def test_hparams_that_say_too_little_are_named(word, tmp_path):
    save(init(TINY), tmp_path)
    hparams = json.loads((tmp_path / "hparams.json").read_text())
    del hparams[word]
    (tmp_path / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(CheckpointError, match=f"hparams.json doesn't say {word}"):
        load(tmp_path)


def test_the_pointer_is_followed_within_the_directory(tmp_path):
    save(random_model(TINY), tmp_path / "run")
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


def test_a_parameter_of_another_shape_is_not_saved_as_if_it_were_right(tmp_path):
    m = init(TINY)
    m.params.h[1] = m.params.h[1]._replace(ln_2=m.params.h[1].ln_2._replace(b=None))
    with pytest.raises(GPTError, match=r"parameter h\.1\.ln_2\.b is missing"):
        save(m, tmp_path / "m.safetensors")
    m = init(TINY)
    a = m.params.h[0].attn.c_attn
    m.params.h[0] = m.params.h[0]._replace(attn=m.params.h[0].attn._replace(c_attn=a._replace(w=a.w.T)))
    with pytest.raises(
        GPTError, match=r"parameter h\.0\.attn\.c_attn\.w has the shape \(144, 48\), and \(48, 144\) is that"
    ):
        save(m, tmp_path)
