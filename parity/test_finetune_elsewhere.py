"""Do transformers and PEFT read the results of fine-tuning, and take the same steps?"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2ForSequenceClassification,
    pipeline,
)

import numpy_gpt
from numpy_gpt import adamw, named
from numpy_gpt.finetune import classification, instruction
from numpy_gpt.finetune.options import FinetuneOptions
from numpy_gpt.finetune.step import Trainer
from numpy_gpt.finetune.trainable import select, with_adapters
from numpy_gpt.params import Head

from .compare import FLOAT64, error
from .finetuning import SHORT, TASKS, base_in_float64
from .inputs import TINY, random_adapters, random_batch, random_model
from .test_elsewhere import hugging_face
from .test_peft import adapted_by_peft

pytestmark = [
    pytest.mark.usefixtures("finetuning_directory"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT reads it
]
LINES = ["red cat runs", "now there", "blue bird " * 20, "d", "sleeps here sings"]  # one is longer than the context
LORA = ["--lora", "3", "--lora-alpha", "6"]
modes = pytest.mark.parametrize("mode", [[], ["--train", "last"], LORA], ids=["all", "last block", "adapters"])


def train(finetune, task, *options):
    """Train in float64"""
    base_in_float64()
    assert finetune("numpy_gpt", *TASKS[task], *SHORT, *options, "--out", "run")[0] == 0


def predictions(finetune):
    """Return what predict prints about LINES"""
    Path("lines.txt").write_text("\n".join(LINES))
    _, out, _ = finetune("numpy_gpt", "predict", "run", "-f", "lines.txt", "--json")
    return [json.loads(line) for line in out.splitlines()]


@modes
def test_transformers_classifies_padded_texts_as_predict_does(mode, finetune):
    train(finetune, "classify", *mode)
    model = AutoModelForSequenceClassification.from_pretrained("run").eval()
    assert (type(model), model.dtype) == (GPT2ForSequenceClassification, torch.float64)
    tokenizer = AutoTokenizer.from_pretrained("run")
    batch = tokenizer(LINES, padding=True, truncation=True, return_tensors="pt")
    assert batch["attention_mask"].sum(1).tolist() == [12, 9, 64, 1, 17]
    with torch.no_grad():
        found = model(**batch).logits.softmax(-1).numpy()
    expected = predictions(finetune)
    assert list(model.config.id2label.values()) == list(expected[0]["probabilities"]) == ["colour", "other"]
    np.testing.assert_allclose(found, [list(e["probabilities"].values()) for e in expected], rtol=1e-9)


def test_pipeline_of_transformers_gives_the_labels_of_predict(finetune):
    train(finetune, "classify")
    classify = pipeline("text-classification", model="run", device="cpu")
    found = classify(LINES, truncation=True, batch_size=3)
    for theirs, ours in zip(found, predictions(finetune), strict=True):
        assert theirs["label"] == ours["label"]
        assert math.isclose(theirs["score"], ours["probability"], rel_tol=1e-6)


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("mode", [[], LORA], ids=["all", "adapters"])
def test_transformers_answers_with_the_stored_template_as_generate_does(mode, finetune):
    train(finetune, "instruct", *mode)
    m = numpy_gpt.load("run")
    model, tokenizer = AutoModelForCausalLM.from_pretrained("run"), AutoTokenizer.from_pretrained("run")
    assert model.dtype == torch.float64
    chat = [{"role": "user", "content": "red cat"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert ids == m.tokenizer.encode("red cat:")
    ours = numpy_gpt.forward(m, [ids])[0]
    assert error("logits", {"logits": logits_of(model, ids)}, {"logits": ours}) <= FLOAT64
    theirs = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, pad_token_id=m.tokenizer.eot)
    answer = numpy_gpt.complete(m, ids, max_new_tokens=20, temperature=0, stop=[m.tokenizer.eot])
    assert theirs[0, len(ids) :].tolist()[: len(answer)] == answer


KINDS = {
    "classify": (AutoModelForSequenceClassification, {"num_labels": 2}),
    "instruct": (AutoModelForCausalLM, {}),
}


@pytest.mark.slow  # CI runs the slow tests with the extra ci, to which PEFT belongs
@pytest.mark.parametrize("task", TASKS)
def test_peft_computes_the_logits_of_the_run_from_its_adapters(task, finetune):
    peft = pytest.importorskip("peft", reason="PEFT isn't installed: pip install -e '.[ci]'")
    train(finetune, task, *LORA)
    kind, options = KINDS[task]
    plain, merged = kind.from_pretrained("base", **options), kind.from_pretrained("run")
    ids = list(b"red cat runs")
    before = logits_of(plain, ids)
    found = logits_of(peft.PeftModel.from_pretrained(plain, "run/adapter"), ids)
    expected = logits_of(merged, ids)
    assert error("logits", {"logits": found}, {"logits": expected}) <= FLOAT64
    assert np.linalg.norm(before - expected) > 0.01 * np.linalg.norm(expected)


SETTINGS = FinetuneOptions(clip=0.3)
RATE = 1e-2


def assert_same_steps(trainer, batches, their_loss, theirs, transposed=False):
    """Compare steps of a trainer with steps of torch.optim.AdamW on the parameters theirs, by our names

    The parameters of theirs can be transposed.
    """
    start = {name: np.copy(a) for name, a in named(trainer.model.trained)}
    matrices = [p for p in theirs.values() if p.ndim == 2]
    vectors = [p for p in theirs.values() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": SETTINGS.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = SETTINGS.beta1, SETTINGS.beta2
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=betas, eps=SETTINGS.eps)
    for t, batch in enumerate(batches, 1):
        optimiser.zero_grad()
        loss = their_loss(*map(torch.from_numpy, batch))
        loss.backward()
        clip(theirs.values(), SETTINGS.clip)
        optimiser.step()
        assert math.isclose(trainer.step(t, RATE, [(0, batch)]), float(loss.detach()), rel_tol=1e-9)
    trained = dict(named(trainer.model.trained))
    assert trained.keys() == theirs.keys()
    for name, p in theirs.items():
        expected = (p.T if transposed else p).detach().numpy()
        assert (expected != start[name]).any(), name
        np.testing.assert_allclose(trained[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)


def clip(parameters, max_norm):
    """Scale the gradients as one vector; torch.nn.utils.clip_grad_norm_ would divide by the norm + 1e-6"""
    grads = [p.grad for p in parameters]
    norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
    assert norm > max_norm
    for g in grads:
        g *= max_norm / norm


@pytest.mark.parametrize("first", [None, 1, 2], ids=["all", "last block", "head"])
def test_steps_of_a_classifier_are_those_of_transformers_and_torch_optim(first):
    pad, m = TINY.n_vocab - 1, random_model(TINY, dtype=np.float64)
    m = m._replace(params=m.params._replace(head=Head(np.copy(m.params.wte[:3]))))
    model, theirs = hugging_face(m, "eager", GPT2ForSequenceClassification, num_labels=3, pad_token_id=pad)
    trainable = select(m.params, first)
    trainer = Trainer(classification.OBJECTIVE, trainable, TINY, adamw.moments(trainable.trained), SETTINGS)

    def batch(seed):
        tokens, last = np.random.default_rng(seed).integers(0, pad, (4, 9)), np.array([8, 3, 0, 5])
        tokens[np.arange(9) > last[:, None]] = pad
        return tokens, last, (np.arange(4) + seed) % 3

    def loss(tokens, last, classes):
        return model(tokens, attention_mask=tokens != pad, labels=classes).loss

    trained = {name for name, _ in named(trainable.trained)}
    assert_same_steps(trainer, map(batch, range(3)), loss, {n: p for n, p in theirs.items() if n in trained})


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1], ids=["all blocks", "last block"])
def test_steps_of_adapters_on_responses_are_those_of_peft_and_torch_optim(first):
    m, rank, alpha = random_model(TINY, dtype=np.float64), 3, 5
    adapters = random_adapters(TINY, rank, dtype=np.float64, first=first)
    model, theirs = adapted_by_peft(m, rank, alpha, first=first)
    theirs = {f"h.{name}": p for name, p in theirs.items()}
    with torch.no_grad():
        for name, a in named(adapters, "h"):
            theirs[name].copy_(torch.from_numpy(a.T))
    trainable = with_adapters(m.params, first, adapters, alpha / rank, None)
    trainer = Trainer(instruction.OBJECTIVE, trainable, TINY, adamw.moments(trainable.trained), SETTINGS)

    def batch(seed):
        tokens, targets = random_batch(TINY, B=3, T=9, seed=seed)
        return tokens, targets, np.arange(9) >= np.array([[2], [5], [8]])

    def loss(tokens, targets, mask):
        return torch.nn.functional.cross_entropy(model(input_ids=tokens).logits[mask], targets[mask])

    assert_same_steps(trainer, map(batch, range(3)), loss, theirs, transposed=True)
