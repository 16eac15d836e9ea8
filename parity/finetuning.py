"""Make a tiny model, data to fine-tune it on, and command lines for the tests."""

import json
from pathlib import Path

import numpy as np

import numpy_gpt
from numpy_gpt import Config
from numpy_gpt.text import bpe

from .inputs import random_model

BYTES = Config(n_vocab=257, n_ctx=64, n_embd=16, n_head=2, n_layer=2)
WORDS = ["red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "sings", "here", "there", "now"]
TASKS = {
    "classify": ["classify", "--data", "texts.tsv"],
    "instruct": ["instruct", "--data", "instructions.json", "--template", "template.json", "--sample-every", "16"],
}
SHORT = ["--init-from", "base", "--batch-size", "5", "--epochs", "2", "--eval-every", "4", "--save-every", "9"]
SHORT += ["--lr", "1e-2"]


def write_files():
    """Write a model and data for both tasks to the working directory"""
    numpy_gpt.save(random_model(BYTES)._replace(tokenizer=bpe.tokenizer([])), "base")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 2 + i % 5)) for i in range(40)]
    Path("texts.tsv").write_text("".join(f"{'colour' if WORDS[0] in text else 'other'}\t{text}\n" for text in texts))
    entries = [{"instruction": text, "input": text[:3] * (i % 2), "output": text[:9]} for i, text in enumerate(texts)]
    Path("instructions.json").write_text(json.dumps(entries))
    Path("template.json").write_text(
        json.dumps({"prompt": "{instruction}:", "prompt_with_input": "{instruction} {input}:"})
    )


def base_in_float64():
    """Save the model again in float64, in which it is trained then"""
    numpy_gpt.save(numpy_gpt.load("base", dtype=np.float64), "base")
