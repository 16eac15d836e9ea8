"""Does a run come back as it was, and is there always one that is whole?"""

import errno
import json
import os
import shutil

import numpy as np
import pytest

from numpy_gpt import CheckpointError, GPTError, adamw, load, named, save
from numpy_gpt.checkpoint import openai
from numpy_gpt.system.locks import locked_run
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model

ABOUT = {"settings": {"lr": 0.001}, "text": ["a", "b"]}


def random_state(seed=0, step=7, dtype=np.float32, config=TINY):
    m, *moments = (random_model(config, seed=seed + i, dtype=dtype) for i in range(3))
    return resume.State(m, adamw.Moments(*(moment.params for moment in moments)), step, ABOUT)


def assert_same(a, b):
    assert (a.m.config, a.step, a.about) == (b.m.config, b.step, b.about)
    for ours, theirs in zip((a.m.params, *a.moments), (b.m.params, *b.moments), strict=True):
        for (name, x), (_, y) in zip(named(ours), named(theirs), strict=True):
            assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes()), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_state_comes_back_bit_by_bit(tmp_path, dtype):
    before = random_state(dtype=dtype)
    resume.save(tmp_path, before)
    after = resume.load(tmp_path)
    assert_same(after, before)
    assert all(a.flags.owndata and a.flags.writeable for a in (x for tree in after.moments for _, x in named(tree)))
    m = load(tmp_path)  # a checkpoint like any other
    assert dict(named(m.params))["h.1.mlp.c_fc.w"].tobytes() == before.m.params.h[1].mlp.c_fc.w.tobytes()


def test_the_moments_are_plain_arrays_that_others_read(tmp_path, st):
    before = random_state()
    resume.save(tmp_path, before)
    found = st.load_file(tmp_path / "moments.safetensors")
    assert {name: a.tobytes() for name, a in found.items()} == {n: a.tobytes() for n, a in named(before.moments)}
    assert json.loads((tmp_path / "training.json").read_text()) == {"step": 7, **ABOUT}


class Killed(BaseException):
    pass


def test_killed_at_any_moment_the_old_state_or_the_new_one_is_there(tmp_path, monkeypatch):
    """Every call that changes the directory is the last one once"""
    old, new = random_state(0, 7), random_state(3, 8)
    calls, seen = 0, set()
    for last in range(100):
        directory = tmp_path / str(last)
        resume.save(directory, old)
        calls = 0

        def counted(f, last=last):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > last:
                    raise Killed
                return f(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            calls_of = [(openai.os, name) for name in ("replace", "link", "unlink", "mkdir")]
            for module, name in [*calls_of, (openai.shutil, "rmtree")]:
                patch.setattr(module, name, counted(getattr(module, name)))
            try:
                resume.save(directory, new)
            except Killed:
                pass
            else:
                break
        found = resume.load(directory)
        assert_same(found, old if found.step == 7 else new)
        seen.add(found.step)
        resume.save(directory, new)  # and nothing is in the way of the next
        assert_same(resume.load(directory), new)
        assert not [path for path in directory.iterdir() if path.name.startswith(".")]
    assert seen == {7, 8}
    assert calls > 10


def test_a_full_disk_leaves_the_old_state(tmp_path, monkeypatch):
    old = random_state(0, 7)
    resume.save(tmp_path, old)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy_gpt.train.resume.safetensors.write", full)
    with pytest.raises(GPTError, match=r"moments.safetensors can't be written: No space left on device; what was"):
        resume.save(tmp_path, random_state(3, 8))
    assert_same(resume.load(tmp_path), old)


FILES = ("model.safetensors", "moments.safetensors", "m.bin")
PLACES = [("", "openai"), ("", "huggingface"), *((file, None) for file in FILES)]


@pytest.mark.parametrize(("place", "format"), PLACES)
def test_save_into_a_training_runs_directory_is_refused(place, format, tmp_path):
    resume.save(tmp_path, random_state())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(GPTError, match=r"is a training run's directory, .* choose another directory"):
        save(random_model(TINY, seed=5), tmp_path / place, format)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_save_into_a_run_whose_first_save_was_killed_is_refused(tmp_path):
    resume.save(tmp_path / "run", random_state())
    (tmp_path / "run").rename(tmp_path / ".saving")  # where state.save leaves a checkpoint that it has just completed
    with pytest.raises(GPTError, match="is a training run's directory"):
        save(random_model(TINY, seed=5), tmp_path)
    assert (tmp_path / ".saving" / "moments.safetensors").exists()


def test_save_into_a_directory_that_a_run_has_locked_is_refused(tmp_path):
    with locked_run(tmp_path), pytest.raises(GPTError, match="another run is writing to"):
        save(random_model(TINY), tmp_path)
    assert os.listdir(tmp_path) == [".lock"]
    save(random_model(TINY), tmp_path)  # the run has ended without a checkpoint
    assert load(tmp_path).config == TINY


def test_what_does_not_fit_together_is_named(tmp_path):
    resume.save(tmp_path / "a", random_state(step=7))
    resume.save(tmp_path / "b", random_state(step=9))
    shutil.copy(tmp_path / "b" / "moments.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"moments.safetensors is of step 9, and training.json of step 7"):
        resume.load(tmp_path / "a")
    resume.save(tmp_path / "c", random_state(step=7, dtype=np.float64))
    shutil.copy(tmp_path / "c" / "moments.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"has no tensor m.wte of the shape \(61, 48\) in float32"):
        resume.load(tmp_path / "a")
    for step in ('"7"', "-1", "true", "null"):
        (tmp_path / "b" / "training.json").write_text(f'{{"step": {step}}}')
        with pytest.raises(CheckpointError, match="doesn't say which step"):
            resume.load(tmp_path / "b")
