"""Are the pictures of README.md those that their commands draw from the current code and figures?"""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def draw(tmp_path, picture, *options):
    to = tmp_path / f"{picture}.svg"
    command = [sys.executable, DOCS / "pictures/make.py", picture, "--to", to, *options]
    subprocess.run(command, check=True, capture_output=True)
    return to.read_text(encoding="utf-8")


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(SVG + "text")]


@pytest.mark.parametrize("picture", ["layernorm", "block"])
def test_picture_of_code_equals_what_its_command_draws(picture, tmp_path):
    assert draw(tmp_path, picture) == (DOCS / f"pictures/{picture}.svg").read_text(encoding="utf-8")


def test_picture_of_block_lists_the_tensors_that_backward_reads(tmp_path):
    words = texts(draw(tmp_path, "block"))
    boxes = ["ln_1", "c_attn", "attention", "c_proj", "ln_2", "c_fc", "gelu", "c_proj"]
    assert [word for word in words if word in boxes and word != "gelu"] == [
        *("ln_1", "c_attn", "attention", "attention", "c_proj"),  # the box attention is of the op attention
        *("ln_2", "c_fc", "c_proj"),
    ]
    assert [b for a, b in pairwise(words) if a == "q"] == ["(B,H,T,D)"]
    assert [b for a, b in pairwise(words) if a == "t"] == ["(B,T,4C)"]
    assert "saved for the backward: 20 C + H T + 2 numbers a token" in words


def test_speed_bars_are_as_long_as_the_rates_in_the_file(tmp_path):
    def seconds(**medians):
        return {name: {"median": s, "min": s / 2, "max": 2 * s} for name, s in medians.items()}

    figures = {
        "machine": {"cpu": "A & B", "cores": 2},
        "decode": {"tokens": 32, "seconds": seconds(NumPy=1.0, picoGPT=4.0)},
        "train": {"tokens": 256, "batch": [4, 64], "seconds": seconds(NumPy=2.0)},
    }
    (tmp_path / "speed.json").write_text(json.dumps(figures))
    svg = draw(tmp_path, "speed", "--json", tmp_path / "speed.json")
    bars = [bar for bar in ElementTree.fromstring(svg).iter(SVG + "rect") if bar.get("class") != "paper"]
    numpy, pico, _ = (float(bar.get("width")) for bar in bars)
    assert numpy == pytest.approx(4 * pico, abs=0.1)
    words = texts(svg)
    assert words[0] == "GPT-2 124M in float32 on A & B, 2 cores"
    assert words[words.index("picoGPT") - 1 : words.index("picoGPT") + 2] == ["32", "picoGPT", "8.0"]
    assert "128" in words


def test_picture_of_speed_equals_what_its_command_draws(tmp_path):
    assert draw(tmp_path, "speed") == (DOCS / "pictures/speed.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_picture_is_small_valid_and_adapts_to_dark_mode(path):
    content = path.read_text(encoding="utf-8")
    assert ElementTree.fromstring(content).tag == SVG + "svg"
    assert len(content.encode()) < 40_000
    assert "prefers-color-scheme: dark" in content
    assert content.count("http") == 1  # of the namespace: nothing is loaded


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_links_in_pictures_lead_to_files(path):
    for link in ElementTree.fromstring(path.read_text(encoding="utf-8")).iter(SVG + "a"):
        assert (path.parent / link.get("href")).is_file()
