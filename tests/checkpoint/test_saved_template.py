"""Does a checkpoint keep its template of instructions, and does no model get another model's?"""

import os
import subprocess
import sys

import pytest

from numpy_gpt import CheckpointError, GPTError, adamw, load, save
from numpy_gpt.checkpoint import read_checkpoint, save_with_template
from numpy_gpt.checkpoint.layouts import LAYOUTS
from numpy_gpt.text import template
from numpy_gpt.text.template import ALPACA, Template
from numpy_gpt.train import resume
from parity.inputs import TINY, random_model

OTHER = Template("{instruction}: é", "{instruction} {input}: ")


def command(*arguments):
    line = [sys.executable, "-m", "numpy_gpt.checkpoint", *arguments]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.mark.parametrize("format", LAYOUTS)
def test_saved_template_is_read_with_the_checkpoint(format, tmp_path):
    for written in (ALPACA, OTHER):
        save_with_template(random_model(TINY), tmp_path / "m", format, None, written)
        assert read_checkpoint(tmp_path / "m").template == written
        assert template.load(tmp_path / "m") == written


@pytest.mark.parametrize("format", LAYOUTS)
def test_save_of_a_model_removes_the_template_of_the_earlier_one(format, tmp_path):
    save_with_template(random_model(TINY), tmp_path, format, None, ALPACA)
    save(load(tmp_path), tmp_path)
    assert read_checkpoint(tmp_path).template is None
    assert template.FILE not in os.listdir(tmp_path)


@pytest.mark.parametrize("format", LAYOUTS)
def test_save_refuses_to_remove_a_template_json_that_belongs_to_no_checkpoint(format, tmp_path):
    (tmp_path / template.FILE).write_text("mine")
    for written in (None, ALPACA):
        with pytest.raises(GPTError, match=r"has template.json, and no checkpoint that it belongs to: choose another"):
            save_with_template(random_model(TINY), tmp_path, format, None, written)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {template.FILE: "mine"}


@pytest.mark.parametrize("format", LAYOUTS)
def test_template_of_a_complete_stage_is_read_instead_of_the_directorys(format, tmp_path):
    for newest, older in ((OTHER, ALPACA), (None, ALPACA), (OTHER, None)):
        place = tmp_path / f"{newest}"[:9] / f"{older}"[:9]
        save_with_template(random_model(TINY), place, format, None, older)
        save_with_template(random_model(TINY), place / LAYOUTS[format].stage, format, None, newest)
        assert read_checkpoint(place).template == newest


@pytest.mark.parametrize("format", LAYOUTS)
def test_training_run_stores_the_template(format, tmp_path):
    m = random_model(TINY)
    state = resume.State(m, adamw.moments(m.params), 7, {"settings": {}, "text": []})
    resume.save(tmp_path, state, format, template=OTHER)
    assert read_checkpoint(tmp_path).template == OTHER
    resume.save(tmp_path, state, format)
    assert read_checkpoint(tmp_path).template is None


@pytest.mark.parametrize("format", LAYOUTS)
def test_invalid_template_raises_checkpoint_error(format, tmp_path):
    save(random_model(TINY), tmp_path, format)
    (tmp_path / template.FILE).write_text("{}")
    with pytest.raises(CheckpointError, match=r"template.json lacks the key prompt: correct it, or remove it"):
        load(tmp_path)
    assert command("verify", tmp_path).returncode == 3


@pytest.mark.parametrize("source", LAYOUTS)
@pytest.mark.parametrize("destination", LAYOUTS)
def test_convert_between_directories_keeps_the_template(source, destination, tmp_path):
    save_with_template(random_model(TINY), tmp_path / "a", source, None, OTHER)
    done = command("convert", tmp_path / "a", tmp_path / "b", "--to", destination)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_checkpoint(tmp_path / "b").template == OTHER
    save(random_model(TINY), tmp_path / "plain")
    assert command("convert", tmp_path / "plain", tmp_path / "b", "--to", destination).returncode == 0
    assert template.load(tmp_path / "b") is None


@pytest.mark.parametrize("name", ["m.safetensors", "m.bin"])
def test_convert_to_a_file_reports_that_the_template_is_left_out(name, tmp_path):
    save_with_template(random_model(TINY), tmp_path / "a", None, None, OTHER)
    done = command("convert", tmp_path / "a", tmp_path / name)
    assert done.returncode == 0
    assert done.stderr == (
        f"checkpoint: {tmp_path / name} can't contain the template of instructions: it was left out.\n"
    )


@pytest.mark.parametrize("format", LAYOUTS)
def test_info_and_verify_show_the_template_in_one_line(format, tmp_path):
    save_with_template(random_model(TINY), tmp_path, format, None, ALPACA._replace(prompt="a\n{instruction} é"))
    assert 'template of instructions: "a\\n{instruction} é"' in command("info", tmp_path).stdout.splitlines()
    assert "a template of instructions" in command("verify", tmp_path).stdout.splitlines()
    save(load(tmp_path), tmp_path)
    assert "template" not in command("info", tmp_path).stdout + command("verify", tmp_path).stdout


KILL = """
import itertools, os, sys
from pathlib import Path
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from numpy_gpt import Config, init
from numpy_gpt.checkpoint import read_checkpoint, save_with_template
from numpy_gpt.text.template import ALPACA, Template

place, format = Path(sys.argv[1]), sys.argv[2]
states = {1: ALPACA, 2: None, 3: Template("{instruction}", "{instruction}{input}")}  # by the number of layers

def save(layers):
    save_with_template(init(Config(31, 7, 24, 2, layers)), place, format, None, states[layers])

def save_until(event, layers):
    seen = itertools.count()
    def hook(name, args):
        if name.startswith(("open", "os.", "shutil.", "fcntl.")) and next(seen) == event:
            os._exit(9)
    sys.addaudithook(hook)
    save(layers)
    os._exit(0)

for old, new in ((1, 2), (2, 1), (1, 3)):
    found, status = set(), 9
    for event in itertools.count():
        save(old)
        child = os.fork()
        if not child:
            save_until(event, new)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        contents = read_checkpoint(place)
        assert contents.template == states[contents.config.n_layer]
        found.add(contents.config.n_layer)
        if status == 0:
            break
    print(event > 20, *sorted(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", LAYOUTS)
def test_save_killed_at_any_moment_leaves_a_model_with_its_own_template(format, tmp_path):
    """Kill a process at its first, second, third ... access to the file system"""
    run = subprocess.run([sys.executable, "-c", KILL, tmp_path / "m", format], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["True 1 2", "True 1 2", "True 1 3"]
