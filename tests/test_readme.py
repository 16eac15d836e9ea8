"""Does README's Python do what README says?"""

import inspect
import re
from pathlib import Path

from numpy_gpt import ops

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_op_that_is_shown_is_the_op():
    _, forward, backward = BLOCKS[0].rstrip("\n").split("\n\n\n")
    assert forward == inspect.getsource(ops.layernorm).rstrip("\n")
    assert backward == inspect.getsource(ops.layernorm_backward).rstrip("\n")


def test_the_examples_run_one_after_the_other(monkeypatch, capsys, tmp_path):
    (tmp_path / "README.md").write_text(README)
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    assert len(BLOCKS) == 6
    exec(BLOCKS[0], {})
    for block in BLOCKS[1:]:
        exec(block, namespace)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("loss")]
    assert losses[0] > 5 > 3.5 > losses[-1]
