"""Is a run's state restored exactly, and is there always a complete one on disk?"""

import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import CheckpointError, GPTError, adamw, load, named, save
from numpy_gpt.checkpoint.layouts import LAYOUTS, layout
from numpy_gpt.system import atomic
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


VARIANTS = {"as released": TINY, "no qkv bias": replace(TINY, qkv_bias=False), "untied": replace(TINY, tied=False)}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("format", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_load_after_save_is_bit_identical(tmp_path, dtype, format, variant):
    before = random_state(dtype=dtype, config=VARIANTS[variant])
    resume.save(tmp_path, before, format)
    assert layout(tmp_path) == format
    after = resume.load(tmp_path)
    assert_same(after, before)
    assert all(a.flags.owndata and a.flags.writeable for a in (x for tree in after.moments for _, x in named(tree)))
    m = load(tmp_path)
    assert dict(named(m.params))["h.1.mlp.c_fc.w"].tobytes() == before.m.params.h[1].mlp.c_fc.w.tobytes()


def test_safetensors_library_reads_the_moments(tmp_path, st):
    before = random_state()
    resume.save(tmp_path, before)
    found = st.load_file(tmp_path / "moments.safetensors")
    assert {name: a.tobytes() for name, a in found.items()} == {n: a.tobytes() for n, a in named(before.moments)}
    assert json.loads((tmp_path / "training.json").read_text()) == {"step": 7, **ABOUT}


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("format", LAYOUTS)
def test_save_killed_at_any_moment_leaves_the_old_or_the_new_state(format, tmp_path, monkeypatch):
    # Kill the process at each call that changes the directory
    old, new = random_state(0, 7), random_state(3, 8)
    calls, seen = 0, set()
    for last in range(100):
        directory = tmp_path / str(last)
        resume.save(directory, old, format)
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
            calls_of = [(atomic.os, name) for name in ("replace", "rename", "link", "unlink", "mkdir")]
            for module, name in [*calls_of, (shutil, "rmtree")]:
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
        resume.save(directory, new)  # the next save succeeds
        assert_same(resume.load(directory), new)
        assert not [path for path in directory.iterdir() if path.name.startswith(".")]
        assert layout(directory) == format
    assert seen == {7, 8}
    assert calls > 10


@pytest.mark.parametrize("format", LAYOUTS)
def test_save_to_a_full_disk_leaves_the_old_state(format, tmp_path, monkeypatch):
    old = random_state(0, 7)
    resume.save(tmp_path, old, format)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy_gpt.train.resume.safetensors.write", full)
    message = rf"{tmp_path} can't be written: No space left on device; a previous state is unchanged\."
    with pytest.raises(GPTError, match=message):
        resume.save(tmp_path, random_state(3, 8))
    assert_same(resume.load(tmp_path), old)


FILES = ("model.safetensors", "moments.safetensors", "m.bin")
PLACES = [("", "openai"), ("", "huggingface"), ("", None), *((file, None) for file in FILES)]


@pytest.mark.parametrize("run", LAYOUTS)
@pytest.mark.parametrize(("place", "format"), PLACES)
def test_save_to_a_training_runs_directory_is_refused(place, format, run, tmp_path):
    resume.save(tmp_path, random_state(), run)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(GPTError, match=r"is a training run's directory, .* choose another directory"):
        save(random_model(TINY, seed=5), tmp_path / place, format)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


STAGES = [".saving", *(layout.stage for layout in LAYOUTS.values())]  # the first is that of 0.1.0


@pytest.mark.parametrize("stage", STAGES)
def test_save_to_a_run_whose_first_save_was_killed_is_refused(stage, tmp_path):
    resume.save(tmp_path / "run", random_state(), "huggingface" if "huggingface" in stage else "openai")
    (tmp_path / "run").rename(tmp_path / stage)
    with pytest.raises(GPTError, match="is a training run's directory"):
        save(random_model(TINY, seed=5), tmp_path)
    assert (tmp_path / stage / "moments.safetensors").exists()
    if stage != ".saving":
        assert resume.load(tmp_path).step == 7


def test_load_of_a_run_whose_save_by_the_old_version_was_killed(tmp_path):
    # Version 0.1.0 pointed `checkpoint` to .saving while it moved files from there
    old, new = random_state(0, 7), random_state(3, 8)
    resume.save(tmp_path, old, "openai")
    resume.save(tmp_path / ".saving", new, "openai")
    (tmp_path / ".saving" / "checkpoint").unlink()
    assert_same(resume.load(tmp_path), old)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: ".saving/model.ckpt"\n')
    shutil.copy(tmp_path / ".saving" / "training.json", tmp_path)
    assert_same(resume.load(tmp_path), new)
    resume.save(tmp_path, new)
    assert layout(tmp_path) == "openai"
    assert not (tmp_path / ".saving").exists()
    assert_same(resume.load(tmp_path), new)


def test_save_to_a_directory_that_a_run_has_locked_is_refused(tmp_path):
    with locked_run(tmp_path), pytest.raises(GPTError, match="another run is writing to"):
        save(random_model(TINY), tmp_path)
    assert os.listdir(tmp_path) == [".lock"]
    save(random_model(TINY), tmp_path)  # the run ended without a checkpoint
    assert load(tmp_path).config == TINY


def test_load_refuses_files_of_different_states(tmp_path):
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
        with pytest.raises(CheckpointError, match="lacks the step, the settings or the text"):
            resume.load(tmp_path / "b")
