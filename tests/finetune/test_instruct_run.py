"""Does finetune instruct train on the responses alone, with the template and the parameters that its options name?"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_runs import BASE, failed, finetuned
from instruction_runs import (
    BYTES,
    ENTRIES,
    RUN,
    SHORT,
    held_out,
    response_losses,
    tokens,
    trained_on,
    write_base,
    write_files,
)
from training_runs import log

from numpy_gpt import adamw, complete, load, named, save
from numpy_gpt.checkpoint import adapter, read_checkpoint
from numpy_gpt.finetune import instruction
from numpy_gpt.finetune.batches import shuffled_batches
from numpy_gpt.finetune.options import FinetuneOptions
from numpy_gpt.finetune.step import Trainer
from numpy_gpt.finetune.trainable import select
from numpy_gpt.masked_loss import masked_cross_entropy, masked_cross_entropy_backward
from numpy_gpt.model import gpt2, gpt2_backward
from numpy_gpt.params import tree_map
from numpy_gpt.text.template import ALPACA

STEPS = 4  # 6 entries to train on in batches of 3, twice
TWICE = [*RUN, "--epochs", "2"]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Work in a directory that contains a small model, a template and instructions"""
    monkeypatch.chdir(tmp_path)
    write_files()


def instruct(*args):
    return finetuned("instruct", *args)


def answer(m, entry):
    """Return the greedy answer of a model up to <|endoftext|>"""
    prompt, _ = tokens(entry)
    return BYTES.decode(complete(m, prompt, 30, temperature=0, stop=[BYTES.eot]))


def test_instructions_are_learned_by_heart_and_answers_end():
    rarely = ["--eval-every", "1000", "--save-every", "1000", "--sample-every", "0"]
    instruct(*RUN, "--epochs", "120", "--lr", "0.02", *rarely, "--out", "run")
    m = load("run")
    assert [answer(m, entry) for entry in trained_on()] == [entry["output"] for entry in trained_on()]
    entry = next(entry for entry in trained_on() if "input" not in entry)
    command = [sys.executable, "-m", "numpy_gpt.generate", "--model", "run", "--temperature", "0", "--json"]
    done = subprocess.run([*command, "--instruct", entry["instruction"]], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert (found["text"], found["finish_reason"]) == (entry["output"], "eot")


def test_template_is_alpacas_or_that_of_the_option_or_of_the_model():
    write_base("long", replace(BASE, n_ctx=256))
    short = ["--data", "data.json", "--epochs", "1", "--sample-every", "0"]
    instruct(*short, "--init-from", "long", "--out", "alpaca")
    assert read_checkpoint(Path("alpaca")).template == ALPACA
    instruct(*short, "--init-from", "long", "--template", "short.json", "--out", "option")
    instruct(*short, "--init-from", "option", "--out", "model")
    assert read_checkpoint(Path("option")).template == read_checkpoint(Path("model")).template == SHORT
    other = {"prompt": "{instruction}: ", "prompt_with_input": "{instruction} {input}: "}
    Path("other.json").write_text(json.dumps(other))
    instruct(*short, "--init-from", "option", "--template", "other.json", "--out", "both")
    assert read_checkpoint(Path("both")).template._asdict() == other


def test_template_around_the_prompts_decides_the_examples():
    losses = []
    for prompt in ("{instruction}=", "{instruction}: "):
        Path("short.json").write_text(json.dumps({"prompt": prompt, "prompt_with_input": prompt + "{input}"}))
        instruct(*RUN, "--epochs", "1", "--out", prompt[-1])
        losses.append(log(prompt[-1])[0]["val_loss"])
    assert losses[0] != losses[1]


def test_samples_are_greedy_answers_to_entries_that_are_held_out():
    Path("data.json").write_text(json.dumps([{"instruction": f"i{n}", "output": f"o{n}"} for n in range(30)]))
    out = instruct(*TWICE, "--batch-size", "9", "--sample-every", "1", "--out", "run")
    samples = re.findall(r"^--- step (\d)\n(i\d+=.*)\n---\n", out, re.MULTILINE)
    assert [step for step, _ in samples] == list("123456")
    order = np.random.default_rng(0).permutation(30)[:3]
    assert [text.split("=")[0] for _, text in samples] == [f"i{n}" for n in (*order, *order)]
    m = load("run")
    ids = complete(m, BYTES.encode(f"i{order[2]}="), 128, temperature=0, stop=[BYTES.eot])
    text = "".join(c if c.isprintable() else "\ufffd" for c in BYTES.decode(ids))
    assert samples[-1][1] == f"i{order[2]}={text}".strip()


def test_sample_every_0_prints_no_sample():
    assert "--- step" not in instruct(*TWICE, "--sample-every", "0", "--out", "run")


def test_run_writes_a_checkpoint_a_log_and_a_chart():
    out = instruct(*TWICE, "--out", "run")
    first = '6 examples to train on, 1 held out\ntemplate "{instruction}="\nstep      0  epoch  0.00  train '
    assert out.startswith(first)
    entries = log("run")
    assert [entry["step"] for entry in entries] == [0, 2, 4]
    assert [entry["epoch"] for entry in entries] == [0, 1, 2]
    assert [entry["examples"] for entry in entries] == [0, 6, 12]
    for entry in entries:
        assert abs(np.log(entry["val_perplexity"]) - entry["val_loss"]) < 1e-12
    assert Path("run", "loss.svg").read_text().startswith("<svg")
    assert load("run").tokenizer.vocabulary == BYTES.vocabulary


def test_logged_losses_are_the_means_over_the_responses_and_endoftext():
    Path("data.json").write_text(json.dumps(ENTRIES * 4))  # two are held out, of different lengths
    instruct(*TWICE, "--out", "run")
    order = np.random.default_rng(0).permutation(28)
    for name, numbers in (("val_loss", order[:2]), ("train_loss", order[2:4])):
        entries = [(ENTRIES * 4)[i] for i in numbers]
        for path, line in (("base", log("run")[0]), ("run", log("run")[-1])):
            expected = np.concatenate([response_losses(load(path), entry) for entry in entries]).mean()
            assert abs(line[name] - expected) < 1e-5, (name, path)


def batch(entries, pads=0):
    """Return the tokens, targets and mask of entries, with more columns of padding than necessary"""
    rows = [tokens(entry) for entry in entries]
    T = max(len(prompt) + len(response) for prompt, response in rows) + pads
    ids, mask = np.full((len(rows), T), 7), np.zeros((len(rows), T), bool)
    for i, (prompt, response) in enumerate(rows):
        ids[i, : len(prompt) + len(response)] = prompt + response
        mask[i, len(prompt) : len(prompt) + len(response)] = True
    return ids[:, :-1], ids[:, 1:], mask[:, 1:]


def loss_and_grads(arrays):
    m = load("base", dtype=np.float64)
    loss, grads = instruction.loss_and_grads(m.params, m.config, None, arrays)
    return loss, dict(named(grads))


def test_targets_outside_the_mask_change_nothing():
    x, y, mask = batch(ENTRIES)
    loss, grads = loss_and_grads((x, y, mask))
    again, same = loss_and_grads((x, np.where(mask, y, 3), mask))
    assert again == loss
    assert all((same[name] == grads[name]).all() for name in grads)
    changed, _ = loss_and_grads((x, np.where(mask, 3, y), mask))
    assert changed != loss


@pytest.mark.parametrize("pads", [1, 10])
def test_padding_changes_neither_loss_nor_gradients(pads):
    loss, grads = loss_and_grads(batch(ENTRIES))
    padded, found = loss_and_grads(batch(ENTRIES, pads))
    assert abs(padded - loss) < 1e-12
    for name in grads:
        np.testing.assert_allclose(found[name], grads[name], rtol=0, atol=1e-12, err_msg=name)


def test_run_of_any_batch_size_evaluates_alike():
    Path("data.json").write_text(json.dumps(ENTRIES * 8))  # five are held out
    found = []
    for size in ("1", "2", "100"):
        instruct(*RUN, "--batch-size", size, "--epochs", "1", "--out", size)
        found.append([log(size)[0][name] for name in ("train_loss", "val_loss")])
    np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-6)


def by_hand(steps):
    """Train with the library's functions as the options of TWICE describe a run"""
    m = load("base")
    params, moments = tree_map(np.array, m.params), adamw.moments(m.params)
    entries = trained_on()
    lengths = np.array([sum(map(len, tokens(entry))) for entry in entries])
    for t in range(1, steps + 1):
        numbers = shuffled_batches(lengths, 3, 0, (t - 1) // 2)[(t - 1) % 2]
        x, y, mask = batch([entries[i] for i in numbers])
        logits, s_gpt2 = gpt2(x, params, m.config)
        _, s_loss = masked_cross_entropy(logits, y, mask)
        grads = gpt2_backward(*masked_cross_entropy_backward(1.0, s_loss), s_gpt2)
        adamw.clip(grads, 1.0)
        rate = adamw.cosine(t - 1, STEPS, 1e-2, 1e-3, warmup=0)
        adamw.step(params, grads, moments, t, rate, beta1=0.9, beta2=0.99, weight_decay=0.1)
    return params


def test_run_equals_a_loop_of_library_calls():
    instruct(*TWICE, "--lr", "0.01", "--out", "run")
    start, found = dict(named(load("base").params)), dict(named(load("run").params))
    for name, expected in named(by_hand(STEPS)):
        moved = np.linalg.norm(expected - start[name])
        assert moved > 0, name
        if not name.endswith("c_attn.b"):  # the gradient of the key bias is rounding noise
            assert np.linalg.norm(found[name] - expected) < 1e-3 * moved, name


def test_step_is_that_of_the_mean_over_the_targets_of_all_batches():
    x, y, mask = batch(ENTRIES)
    assert mask[:2].sum() / 2 != mask[2:].sum() / 5
    parts = [(0, (x[:2], y[:2], mask[:2])), (2, (x[2:], y[2:], mask[2:]))]
    found = []
    for batches in ([(0, (x, y, mask))], parts):
        m = load("base", dtype=np.float64)
        model = select(tree_map(np.array, m.params), None)
        trainer = Trainer(instruction.OBJECTIVE, model, m.config, adamw.moments(model.trained), FinetuneOptions())
        found.append((trainer.step(1, 1e-2, batches), dict(named(model.params))))
    (loss, expected), (other, params) = found
    assert abs(loss - other) < 1e-12
    for name in expected:
        if not name.endswith("c_attn.b"):  # the gradient of the key bias is rounding noise
            np.testing.assert_allclose(params[name], expected[name], rtol=0, atol=1e-8, err_msg=name)


def changed(a, b="base"):
    """Return the names of the parameters that differ between two models"""
    other = dict(named(load(b).params))
    return {name for name, p in named(load(a).params) if (p != other[name]).any()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("part", "first"), [("all", 0), ("last", 1), ("1", 1), ("2", 0)])
def test_train_changes_exactly_the_named_part(part, first, tied):
    write_base("base", replace(BASE, tied=tied))
    instruct(*TWICE, "--train", part, "--out", "run")
    names = {name for name, _ in named(load("base").params)}
    trained = {name for name in names if not name.startswith("w") and not name.startswith("h.0")}
    trained |= {name for name in names if first == 0 and name.startswith("h.0")}
    assert changed("run") == (names if part == "all" else trained)


@pytest.mark.parametrize("options", [[], ["--lora-alpha", "8"], ["--train", "last", "--lora-targets", "attn.c_proj"]])
@pytest.mark.parametrize("tied", [True, False])
def test_lora_saves_the_base_with_its_adapters_merged(options, tied):
    write_base("base", replace(BASE, tied=tied))
    instruct(*TWICE, "--lora", "2", *options, "--out", "run")
    base = load("base")
    lora = adapter.read(Path("run/adapter"), base.config)
    assert lora.scale == (4 if "--lora-alpha" in options else 1)
    assert all(a.any() for _, a in named(lora.adapters, "h"))
    merged, found = dict(named(adapter.merge(base, lora).params)), load("run")
    assert all(p.tobytes() == merged[name].tobytes() for name, p in named(found.params))
    matrices = {name for name, p in named(base.params) if re.fullmatch(r"h\.\d\..*\.w", name)}
    assert changed("run") == ({"h.1.attn.c_proj.w"} if "--train" in options else matrices)
    assert found.config == base.config
    finetuned("merge", "run/adapter", "--out", "merged")
    assert not changed("run", "merged")
    finetuned("merge", "run/adapter", "--model", "base", "--out", "again")
    assert not changed("run", "again")


def test_adapters_name_a_released_model_as_peft_finds_it(monkeypatch):
    monkeypatch.setenv("GPT2_MODELS", "models")
    write_base("models/gpt2")
    instruct(*RUN[2:], "--init-from", "124M", "--lora", "1", "--epochs", "1", "--out", "run")
    assert json.loads(Path("run/adapter/adapter_config.json").read_text())["base_model_name_or_path"] == (
        "openai-community/gpt2"
    )
    finetuned("merge", "run/adapter", "--out", "merged")
    assert not changed("run", "merged")


def test_float64_model_is_trained_and_saved_in_float64():
    save(load("base", dtype=np.float64), "double")
    for options in ([], ["--lora", "2"]):
        out = f"run{len(options)}"
        instruct(*RUN[2:], "--init-from", "double", "--epochs", "1", *options, "--out", out)
        assert load(out).params.wte.dtype == np.float64
        assert changed(out, "double")


@pytest.mark.parametrize(("options", "rate"), [([], 0.116 / 16), (["--lora", "1"], 1.16 / 16)])
def test_default_learning_rate_depends_on_the_width_and_on_adapters(options, rate):
    instruct(*RUN, "--epochs", "1", *options, "--out", "run")
    assert abs(json.loads(Path("run/training.json").read_text())["settings"]["lr"] - rate) < 1e-12


def test_dropout_changes_the_run():
    for rate in ("0", "0.2"):
        instruct(*TWICE, "--dropout", rate, "--out", rate)
    assert log("0")[0]["val_loss"] == log("0.2")[0]["val_loss"]
    assert log("0")[-1]["val_loss"] != log("0.2")[-1]["val_loss"]


def test_context_cuts_responses_and_leaves_out_longer_prompts():
    out = instruct(*RUN, "--context", "6", "--epochs", "1", "--out", "run")
    fits = [entry for entry in ENTRIES if len(tokens(entry)[0]) <= 6]
    left_out = len(ENTRIES) - len(fits)
    assert f" 1 held out ({left_out} left out: their prompts fill the context)" in out.splitlines()[0]
    entry = fits[np.random.default_rng(0).permutation(len(fits))[0]]
    prompt, response = tokens(entry)
    kept = 6 + 1 - len(prompt)  # the target of the last position is the token after it
    assert kept < len(response)
    assert abs(log("run")[0]["val_loss"] - response_losses(load("base"), entry)[:kept].mean()) < 1e-5


def test_held_out_entry_has_no_influence_on_the_weights():
    instruct(*TWICE, "--out", "run")
    (other,) = held_out()
    Path("data.json").write_text(
        json.dumps([{**entry, "output": "no"} if entry == other else entry for entry in ENTRIES])
    )
    instruct(*TWICE, "--out", "again")
    assert not changed("run", "again")
    assert log("run")[0]["val_loss"] != log("again")[0]["val_loss"]


def test_train_head_is_refused():
    assert failed("instruct", *RUN, "--train", "head", "--out", "run") == (
        2,
        "python -m numpy_gpt.finetune instruct: error: --train head isn't a part of a model: choose all, last, or a "
        "number of last blocks.",
    )
    assert not Path("run").exists()
