"""Make the models and instructions of small runs of finetune instruct."""

import json
from pathlib import Path

import numpy as np
from finetune_runs import BASE

from numpy_gpt import forward, init, save
from numpy_gpt.finetune.instructions import split
from numpy_gpt.text import bpe
from numpy_gpt.text.template import Template

BYTES = bpe.tokenizer([])  # a token for each byte, and <|endoftext|>
SHORT = Template("{instruction}=", "{instruction}+{input}=")
COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "coal": "black", "snow": "white", "sun": "yellow"}
ENTRIES = [{"instruction": thing, "output": colour} for thing, colour in COLOURS.items()]
ENTRIES += [{"instruction": "mix", "input": "blue, red", "output": "violet"}]
RUN = ["--init-from", "base", "--data", "data.json", "--template", "short.json", "--batch-size", "3"]


def write_files(config=BASE):
    """Write a small model with random weights, a template and a file of instructions to the working directory"""
    write_base("base", config)
    Path("short.json").write_text(json.dumps(SHORT._asdict()))
    Path("data.json").write_text(json.dumps(ENTRIES))


def write_base(path, config=BASE):
    save(init(config, 3)._replace(tokenizer=BYTES), path)


def held_out(seed=0):
    """Return the entries that are held out"""
    return [ENTRIES[i] for i in split(len(ENTRIES), seed)[1]]


def trained_on(seed=0):
    return [ENTRIES[i] for i in split(len(ENTRIES), seed)[0]]


def tokens(entry):
    """Return the tokens of a prompt, and those of its response with <|endoftext|>"""
    given = entry.get("input", "")
    prompt = f"{entry['instruction']}+{given}=" if given else f"{entry['instruction']}="
    return BYTES.encode(prompt), [*BYTES.encode(entry["output"]), BYTES.eot]


def response_losses(m, entry):
    """Return the losses of a response's tokens and of <|endoftext|>, in float64"""
    prompt, response = tokens(entry)
    logits = forward(m, np.array([[*prompt, *response[:-1]]]))[0, len(prompt) - 1 :].astype(np.float64)
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(response)), response]
