"""Do the examples and links of README and docs/ work?"""

import math
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
]
PACKAGES = ("numpy_gpt", "torch_gpt", "parity")


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)


@pytest.fixture
def clean_folder(monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text((ROOT / "README.md").read_text())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("clean_folder")
def test_readme_example_trains_a_model(capsys):
    (block,) = python_blocks("README.md")
    exec(block, {})
    first, last = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines())
    of_each_byte_equally_often = math.log(len(set((ROOT / "README.md").read_bytes())))
    assert first > 5 > of_each_byte_equally_often > last


@pytest.mark.usefixtures("clean_folder")
def test_usage_examples_run_one_after_another():
    namespace: dict = {}
    blocks = python_blocks("docs/usage.md")
    for block in blocks:
        exec(block, namespace)
    assert len(blocks) == 5
    assert namespace["tensors"]["grad.act.h.1.attn.ctx"].shape == namespace["tensors"]["h.1.attn.ctx"].shape


def test_readme_has_fewer_than_1500_words():
    assert len((ROOT / "README.md").read_text().split()) < 1500


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", (ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_file_list_names_every_module():
    listed = (ROOT / "docs/files.md").read_text()
    names = {
        path.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith(("__", "test_", "conftest"))
    }
    assert sorted(name for name in names if name not in listed) == []
