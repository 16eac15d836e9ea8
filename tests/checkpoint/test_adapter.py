"""Does read return the adapters that write wrote, and refuse every file that it would misread?"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from numpy_gpt import CheckpointError, GPTError, load, named, save
from numpy_gpt.checkpoint import adapter, adapter_config, safetensors
from numpy_gpt.checkpoint.adapter import LoraAdapters
from numpy_gpt.checkpoint.layouts import ADAPTER, ADAPTER_STAGE
from numpy_gpt.lora import TARGETS, new_adapters
from numpy_gpt.params import tree_map
from numpy_gpt.system.locks import WRITE_LOCK
from numpy_gpt.text.template import ALPACA
from parity.inputs import TINY, random_model

CONFIG, WEIGHTS = ADAPTER
FIRST = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"


def random_adapters(rank=3, targets=TARGETS, first=0, dtype=np.float32, config=TINY, seed=0, **fields):
    """Return adapters with no zeros"""
    rng = np.random.default_rng(seed)
    adapters = new_adapters(config, rank, targets, first)
    return LoraAdapters(tree_map(lambda a: rng.standard_normal(a.shape).astype(dtype), adapters), rank, 6.0, **fields)


@pytest.fixture
def written(tmp_path):
    """Return a directory with random adapters"""
    adapter.write(tmp_path / "adapter", random_adapters(base="some/model"), TINY)
    return tmp_path / "adapter"


def edit(directory, **keys):
    """Change keys of adapter_config.json"""
    text = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(text | keys))


def edit_tensors(directory, change, dtype=np.float32):
    """Replace the tensors by change(tensors), without checksums"""
    _, stored = safetensors.read(directory / WEIGHTS)
    tensors = change({name: np.array(s.array) for name, s in stored.items()})
    with open(directory / WEIGHTS, "wb") as f:
        safetensors.write(f, tensors, dtype, {"format": "pt"})


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def assert_same(a, b):
    """Compare two LoraAdapters bit by bit"""
    assert (a.rank, a.alpha, a.base) == (b.rank, b.alpha, b.base)
    for (name, x), (other, y) in zip(named((a.adapters, a.head)), named((b.adapters, b.head)), strict=True):
        assert name == other
        np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


CHOICES = {
    "all matrices": {},
    "one matrix": {"targets": ["mlp.c_proj"]},
    "the last block": {"first": 1},
    "rank 1": {"rank": 1},
    "float64": {"dtype": np.float64},
    "a classifier": {"head": np.random.default_rng(1).standard_normal((4, TINY.n_embd), np.float32)},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_read_returns_the_adapters_that_write_wrote(choice, tmp_path):
    lora = random_adapters(base="a model", **CHOICES[choice])
    adapter.write(tmp_path / "new" / "adapter", lora, TINY)
    assert sorted(os.listdir(tmp_path / "new" / "adapter")) == sorted(ADAPTER)
    assert_same(adapter.read(tmp_path / "new" / "adapter", TINY), lora)


def test_read_returns_contiguous_copies_in_memory(tmp_path):
    adapter.write(tmp_path, random_adapters(**CHOICES["a classifier"]), TINY)
    lora = adapter.read(tmp_path, TINY)
    assert all(a.flags.owndata and a.flags.c_contiguous for _, a in named((lora.adapters, lora.head)))


def test_read_description_needs_no_model(written):
    assert adapter.read_description(written) == (3, 6.0, "some/model")


def test_write_replaces_earlier_adapters_and_leaves_other_files_alone(written):
    (written / "README.md").write_text("mine")
    lora = random_adapters(2, ["attn.c_proj"], seed=1)
    adapter.write(written, lora, TINY)
    assert_same(adapter.read(written, TINY), lora)
    assert sorted(os.listdir(written)) == sorted([*ADAPTER, "README.md"])


@pytest.mark.parametrize(("alpha", "text"), [(6.0, "6"), (0.5, "0.5"), (np.float32(0.1), "0.10000000149011612")])
def test_alpha_is_written_as_it_is(alpha, text, tmp_path):
    adapter.write(tmp_path, random_adapters()._replace(alpha=alpha), TINY)
    assert f'"lora_alpha": {text},' in (tmp_path / CONFIG).read_text()
    assert adapter.read(tmp_path, TINY).alpha == alpha


def test_config_of_a_classifier_names_its_head(tmp_path):
    adapter.write(tmp_path, random_adapters(**CHOICES["a classifier"]), TINY)
    keys = json.loads((tmp_path / CONFIG).read_text())
    assert (keys["task_type"], keys["modules_to_save"]) == ("SEQ_CLS", ["score"])


def test_target_modules_select_each_matrix_if_the_blocks_differ():
    blocks = random_adapters().adapters
    blocks[0] = blocks[0]._replace(attn=blocks[0].attn._replace(c_proj=None))
    found = adapter_config.targets(blocks)
    assert found == {
        "target_modules": [f"h.{i}.{name}" for i in (0, 1) for name in TARGETS if (i, name) != (0, TARGETS[1])]
    }


def test_target_modules_are_short_if_the_adapted_blocks_are_alike():
    blocks = random_adapters(config=replace(TINY, n_layer=3), targets=TARGETS[:2]).adapters
    assert adapter_config.targets(blocks) == {"target_modules": [*TARGETS[:2]]}
    none = random_adapters(targets=()).adapters[0]
    found = adapter_config.targets([blocks[0], none, blocks[2]])
    assert found == {"target_modules": [*TARGETS[:2]], "layers_to_transform": [0, 2], "layers_pattern": "h"}


def test_read_with_rslora_returns_the_alpha_of_the_same_scale(written):
    edit(written, use_rslora=True, r=3, lora_alpha=6)
    assert adapter.read(written, TINY).scale == pytest.approx(6 / 3**0.5, rel=1e-15)


def test_read_ignores_dropout_target_modules_and_unknown_keys(written):
    expected = adapter.read(written, TINY)
    edit(written, lora_dropout=0.5, target_modules=".*attn.*", velora_config={"x": 1}, fan_in_fan_out=False, future=3)
    assert_same(adapter.read(written, TINY), expected)


def test_read_accepts_the_names_of_a_model_without_a_head(written):
    expected = adapter.read(written, TINY)
    edit_tensors(written, lambda t: {name.replace("transformer.", ""): a for name, a in t.items()})
    assert_same(adapter.read(written, TINY), expected)


KEYS = {
    "another method": ({"peft_type": "IA3"}, r"has peft_type 'IA3', and only LORA is supported: get"),
    "no method": ({"peft_type": None}, r"has peft_type None, and only"),
    "DoRA": ({"use_dora": True}, r"has use_dora True, which isn't supported: apply this adapter with PEFT"),
    "ranks": ({"rank_pattern": {"c_attn": 2}}, r"has rank_pattern \{'c_attn': 2\}, which isn't"),
    "alphas": ({"alpha_pattern": {"c_attn": 2}}, r"has alpha_pattern \{'c_attn': 2\}, which isn't"),
    "a bias in lora_B": ({"lora_bias": True}, r"has lora_bias True, which isn't"),
    "replication": ({"layer_replication": [[0, 2]]}, r"has layer_replication \[\[0, 2\]\], which isn't"),
    "aLoRA": ({"alora_invocation_tokens": [5]}, r"has alora_invocation_tokens \[5\], which isn't"),
    "biases": ({"bias": "all"}, r"has bias 'all', and trained biases aren't supported"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, r"has init_lora_weights 'pissa_niter_4', which changes the base"),
    "r 0": ({"r": 0}, r"has r 0: it must be a whole number of at least 1"),
    "r as text": ({"r": "3"}, r"has r '3': it must be a whole number"),
    "r true": ({"r": True}, r"has r True: it must be a whole number"),
    "another r": ({"r": 4}, rf"the tensor {FIRST} is \(3, 48\) and should be \(4, 48\) for r 4 and Config"),
    "alpha NaN": ({"lora_alpha": float("nan")}, r"has lora_alpha nan: it must be a number of at most 1e\+30"),
    "large alpha": ({"lora_alpha": 10**400}, r"has lora_alpha 1000+: it must be a number"),
    "alpha too large": ({"lora_alpha": 2e30}, r"has lora_alpha 2e\+30: it must be a number of at most 1e\+30"),
    "alpha null": ({"lora_alpha": None}, r"has lora_alpha None: it must be a number"),
    "rslora as text": ({"use_rslora": "false"}, r"has use_rslora 'false': it must be true or false"),
    "base": ({"base_model_name_or_path": 7}, r"has base_model_name_or_path 7: it must be a string or null"),
}


@pytest.mark.parametrize("case", KEYS)
def test_read_refuses_a_config_of_other_arithmetic(case, written):
    keys, message = KEYS[case]
    edit(written, **keys)
    with pytest.raises(CheckpointError, match=message):
        adapter.read(written, TINY)


def without(name):
    return lambda tensors: {other: a for other, a in tensors.items() if other != name}


def added(name, shape):
    return lambda tensors: tensors | {f"base_model.model.{name}": np.ones(shape, np.float32)}


TENSORS = {
    "one factor": (without(FIRST), rf"lacks the tensor {FIRST}: get the adapter again"),
    "no tensor": (lambda tensors: {}, r"has no adapter of a matrix of the model"),
    "an embedding": (
        added("transformer.wte.lora_embedding_A", (3, 61)),
        r"has the tensor \S*wte.lora_embedding_A, which",
    ),
    "a trained embedding": (added("transformer.wte.weight", (61, 48)), r"has the tensor \S*wte\.weight, which isn't"),
    "a bias": (
        added("transformer.h.0.attn.c_attn.lora_B.bias", (144,)),
        r"has the tensor \S*lora_B\.bias, which isn't",
    ),
    "too many blocks": (added("transformer.h.2.mlp.c_fc.lora_A.weight", (3, 48)), r"only attn\.c_attn.* 2 blocks can"),
    "two names": (added("h.0.attn.c_attn.lora_A.weight", (3, 48)), r"has a tensor twice, with and without a prefix"),
    "transposed": (lambda t: t | {FIRST: t[FIRST].T}, r"is \(48, 3\) and should be \(3, 48\) for r 3"),
    "a narrow head": (added("score.weight", (2, 47)), r"score\.weight is \(2, 47\) and should be \(2, 48\)"),
    "a head of one dimension": (added("score.weight", (2,)), r"score\.weight is \(2,\) and should be \(2, 48\)"),
    "NaN": (lambda t: t | {FIRST: t[FIRST] * np.nan}, rf"{FIRST} has a NaN or an infinity"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_read_refuses_tensors_that_are_not_the_adapters_of_the_model(case, written):
    change, message = TENSORS[case]
    edit_tensors(written, change)
    with pytest.raises(CheckpointError, match=message):
        adapter.read(written, TINY)


def test_read_refuses_integers(written):
    edit_tensors(written, lambda t: t, np.int32)
    with pytest.raises(CheckpointError, match="has dtype int32, and weights are floats"):
        adapter.read(written, TINY)


def test_read_for_a_model_of_another_width_names_the_tensor_and_both_shapes(written):
    with pytest.raises(CheckpointError, match=rf"{FIRST} is \(3, 48\) and should be \(3, 24\) .* give the model that"):
        adapter.read(written, replace(TINY, n_embd=24))


def test_read_refuses_a_changed_bit(written):
    content = bytearray((written / WEIGHTS).read_bytes())
    content[-10] ^= 1
    (written / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: the tensor \S+ is corrupt: its checksum is"):
        adapter.read(written, TINY)


def test_read_refuses_a_pickle_without_opening_it(written):
    os.rename(written / WEIGHTS, written / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"weights in adapter_model\.bin, a pickle, which can run code"):
        adapter.read(written, TINY)


@pytest.mark.parametrize("name", ADAPTER)
def test_read_names_a_missing_file(name, written):
    (written / name).unlink()
    with pytest.raises(CheckpointError, match=rf"adapter has no {name}: g"):
        adapter.read(written, TINY)


def test_read_of_another_path_asks_for_a_directory(written):
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors isn't a directory: give the directory"):
        adapter.read(written / WEIGHTS, TINY)
    for path in (written / "missing", Path("a\0b")):
        with pytest.raises(CheckpointError, match="doesn't exist: give the directory of a LoRA adapter"):
            adapter.read(path, TINY)


def test_read_prefers_a_complete_stage(written, tmp_path):
    new = random_adapters(seed=1)
    adapter.write(tmp_path / "new", new, TINY)
    os.rename(tmp_path / "new", written / ADAPTER_STAGE)
    assert_same(adapter.read(written, TINY), new)
    other = random_adapters(seed=2)
    adapter.write(written, other, TINY)
    assert_same(adapter.read(written, TINY), other)
    assert sorted(os.listdir(written)) == sorted(ADAPTER)


def test_template_is_read_again_and_removed_by_adapters_without_one(tmp_path):
    lora = random_adapters()
    for template in (ALPACA, None):
        adapter.write(tmp_path, lora._replace(template=template), TINY)
        assert adapter.read(tmp_path, TINY).template == template
    assert sorted(os.listdir(tmp_path)) == sorted(ADAPTER)


def test_write_refuses_the_directory_of_a_model_or_of_a_run(tmp_path):
    for format in ("huggingface", "openai"):
        save(random_model(TINY), tmp_path / format, format)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json").write_text("{}")
    for name, message in (("huggingface", "has a model"), ("openai", "has a model"), ("run", "is a training run's")):
        before = contents(tmp_path / name)
        with pytest.raises(GPTError, match=f"{name} {message}.*: choose another directory"):
            adapter.write(tmp_path / name, random_adapters(), TINY)
        assert contents(tmp_path / name) == before


@pytest.mark.parametrize("name", adapter.FILES)
def test_write_refuses_a_file_that_belongs_to_no_adapter(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(GPTError, match=rf"has {name}, and no adapter that it belongs to"):
        adapter.write(tmp_path, random_adapters(), TINY)
    assert contents(tmp_path) == {name: b"mine"}


def test_write_refuses_names_that_are_not_directories(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("a.safetensors", "is a file's suffix"),
        ("file", "it is a file"),
        ("file/a", "file is a file"),
    ):
        with pytest.raises(GPTError, match=message):
            adapter.write(tmp_path / name, random_adapters(), TINY)
    with pytest.raises(GPTError, match="can't be made a directory"):
        adapter.write(tmp_path / "a\0b", random_adapters(), TINY)
    assert os.listdir(tmp_path) == ["file"]


UNFIT = {
    "rank": ({"rank": 2}, r"h\.0\.attn\.c_attn\.a has the shape \(48, 3\), and rank 2 and Config.* need \(48, 2\)"),
    "rank 0": ({"rank": 0}, r"rank is 0: it must be a whole number"),
    "alpha": ({"alpha": float("inf")}, r"alpha is inf: it must be a number"),
    "blocks": ({"adapters": random_adapters().adapters[:1]}, r"adapters of 1 blocks, and the model has 2"),
    "none": ({"adapters": random_adapters(targets=()).adapters}, r"there is no adapter of a matrix"),
    "head": ({"head": np.ones((2, 3), np.float32)}, r"head has the shape \(2, 3\).* need \(2, 48\)"),
    "integers": ({"head": np.ones((2, 48), int)}, r"head isn't an array of floats"),
    "NaN": ({"head": np.full((2, 48), np.nan)}, r"head has an inf or a NaN"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_write_refuses_adapters_that_do_not_fit(case, tmp_path):
    fields, message = UNFIT[case]
    with pytest.raises(GPTError, match=message):
        adapter.write(tmp_path / "new", random_adapters()._replace(**fields), TINY)
    assert not any(tmp_path.iterdir())


FULL = """
import resource, sys
from pathlib import Path
from numpy_gpt import Config, GPTError
from numpy_gpt.checkpoint import adapter
from numpy_gpt.lora import new_adapters
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
config = Config(61, 11, 48, 3, 2)
try:
    adapter.write(Path(sys.argv[1]), adapter.LoraAdapters(new_adapters(config, 4), 4, 1.0), config)
except GPTError as e:
    print(e)
"""


def test_write_to_a_full_disk_raises_and_keeps_the_adapters(written, tmp_path):
    # A limit on the size of files makes a write fail halfway, as a full disk does
    before = contents(written)
    for place in (written, tmp_path / "new"):
        run = subprocess.run([sys.executable, "-c", FULL, place], capture_output=True, text=True)
        expected = f"{place} can't be written: File too large; an adapter that was there is unchanged.\n"
        assert run.stdout == expected, run.stderr
    assert contents(written) == before
    assert os.listdir(tmp_path) == ["adapter"]


def test_write_holds_the_lock_of_the_directory(written, monkeypatch):
    fill, held = adapter.fill, []

    def fill_locked(part, lora):
        with pytest.raises(Timeout):
            FileLock(written / WRITE_LOCK).acquire(timeout=0)
        held.append(part)
        fill(part, lora)

    monkeypatch.setattr(adapter, "fill", fill_locked)
    adapter.write(written, random_adapters(), TINY)
    assert held


READ = """
import itertools, os, sys
from pathlib import Path
from numpy_gpt import Config
from numpy_gpt.checkpoint.adapter import ADAPTER_STAGE, LoraAdapters, read, write
from numpy_gpt.lora import new_adapters

config, place, new = Config(61, 11, 12, 3, 2), Path(sys.argv[1]), Path(sys.argv[2])
left = None

def hook(name, args):
    global left
    if name in ("open", "os.rename") and left is not None:
        left -= 1
        if left < 0:
            left = None
            os.rename(new, place / ADAPTER_STAGE)

sys.addaudithook(hook)
found = []
for event in itertools.count():
    for path, rank in ((place, 1), (new, 2)):
        write(path, LoraAdapters(new_adapters(config, rank), rank, 1.0), config)
    left = event
    found.append(read(place, config).rank)
    if left is not None:
        break
print(*found)
"""


def test_read_during_a_replacement_returns_the_old_or_the_new_adapters(tmp_path):
    """Let new files become complete at the first, second ... file that read opens"""
    command = [sys.executable, "-c", READ, tmp_path / "adapter", tmp_path / "new"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    *replaced, last = run.stdout.split()
    assert len(replaced) >= 2
    assert (set(replaced), last) == ({"2"}, "1")


KILL = """
import itertools, os, sys
from pathlib import Path
from numpy_gpt import Config, named
from numpy_gpt.checkpoint.adapter import LoraAdapters, read, write
from numpy_gpt.lora import new_adapters

config, place = Config(61, 11, 12, 3, 2), Path(sys.argv[1])
both = [LoraAdapters(new_adapters(config, rank, seed=rank), rank, 1.0) for rank in (1, 2)]

def write_until(event):
    seen = itertools.count()
    def hook(name, args):
        if name.startswith(("open", "os.", "shutil.", "fcntl.")) and next(seen) == event:
            os._exit(9)
    sys.addaudithook(hook)
    write(place, both[1], config)
    os._exit(0)

found, status = set(), 9
for event in itertools.count():
    write(place, both[0], config)
    assert read(place, config).rank == 1
    child = os.fork()
    if not child:
        write_until(event)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lora = read(place, config)
    found.add(lora.rank)
    expected = dict(named(both[lora.rank - 1].adapters))
    assert all((a == expected[name]).all() for name, a in named(lora.adapters))
    if status == 0:
        break
    assert status == 9
print(event, sorted(found), sorted(os.listdir(place)))
"""


def test_write_killed_at_any_moment_leaves_the_old_or_the_new_adapters(tmp_path):
    """Kill a process at its first, second, third ... access to the file system"""
    run = subprocess.run([sys.executable, "-c", KILL, tmp_path / "adapter"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    moments, rest = run.stdout.split(maxsplit=1)
    assert int(moments) > 20
    assert rest == f"[1, 2] {sorted(ADAPTER)}\n"


def test_save_refuses_the_directory_of_an_adapter(written):
    before = contents(written)
    for format in (None, "openai"):
        with pytest.raises(GPTError, match="has a LoRA adapter, which transformers would apply to the model: choose"):
            save(random_model(TINY), written, format)
    assert contents(written) == before


def test_load_of_an_adapter_names_the_command_that_merges_it(written):
    with pytest.raises(
        CheckpointError, match=r"is a LoRA adapter without its model: merge both with python -m \S+ merge"
    ):
        load(written)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_merge_adds_the_scaled_product_of_the_factors(dtype):
    m, lora = random_model(TINY, dtype=dtype), random_adapters(targets=["attn.c_attn", "mlp.c_proj"], first=1)
    before = {name: a.copy() for name, a in named(m.params)}
    merged = dict(named(adapter.merge(m, lora).params))
    factors = {name: a.astype(np.float64) for name, a in named(lora.adapters, "h")}
    for name, w in named(m.params):
        np.testing.assert_array_equal(w, before[name])
        if name in ("h.1.attn.c_attn.w", "h.1.mlp.c_proj.w"):
            expected = w + 6 / 3 * np.einsum("ir,ro->io", factors[name[:-1] + "a"], factors[name[:-1] + "b"])
            # the sum of 3 products has 4 roundings of numbers below 100
            np.testing.assert_allclose(merged[name], expected, rtol=0, atol=400 * np.finfo(dtype).eps)
            assert merged[name].dtype == dtype
        else:
            assert merged[name] is w


def test_merge_of_large_values_raises():
    lora = random_adapters()._replace(alpha=1e30)
    large = lora._replace(adapters=tree_map(lambda a: a * np.float32(1e10), lora.adapters))
    with pytest.raises(
        GPTError, match=r"h\.0\.attn\.c_attn\.w has an inf or a NaN after merging.* too large for float32"
    ):
        adapter.merge(random_model(TINY), large)


def test_merge_refuses_adapters_of_another_model():
    with pytest.raises(GPTError, match=r"h\.0\.attn\.c_attn\.a has the shape \(24, 3\), and rank 3 and .*\(48, 3\)"):
        adapter.merge(random_model(TINY), random_adapters(config=replace(TINY, n_embd=24)))
