"""Does finetune classify train the parameters that its options name, and report the right figures?"""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from finetune_runs import BASE, finetuned, write_base, write_rows
from training_runs import log

from numpy_gpt import Noise, adamw, load, named
from numpy_gpt.checkpoint import adapter
from numpy_gpt.checkpoint import classifier as checkpoint
from numpy_gpt.checkpoint.layouts import LAYOUTS, TRAINING
from numpy_gpt.classifier import classifier, classifier_backward
from numpy_gpt.finetune import classification
from numpy_gpt.finetune.batches import padded, shuffled_batches
from numpy_gpt.finetune.split import split
from numpy_gpt.model import block
from numpy_gpt.ops import (
    cross_entropy,
    cross_entropy_backward,
    dropout,
    dropout_backward,
    embedding,
    embedding_backward,
)
from numpy_gpt.params import GPT2, Head, init, tree_map
from numpy_gpt.text import bpe

SHORT = ["--init-from", "base", "--data", "rows.tsv", "--batch-size", "8", "--epochs", "2"]
STEPS = 12  # 42 training texts in batches of 8, twice


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Work in a directory that contains a small model and a table of texts; return the rows of the table"""
    monkeypatch.chdir(tmp_path)
    write_base("base")
    return write_rows("rows.tsv")


def test_run_writes_a_classifier_its_log_and_two_charts(rows):
    out = finetuned("classify", *SHORT, "--out", "run")
    assert out.startswith("60 texts of 2 labels (fruit 30, tool 30): 42 to train on, 6 to validate, 12 to test\n")
    charts = {"loss.svg", "accuracy.svg"}
    files = {path.name for path in Path("run").iterdir()}
    assert files == {*LAYOUTS["huggingface"].files, *TRAINING, ".lock", "log.jsonl", *charts}
    entries = log("run")
    assert [entry["step"] for entry in entries] == [0, 6, 12]
    assert [entry["epoch"] for entry in entries] == [0, 1, 2]
    assert [entry["texts"] for entry in entries] == [0, 42, 84]
    assert abs(entries[0]["val_loss"] - np.log(2)) < 0.1
    for chart in charts:
        lines = ElementTree.parse(Path("run", chart)).getroot().findall("{http://www.w3.org/2000/svg}polyline")
        assert [len(line.get("points").split()) for line in lines] == [3, 3]


def predicted(texts):
    Path("texts.txt").write_text("\n".join(texts))
    return [line.split("\t")[0] for line in finetuned("predict", "run", "-f", "texts.txt").splitlines()]


@pytest.mark.parametrize("options", [[], ["--context", "4"], ["--seed", "5"]])
def test_reported_test_accuracy_equals_that_of_predict(rows, options):
    out = finetuned("classify", *SHORT, "--out", "run", *options)
    seed = 5 if "--seed" in options else 0
    test = split([label for label, _ in rows], seed).test
    right = [rows[i][0] == label for i, label in zip(test, predicted([rows[i][1] for i in test]), strict=True)]
    assert out.splitlines()[-1] == f"test accuracy {np.mean(right):.3f}"


def test_json_prints_one_object_alone(rows):
    out = finetuned("classify", *SHORT, "--out", "run", "--json")
    found = json.loads(out)
    assert out.count("\n") == 1
    text = finetuned("classify", *SHORT, "--out", "again")
    assert text.endswith(f"\ntest accuracy {found['test']['accuracy']:.3f}\n")
    assert sum(map(sum, found["test"]["confusion"])) == 12
    assert found["validation"]["labels"]["tool"]["support"] == 3


def test_logged_losses_are_those_of_the_saved_classifier(rows):
    finetuned("classify", *SHORT, "--out", "run")
    m = checkpoint.read(Path("run"))
    labels = [label for label, _ in rows]
    parts = split(labels, 0)
    for name, numbers in (("val", parts.val), ("train", parts.train[:6])):
        batch = arrays(rows, numbers)
        z = classification.predict(m.params, m.config, batch).astype(np.float64)
        loss = np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), batch[2]]
        assert np.isclose(log("run")[-1][f"{name}_loss"], loss.mean(), rtol=1e-5)
        assert log("run")[-1][f"{name}_accuracy"] == np.mean(z.argmax(-1) == batch[2])


def test_separable_texts_are_learned_to_an_accuracy_of_1(rows):
    out = finetuned("classify", *SHORT, "--out", "run", "--epochs", "8", "--lr", "0.01", "--dropout", "0")
    assert out.splitlines()[-1] == "test accuracy 1.000"
    assert log("run")[-1]["val_accuracy"] == 1


def arrays(rows, numbers):
    """Return the tokens, the last positions and the classes of rows; a byte is a token"""
    tokenizer = bpe.tokenizer([])
    ids = [tokenizer.encode(rows[i][1])[: BASE.n_ctx] for i in numbers]
    classes = np.array([["fruit", "tool"].index(rows[i][0]) for i in numbers])
    return padded(ids, tokenizer.eot), np.array([len(text) - 1 for text in ids]), classes


def step_by_hand(p, config, batch, noise, first):
    """Return the gradients of all parameters; the blocks before the first one have no dropout"""
    tokens, last, classes = batch
    emb, s_embedding = embedding(tokens, p.wte, p.wpe)
    x, s_dropout = dropout(emb, config.dropout, None if first else noise)
    for p_i in p.h[:first]:
        x, _ = block(x, p_i, config)
    z, saved = classifier(x, last, p.h[first:], p.ln_f, p.head, config, noise and noise.at(1 + 3 * first))
    _, s_cross_entropy = cross_entropy(z[:, None], classes[:, None])
    (dz,) = cross_entropy_backward(1.0, s_cross_entropy)
    dx, d_h, d_ln_f, d_head = classifier_backward(dz[:, 0], saved)
    dwte, dwpe = embedding_backward(dropout_backward(dx, s_dropout)[0], s_embedding)
    return GPT2(dwte, dwpe, [None] * first + d_h, d_ln_f, d_head)


def by_hand(rows, start, config, first):
    """Train as the command's help describes it, with the library's functions; change the parameters in place"""
    labels = [label for label, _ in rows]
    train = split(labels, 0).train
    lengths = np.array([len(rows[i][1]) for i in train])
    embeddings = (start.wte, start.wpe) if not first else (None, None)
    trained = GPT2(*embeddings, [None] * first + start.h[first:], start.ln_f, start.head)
    moments = adamw.moments(trained)
    for t in range(1, STEPS + 1):
        epoch, number = divmod(t - 1, STEPS // 2)
        batch = arrays(rows, train[shuffled_batches(lengths, 8, 0, epoch)[number]])
        grads = step_by_hand(start, config, batch, Noise(0, t) if config.dropout else None, first)
        if first:
            grads = grads._replace(wte=None, wpe=None)
        adamw.clip(grads, 1.0)
        rate = adamw.cosine(t - 1, STEPS, 1e-3, 1e-4, 0)
        adamw.step(trained, grads, moments, t, rate, beta1=0.9, beta2=0.99, weight_decay=0.1)


@pytest.mark.parametrize(("part", "first"), [("all", 0), ("last", 1)])
@pytest.mark.parametrize("rate", [0, 0.2])
def test_run_equals_a_loop_of_library_calls(rows, part, first, rate):
    finetuned("classify", *SHORT, "--out", "run", "--lr", "1e-3", "--dropout", rate, "--train", part)
    m = checkpoint.read(Path("run"))
    base = init(BASE, 3)
    head = 0.02 * np.random.default_rng([0, 2]).standard_normal((2, BASE.n_embd))
    start = base.params._replace(head=Head(head.astype(np.float32)))
    before = dict(named(tree_map(np.copy, start)))
    by_hand(rows, start, m.config, first)
    for (name, a), (_, b) in zip(named(m.params), named(start), strict=True):
        moved = np.linalg.norm(b - before[name])
        if not name.endswith("c_attn.b"):  # the gradient of the key bias is rounding noise
            assert np.linalg.norm(a - b) <= 1e-3 * moved, name  # threads add gradients in another order


def changed(run="run"):
    """Return the names of the parameters that differ from the base model's in a bit"""
    base = dict(named(load("base").params))
    return {
        name for name, a in named(checkpoint.read(Path(run)).params) if name != "head.w" and (a != base[name]).any()
    }


ALL = {name for name, _ in named(init(BASE).params)}
LAST = {name for name in ALL if name.startswith(("h.1.", "ln_f."))}
TWO = {name for name in ALL if name.startswith(("h.", "ln_f."))}


@pytest.mark.parametrize(("part", "names"), [("head", set()), ("last", LAST), ("1", LAST), ("2", TWO), ("all", ALL)])
def test_train_changes_exactly_the_named_part(rows, part, names):
    finetuned("classify", *SHORT, "--out", "run", "--train", part)
    assert changed() == names
    first = checkpoint.read(Path("run")).params.head.w
    finetuned("classify", "--resume", "--out", "run", "--epochs", "3")
    assert (checkpoint.read(Path("run")).params.head.w != first).all()


MATRICES = ("attn.c_attn.w", "attn.c_proj.w", "mlp.c_fc.w", "mlp.c_proj.w")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], {f"h.{i}.{name}" for i in range(2) for name in MATRICES}),
        (["--train", "last"], {f"h.1.{name}" for name in MATRICES}),
        (
            ["--lora-targets", "attn.c_attn", "mlp.c_fc", "--lora-alpha", "6"],
            {f"h.{i}.{name}" for i in range(2) for name in MATRICES[::2]},
        ),
    ],
)
def test_lora_run_saves_the_base_with_its_adapters_merged(rows, options, names):
    finetuned("classify", *SHORT, "--out", "run", "--lora", "3", *options, "--lr", "0.02")
    m, base = checkpoint.read(Path("run")), load("base")
    found = adapter.read(Path("run/adapter"), base.config)
    assert found.scale == (2 if "--lora-alpha" in options else 1)
    assert np.array_equal(found.head, m.params.head.w)
    assert changed() == names
    weights, before = dict(named(m.params)), dict(named(base.params))
    factors = dict(named(found.adapters, "h"))
    for name in names:
        matrix = name.removesuffix(".w")
        product = found.scale * factors[f"{matrix}.a"].astype(float) @ factors[f"{matrix}.b"]
        assert abs(product).max() > 1e-3
        assert np.allclose(weights[name], before[name] + product, rtol=0, atol=1e-6)  # float32
    finetuned("classify", "--resume", "--out", "run", "--epochs", "3")
    assert (checkpoint.read(Path("run")).params.head.w != m.params.head.w).all()


TOKENS = np.random.default_rng(0).integers(0, 257, (3, 120))


def logits(config, params, rows, last):
    return classification.predict(params, config, (np.array(rows), np.array(last)))


@pytest.mark.parametrize("pads", [1, 100])
@pytest.mark.parametrize("padding", [0, 256])
def test_logits_are_independent_of_padding_and_of_other_texts(pads, padding):
    """Compute in float64, in which matmuls of other shapes differ by 1e-15, so that no dependence can be hidden"""
    config = replace(BASE, n_ctx=128)
    m = init(config, 0)
    params = tree_map(lambda a: 10.0 * a.astype(np.float64), m.params._replace(head=Head(m.params.wte[:4])))
    text, long = TOKENS[0, :9], TOKENS[1, : 9 + pads]
    alone = logits(config, params, [text], [8])
    assert np.ptp(alone) > 0.1
    row = np.append(text, np.full(pads, padding))
    for rows, last, at in (
        ([row], [8], 0),
        ([row, long], [8, len(long) - 1], 0),
        ([long, TOKENS[2, : len(long)], row], [len(long) - 1, 3, 8], 2),
    ):
        assert np.allclose(logits(config, params, rows, last)[at], alone[0], rtol=0, atol=1e-12)
    assert not np.allclose(logits(config, params, [row], [9]), alone, rtol=0, atol=1e-3)


def test_batches_of_another_size_report_the_same_losses(rows):
    finetuned("classify", *SHORT, "--out", "a", "--epochs", "1", "--lr", "0", "--batch-size", "42")
    finetuned("classify", *SHORT, "--out", "b", "--epochs", "1", "--lr", "0", "--batch-size", "1")
    assert log("a")[-1]["val_loss"] == pytest.approx(log("b")[-1]["val_loss"], rel=1e-6)
    assert log("b")[-1]["step"] == 42
