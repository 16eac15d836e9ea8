"""Do the pictures that compare both packages show the results of the packages?"""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

PICTURES = Path(__file__).parent.parent / "docs/pictures"
SVG = "{http://www.w3.org/2000/svg}"
ERRORS = r"<title>(\S+): NumPy (\S+), PyTorch (\S+)</title>"


def draw(tmp_path, picture, *options):
    to = tmp_path / f"{picture}.svg"
    command = [sys.executable, PICTURES / "make.py", picture, "--to", to, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done, to.read_text(encoding="utf-8") if to.exists() else ""


@pytest.mark.slow
def test_picture_of_errors_has_the_tensors_of_the_report_and_their_errors(tmp_path):
    """Accept half or twice the error of the picture, since another CPU rounds differently"""
    _, drawn = draw(tmp_path, "errors")
    of_today = re.findall(ERRORS, drawn)
    committed = re.findall(ERRORS, (PICTURES / "errors.svg").read_text(encoding="utf-8"))
    assert [name for name, *_ in of_today] == [name for name, *_ in committed]
    assert len(committed) == 94
    for (name, *now), (_, *before) in zip(of_today, committed, strict=True):
        if name not in ("loss", "grad.act.loss"):  # the rounding of a single number depends on chance
            for a, b in zip(map(float, now), map(float, before), strict=True):
                assert 0.5 < a / b < 2, name


@pytest.mark.slow
def test_picture_of_losses_trains_both_packages_and_overlays_their_losses(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Tom has {i} apples.\n" for i in range(250)))
    shape = ["--n-layer", "1", "--n-head", "1", "--n-embd", "8", "--context", "8", "--batch-size", "2"]
    done, drawn = draw(tmp_path, "losses", "--data", text, *shape, "--steps", "4", "--eval-every", "2")
    assert done.returncode == 0, done.stderr
    picture = ElementTree.fromstring(drawn)
    lines = [re.findall(r"[\d.]+,[\d.]+", path.get("d")) for path in picture.iter(SVG + "path")]
    training, validation = (line for line in lines if len(line) > 1)
    assert len(training) == len(validation) == 3
    _, *rings = [f"{ring.get('cx')},{ring.get('cy')}" for ring in picture.iter(SVG + "circle")]
    assert rings == training + validation  # at a tenth of a pixel
    (apart,) = re.findall(r"at most (\S+) apart", picture.findtext(SVG + "title"))
    assert float(apart) < 1e-5
    assert "fill: none" in drawn.split("prefers-color-scheme: dark")[1]  # lines, not areas


def test_picture_of_losses_refuses_logs_of_different_runs(tmp_path):
    logs = [tmp_path / "numpy.jsonl", tmp_path / "pytorch.jsonl"]
    for log, steps in zip(logs, ([0, 2], [0, 3]), strict=True):
        log.write_text("".join(json.dumps({"step": s, "train_loss": 5.0, "val_loss": 5.0}) + "\n" for s in steps))
    done, drawn = draw(tmp_path, "losses", "--logs", *logs)
    assert (done.returncode, drawn) == (1, "")
    assert "the two logs have different steps: give the logs of two runs" in done.stderr
