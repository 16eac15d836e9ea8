"""Does save leave the old checkpoint or the new one, and load take one of the two, whatever happens?"""

import os
import subprocess
import sys

import numpy as np
import pytest

from numpy_gpt import Config, GPTError, init, load, save
from numpy_gpt.checkpoint import huggingface
from numpy_gpt.text import bpe
from parity.inputs import TINY, random_model

PLACES = ["directory", "model.safetensors", "m.bin"]
OPENAI = ["checkpoint", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"]


def test_a_model_can_be_saved_over_the_file_it_is_mapped_from(tmp_path):
    for place in PLACES:
        m = random_model(TINY)
        save(m, tmp_path / place)
        loaded = load(tmp_path / place)
        loaded.params.wte[0, 0] += 1
        save(loaded, tmp_path / place)
        again = load(tmp_path / place)
        assert again.params.wte[0, 0] == m.params.wte[0, 0] + 1
        np.testing.assert_array_equal(again.params.ln_f.g, m.params.ln_f.g)


@pytest.mark.parametrize("format", [None, "openai", "huggingface"])
@pytest.mark.parametrize("name", ["m.pt", "m.PTH", "m.ckpt", "m.npz", "m.gguf", "m.json", "m.BIN", "m.Safetensors"])
def test_save_to_a_directory_with_the_suffix_of_a_file_is_refused(name, format, tmp_path):
    with pytest.raises(GPTError, match=f"{name} can't be a checkpoint's directory because .* is a file's suffix"):
        save(random_model(TINY), tmp_path / name, format)
    assert not any(tmp_path.iterdir())


def test_save_to_a_directory_with_a_dot_in_its_name(tmp_path):
    (tmp_path / "old.pt").mkdir()
    for name in ("gpt2-v1.0", "model.v2", ".hidden", "old.pt"):
        save(random_model(TINY), tmp_path / name)
        assert load(tmp_path / name).config == TINY


def test_other_files_of_the_directory_are_left_alone(tmp_path):
    (tmp_path / "log.jsonl").write_text("{}")
    save(init(TINY), tmp_path)
    save(init(TINY, seed=1), tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*OPENAI, "log.jsonl"])


def test_a_hugging_face_directory_is_replaced_whole_or_not_at_all(tmp_path):
    m = random_model(TINY)
    save(m, tmp_path, "huggingface")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert before.keys() == {"config.json", "model.safetensors"}
    large = random_model(Config(61, 11, 48, 6, 2))
    large.params.ln_f.g[0] = 70000
    with pytest.raises(GPTError, match=r"ln_f\.weight has values that are too large for float16"):
        save(large, tmp_path, "huggingface", dtype="float16")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    save(large, tmp_path, "huggingface")
    assert load(tmp_path).config.n_head == 6
    save(m, tmp_path / "other")
    with pytest.raises(GPTError, match="has a checkpoint in OpenAI's layout, which load would take"):
        save(large, tmp_path / "other", "huggingface")
    assert sorted(os.listdir(tmp_path / "other")) == OPENAI


def test_what_is_left_of_a_save_in_the_other_layout_is_not_read(tmp_path):
    one, other = random_model(TINY), random_model(Config(61, 11, 48, 6, 2))
    save(one, tmp_path, "huggingface")
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "hparams.json").write_text("{}")
    assert load(tmp_path).config == TINY
    save(other, tmp_path, "huggingface")
    assert load(tmp_path).config.n_head == 6


def test_a_first_save_counts_as_soon_as_its_stage_has_its_name(tmp_path):
    save(random_model(TINY), tmp_path / huggingface.STAGE, "huggingface")
    assert load(tmp_path).config == TINY


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
    ("directory", "huggingface"): ["config.json", "model.safetensors"],
    ("model.safetensors", "huggingface"): ["model.safetensors"],
    ("m.bin", "llmc-v3"): ["m.bin"],
}


@pytest.mark.parametrize(("place", "format"), FILES)
def test_killed_at_any_moment_the_old_or_the_new_checkpoint_is_there(place, format, tmp_path):
    """A process is ended at its first, second, third ... touch of the file system, as kill -9 would"""
    run = subprocess.run([sys.executable, "-c", KILL, tmp_path / place, format], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    moments, old, new, *files = run.stdout.split()
    assert int(moments) > (20 if place == "directory" else 4)
    assert (old, new) == ("[0,", "1]")
    assert files == FILES[place, format]  # what was left half-done is gone


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


@pytest.mark.parametrize("seed", "36")
@pytest.mark.parametrize(("place", "format"), FILES)
def test_loading_while_another_saves_gives_one_of_the_two(place, format, seed, tmp_path):
    """At each touch of the file system the other may go on, for as long as a seeded draw says"""
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


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_gets_a_sentence_and_costs_nothing(place, tmp_path):
    """the limit on a file's size stands for it: a write fails half-way"""
    place, m = tmp_path / place, random_model(TINY)
    save(m, place)
    run = subprocess.run([sys.executable, "-c", FULL, place], capture_output=True, text=True)
    assert "can't be written: File too large; what was there before still is." in run.stdout, run.stderr
    np.testing.assert_array_equal(load(place).params.wte, m.params.wte)
    assert not [file for file in tmp_path.rglob("*") if ".part" in file.name or ".saving" in file.name]
