"""Are the default learning rates those that --help and docs/finetune.md state?"""

import pytest

from numpy_gpt import Config
from numpy_gpt.finetune.options import complete, resolve

STATED = {  # multiples of 0.116 / width
    ("classify", "all", 0): 1,
    ("classify", "2", 0): 2,
    ("classify", "last", 0): 2,
    ("classify", "head", 0): 4,
    ("classify", "all", 8): 4,
    ("classify", "last", 8): 4,
    ("instruct", "all", 0): 1,
    ("instruct", "last", 0): 2,
    ("instruct", "all", 8): 10,
}


@pytest.mark.parametrize("width", [232, 768])
@pytest.mark.parametrize(("task", "part", "lora"), STATED)
def test_default_learning_rate_depends_on_width_and_trained_part(task, part, lora, width):
    given = resolve(task, {"data": "rows.tsv", "train": part, "lora": lora})
    s = complete(given, task, Config(n_embd=width, n_head=2), texts=100)
    assert s.lr == pytest.approx(STATED[task, part, lora] * 0.116 / width)
    assert s.min_lr == pytest.approx(s.lr / 10)
