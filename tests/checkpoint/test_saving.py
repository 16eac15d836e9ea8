"""Does save leave the old checkpoint or the new one, and does load return one of the two, whatever happens?"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from numpy_gpt import Config, GPTError, init, load, save
from numpy_gpt.checkpoint.layouts import LAYOUTS
from numpy_gpt.text import bpe
from parity.inputs import TINY, random_model

PLACES = [("openai", "openai"), ("huggingface", "huggingface"), ("model.safetensors", None), ("m.bin", None)]
OPENAI = ["checkpoint", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"]
HUGGING_FACE = ["config.json", "model.safetensors"]


def test_save_replaces_the_file_that_the_model_is_mapped_from(tmp_path):
    for place, format in PLACES:
        m = random_model(TINY)
        save(m, tmp_path / place, format)
        loaded = load(tmp_path / place)
        loaded.params.wte[0, 0] += 1
        save(loaded, tmp_path / place)
        again = load(tmp_path / place)
        assert again.params.wte[0, 0] == m.params.wte[0, 0] + 1
        np.testing.assert_array_equal(again.params.ln_f.g, m.params.ln_f.g)


@pytest.mark.parametrize("format", [None, "openai", "huggingface"])
@pytest.mark.parametrize("name", ["m.pt", "m.PTH", "m.ckpt", "m.npz", "m.gguf", "m.json", "m.BIN", "m.Safetensors"])
def test_save_refuses_a_directory_with_the_suffix_of_a_file(name, format, tmp_path):
    with pytest.raises(GPTError, match=f"{name} can't be a checkpoint's directory because .* is a file's suffix"):
        save(random_model(TINY), tmp_path / name, format)
    assert not any(tmp_path.iterdir())


def test_save_accepts_a_directory_with_a_dot_in_its_name(tmp_path):
    (tmp_path / "old.pt").mkdir()
    for name in ("gpt2-v1.0", "model.v2", ".hidden", "old.pt"):
        save(random_model(TINY), tmp_path / name)
        assert load(tmp_path / name).config == TINY


@pytest.mark.parametrize(("format", "files"), [(None, HUGGING_FACE), ("openai", OPENAI)])
def test_save_leaves_other_files_alone(format, files, tmp_path):
    (tmp_path / "log.jsonl").write_text("{}")
    save(init(TINY), tmp_path, format)
    save(init(TINY, seed=1), tmp_path, format)
    assert sorted(os.listdir(tmp_path)) == sorted([*files, "log.jsonl"])


def test_failed_save_leaves_the_directory_unchanged(tmp_path):
    m = random_model(TINY)
    save(m, tmp_path, "huggingface")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert before.keys() == {"config.json", "model.safetensors"}
    large = random_model(Config(61, 11, 48, 6, 2))
    large.params.ln_f.g[0] = 70000
    with pytest.raises(GPTError, match=r"ln_f\.weight has values that overflow float16"):
        save(large, tmp_path, "huggingface", dtype="float16")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    save(large, tmp_path, "huggingface")
    assert load(tmp_path).config.n_head == 6


@pytest.mark.parametrize(("there", "other"), [("openai", "huggingface"), ("huggingface", "openai")])
def test_save_keeps_the_layout_of_a_directory_and_refuses_the_other(there, other, tmp_path):
    small, large = random_model(TINY), random_model(Config(61, 11, 48, 6, 2))
    save(small, tmp_path, there)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(
        GPTError, match=rf"has a checkpoint in .* layout: write .*\(format='{there}', --to {there}\) to replace"
    ):
        save(large, tmp_path, other)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    save(large, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == before.keys()
    assert load(tmp_path).config == large.config


@pytest.fixture
def both_layouts(tmp_path):
    """Return a directory with a checkpoint in each layout, which other programs can write"""
    save(random_model(TINY), tmp_path / "both", "openai")
    save(random_model(Config(61, 11, 48, 6, 2)), tmp_path / "other")
    for file in (tmp_path / "other").iterdir():
        shutil.copy(file, tmp_path / "both")
    return tmp_path / "both"


def test_load_of_a_directory_with_both_layouts_returns_openais(both_layouts):
    assert load(both_layouts).config == TINY


@pytest.mark.parametrize("format", [None, "openai", "huggingface"])
def test_save_to_a_directory_with_both_layouts_is_refused(format, both_layouts):
    before = {file.name: file.read_bytes() for file in both_layouts.iterdir()}
    with pytest.raises(
        GPTError, match=r"both has a checkpoint in OpenAI's layout and another in Hugging Face's, and only"
    ):
        save(init(TINY), both_layouts, format)
    assert {file.name: file.read_bytes() for file in both_layouts.iterdir()} == before


@pytest.mark.parametrize("arguments", [["info"], ["verify"], ["convert", "new"]])
def test_checkpoint_command_prints_which_of_both_layouts_it_reads(arguments, both_layouts, tmp_path):
    name, *destination = arguments
    command = [sys.executable, "-m", "numpy_gpt.checkpoint", name, both_layouts, *destination]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        f"checkpoint: {both_layouts} has checkpoints in OpenAI's and in Hugging Face's layout: OpenAI's is read.\n"
    )
    if destination:
        assert load(tmp_path / "new").config == TINY


@pytest.mark.parametrize("format", LAYOUTS)
def test_load_ignores_an_incomplete_stage(format, tmp_path):
    small, large = random_model(TINY), random_model(Config(61, 11, 48, 6, 2))
    save(small, tmp_path, format)
    for stage in (".saving", *(f"{layout.stage}.part" for layout in LAYOUTS.values())):
        (tmp_path / stage).mkdir()
        for name in ("hparams.json", "config.json"):
            (tmp_path / stage / name).write_text("{}")
    assert load(tmp_path).config == TINY
    save(large, tmp_path)
    assert load(tmp_path).config.n_head == 6


@pytest.mark.parametrize("format", LAYOUTS)
def test_load_reads_a_complete_stage_instead_of_the_directory(format, tmp_path):
    small, large = random_model(TINY), random_model(Config(61, 11, 48, 6, 2))
    save(large, tmp_path / LAYOUTS[format].stage, format)
    assert load(tmp_path).config == large.config  # the first save
    save(small, tmp_path / "other", format)
    for file in (tmp_path / "other").iterdir():
        shutil.copy(file, tmp_path)
    assert load(tmp_path).config == large.config
    save(load(tmp_path), tmp_path)
    assert not (tmp_path / LAYOUTS[format].stage).exists()
    assert load(tmp_path).config == large.config


@pytest.mark.parametrize("moved", range(4))
def test_load_of_a_directory_whose_save_by_the_old_version_was_killed(moved, tmp_path):
    # Version 0.1.0 pointed `checkpoint` to .saving while it moved files from there
    old, new = random_model(TINY), random_model(Config(61, 11, 48, 6, 2))
    save(old, tmp_path, "openai")
    save(new, tmp_path / ".saving", "openai")
    (tmp_path / ".saving" / "checkpoint").unlink()
    for name in OPENAI[1 : 1 + moved]:
        shutil.copy(tmp_path / ".saving" / name, tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: ".saving/model.ckpt"\n')
    np.testing.assert_array_equal(load(tmp_path).params.wte, new.params.wte)
    save(load(tmp_path), tmp_path)
    assert sorted(os.listdir(tmp_path)) == OPENAI
    np.testing.assert_array_equal(load(tmp_path).params.wte, new.params.wte)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "added_tokens.json"])
def test_save_refuses_a_config_that_belongs_to_no_checkpoint(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(GPTError, match=rf"has {name}, and no checkpoint that it belongs to: choose another"):
        save(random_model(TINY), tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}


def test_save_in_hugging_faces_layout_removes_the_stage_of_the_old_version(tmp_path):
    save(random_model(TINY), tmp_path)
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "hparams.json").write_text("{}")
    save(random_model(TINY), tmp_path)
    assert sorted(os.listdir(tmp_path)) == HUGGING_FACE


def test_save_removes_only_shards_that_the_index_lists(tmp_path):
    shard, other = "model-00001-of-00002.safetensors", "model-00001-of-00003.safetensors"
    save(random_model(TINY), tmp_path)
    for name in (shard, other, "notes.txt"):
        (tmp_path / name).write_text("x")
    places = {"wte": shard, "wpe": "notes.txt", "ln_f.g": "../model-00001-of-00001.safetensors", "ln_f.b": 7}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    save(random_model(TINY), tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*HUGGING_FACE, other, "notes.txt"])


KILL = """
import itertools, os, sys, warnings
from pathlib import Path
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from numpy_gpt import Config, GPTError, init, load, named, save

place = Path(sys.argv[1])
models = [init(Config(61, 11, 48, 3, 2)), init(Config(31, 7, 24, 2, 1, tied=False), seed=1)]
if place.suffix == ".bin":
    models[1] = init(Config(31, 7, 24, 2, 1), seed=1)

def same(a, b):
    pairs = zip(named(a.params), named(b.params))
    return a.config == b.config and all((x == y).all() for (_, x), (_, y) in pairs)

def save_until(event):
    seen = itertools.count()
    def hook(name, args):
        if name.startswith(("open", "os.", "shutil.", "fcntl.")) and next(seen) == event:
            os._exit(9)
    sys.addaudithook(hook)
    save(models[1], place, sys.argv[2])
    os._exit(0)

found, status = set(), 9
for event in itertools.count():
    save(models[0], place, sys.argv[2])
    assert same(load(place), models[0])
    child = os.fork()
    if not child:
        save_until(event)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    loaded = load(place)
    found.add(next(i for i, m in enumerate(models) if same(loaded, m)))
    if status == 0:
        break
    assert status == 9
save(models[0], place, sys.argv[2])
print(event, sorted(found), *sorted(file.name for file in (place if place.is_dir() else place.parent).iterdir()))
"""


FILES = {
    ("directory", "openai"): OPENAI,
    ("directory", "huggingface"): HUGGING_FACE,
    ("model.safetensors", "huggingface"): ["model.safetensors"],
    ("m.bin", "llmc-v3"): ["m.bin"],
}


@pytest.mark.parametrize(("place", "format"), FILES)
def test_save_killed_at_any_moment_leaves_the_old_or_the_new_checkpoint(place, format, tmp_path):
    """Kill a process at its first, second, third ... access to the file system"""
    run = subprocess.run([sys.executable, "-c", KILL, tmp_path / place, format], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    moments, old, new, *files = run.stdout.split()
    assert int(moments) > (20 if place == "directory" else 4)
    assert (old, new) == ("[0,", "1]")
    assert files == FILES[place, format]  # no incomplete file is left


SAVE = """
import os, random, sys, threading
from collections import Counter
from numpy_gpt import Config, init, load, save
from numpy_gpt.text import tokenizer

_, seed, place, format, *vocabularies = sys.argv
models = [init(Config(262, 5 + n_head, 6, n_head, 1), seed=n_head) for n_head in (3, 6)]  # of two sizes
models = [m._replace(tokenizer=tokenizer.load(path)) for m, path in zip(models, vocabularies)]
turns = {name: threading.Semaphore(0) for name in ("load", "save")}
draw, left, found = random.Random(int(seed)), 0, Counter()

def touch(event="stat", args=()):
    global left
    name = threading.current_thread().name
    if name in turns and event.startswith(("open", "os.", "stat")):
        left -= 1
        if left < 0:
            left = draw.choice((0, 1, 3, 10, 40))
            turns["save" if name == "load" else "load"].release()
            turns[name].acquire()

def stat(*args, of=os.stat, **kwargs):  # which no audit hook sees
    touch()
    return of(*args, **kwargs)

def save_for_ever():
    turns["save"].acquire()
    while True:
        for m in models:
            save(m, place, format)

def load_often():
    for _ in range(1000):
        m = load(place)
        found[m.config.n_head, float(m.params.wte[0, 0]), m.tokenizer and len(m.tokenizer.files[1])] += 1

save(models[0], place, format)
os.stat, os.fsync = stat, lambda file: None
sys.addaudithook(touch)
threading.Thread(target=save_for_ever, name="save", daemon=True).start()
loads = threading.Thread(target=load_often, name="load")
loads.start()
loads.join()
print(*(n_head for n_head, *_ in sorted(found)), sum(found.values()), flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", "36")
@pytest.mark.parametrize(("place", "format"), FILES)
def test_load_during_saves_returns_one_of_the_two(place, format, seed, tmp_path):
    """Switch threads at accesses to the file system, after seeded random numbers of them"""
    for name, text in (("a", "the cat and the hat"), ("b", "a dog in a bog with a log")):
        bpe.write(tmp_path / name, bpe.train([text], 262))
    arguments = [seed, tmp_path / place, format, tmp_path / "a", tmp_path / "b"]
    run = subprocess.run([sys.executable, "-c", SAVE, *arguments], capture_output=True, text=True, timeout=120)
    assert run.stdout == "3 6 1000\n", run.stderr


FULL = """
import resource, sys
from numpy_gpt import Config, GPTError, init, save
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(init(Config(61, 11, 48, 3, 2), seed=1), sys.argv[1])
except GPTError as e:
    print(e)
"""


@pytest.mark.parametrize(("place", "format"), PLACES)
def test_save_to_a_full_disk_raises_and_keeps_the_checkpoint(place, format, tmp_path):
    # A limit on the size of files makes a write fail halfway, as a full disk does
    place, m = tmp_path / place, random_model(TINY)
    save(m, place, format)
    run = subprocess.run([sys.executable, "-c", FULL, place], capture_output=True, text=True)
    there = "the previous file, if any," if place.suffix else "a checkpoint that was there"
    assert run.stdout == f"{place} can't be written: File too large; {there} is unchanged.\n", run.stderr
    np.testing.assert_array_equal(load(place).params.wte, m.params.wte)
    assert not [file for file in tmp_path.rglob("*") if ".part" in file.name or ".saving" in file.name]
