"""Test that lm-evaluation-harness, through the server, gets the scores that the library computes itself."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from serving import ONCE, M

from numpy_gpt import complete, complete_batch, forward
from numpy_gpt.evaluate.lambada import lambada
from numpy_gpt.evaluate.scoring import scorer
from numpy_gpt.evaluate.wikitext2 import wikitext2
from numpy_gpt.generate.sampling import likeliest

EOT = M.tokenizer.eot
STORY = M.tokenizer.decode(complete(M, M.tokenizer.encode(ONCE), 250, temperature=0, stop=[EOT]))
END = STORY.rindex(" ", 0, -1)
DOCS = [
    {"context": "Once upon a time, there was a little", "choices": [" girl named", " dragon", " stone"], "label": 0},
    {"context": "Tom and Lily were best", "choices": [" friends", " sand"], "label": 1},
    {"context": "The dog said: “", "choices": ["é is \U0001f60a", "I am sad.", " "], "label": 0},
    {"context": ONCE + STORY[:END], "choices": [STORY[END:], " dog"], "label": 0},  # <|endoftext|> follows
]
TASKS = {
    "choose": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    },
    "write": {
        "output_type": "generate_until",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": [".", "\n"], "max_gen_toks": 20, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    },
    "score": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{context}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    },
    "lambada": {
        "dataset": "passages.jsonl",
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' ' + text.split(' ')[-1]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity", "aggregation": "perplexity"}],
    },
    "words": {
        "dataset": "pages.jsonl",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "!function wikitext.wikitext_detokenizer",
        "process_results": "!function wikitext.process_results",
        "metric_list": [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    },
}
PROMPTS = [M.tokenizer.encode(text) for text in (ONCE, "Tom and Lily", "One day,", "She said") * 5]
PASSAGES = [
    text[: text.rindex(" ")]
    for prompt, new in zip(PROMPTS, complete_batch(M, PROMPTS, 60, temperature=0.7, seed=5, stop=[EOT]), strict=True)
    for text in [M.tokenizer.decode([*prompt, *new])]
]
PAGES = [f" = {text[:9]} = \n \n {text} . \n" for text in PASSAGES]
FILES = {
    "docs.jsonl": DOCS,
    "passages.jsonl": [{"text": text} for text in PASSAGES],
    "pages.jsonl": [{"page": page} for page in PAGES],
}


@pytest.fixture
def evaluated(server, tmp_path):
    """Run the harness; return its results, the responses to each document of a task, and the directory of the data"""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness isn't installed: pip install -e '.[ci]'")
    for name, docs in FILES.items():
        (tmp_path / name).write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tmp_path / "wikitext.py").write_text("from lm_eval.tasks.wikitext.preprocess_wikitext import *\n")
    for name, task in TASKS.items():
        task = {"dataset": "docs.jsonl", **task}
        files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": task.pop("dataset")}}}
        yaml = json.dumps({"task": name, "test_split": "test"} | files | task)  # JSON is YAML
        (tmp_path / f"{name}.yaml").write_text(re.sub(r'"(!function [^"]*)"', r"\1", yaml))
    arguments = f"model=storyteller,base_url={server.url}/v1/completions,max_length={M.config.n_ctx}"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
    command += ["--tasks", ",".join(TASKS), "--include_path", ".", "--batch_size", "4"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "--output_path", "out", "--log_samples"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (results,) = tmp_path.glob("out/*/results_*.json")
    return json.loads(results.read_text())["results"], {name: responses(tmp_path, name) for name in TASKS}, tmp_path


def responses(directory, task):
    (path,) = directory.glob(f"out/*/samples_{task}_*.jsonl")
    samples = sorted(map(json.loads, path.read_text().splitlines()), key=lambda sample: sample["doc_id"])
    return [sample["resps"] for sample in samples]


def logprob(context, continuation):
    """Return the log-probability of ids after others, and whether each is the best one"""
    z = forward(M, np.array([[*context, *continuation]]))[0, len(context) - 1 : -1]
    scores = [(likeliest(row, 1), token) for row, token in zip(z, continuation, strict=True)]
    return sum(logprobs[token] for (_, logprobs), token in scores), all(best[0] == token for (best, _), token in scores)


def split(context, continuation):
    """Return both as ids, as the harness does: it tokenizes the context alone and the whole"""
    ids = M.tokenizer.encode(context)
    return ids, M.tokenizer.encode(context + continuation)[len(ids) :]


@pytest.mark.slow
def test_harness_gets_the_scores_of_the_library(evaluated, monkeypatch):
    results, found, directory = evaluated
    right = 0
    for doc, choices in zip(DOCS, found["choose"], strict=True):
        expected = [logprob(*split(doc["context"], choice)) for choice in doc["choices"]]
        for ((value, greedy),), (logprob_, greedy_) in zip(choices, expected, strict=True):
            assert float(value) == pytest.approx(logprob_, abs=1e-4)
            assert greedy == str(greedy_)
        right += int(np.argmax([value for value, _ in expected])) == doc["label"]
    assert results["choose"]["acc,none"] == right / len(DOCS)
    assert 0 < right < len(DOCS)

    for doc, [[text]] in zip(DOCS, found["write"], strict=True):
        ids = M.tokenizer.encode(doc["context"])[-(M.config.n_ctx - 1 - 20) :]
        expected = M.tokenizer.decode(complete(M, ids, 20, temperature=0, stop=[EOT]))
        assert text == expected.split(".")[0].split("\n")[0]

    total = sum(logprob([EOT], M.tokenizer.encode(doc["context"]))[0] for doc in DOCS)
    size = sum(len(doc["context"].encode()) for doc in DOCS)
    assert results["score"]["byte_perplexity,none"] == pytest.approx(np.exp(-total / size), rel=1e-5)

    ours = lambada(M, directory / "passages.jsonl", scorer(M))
    assert 0 < ours["accuracy"] < 1
    assert results["lambada"]["acc,none"] == ours["accuracy"]
    assert results["lambada"]["perplexity,none"] == pytest.approx(ours["perplexity"], rel=1e-5)

    monkeypatch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
    _, ours = wikitext2(M, directory / "pages.jsonl", M.config.n_ctx, scorer(M))
    assert ours["documents"] == len(PAGES)
    assert results["words"]["word_perplexity,none"] == pytest.approx(ours["word_perplexity"], rel=1e-5)
    assert results["words"]["bits_per_byte,none"] == pytest.approx(ours["bits_per_byte"], rel=1e-5)


def test_request_of_older_versions_is_scored(server):
    prompts = [M.tokenizer.encode(doc["context"] + doc["choices"][0]) for doc in DOCS]
    parameters = {"max_tokens": 0, "logprobs": 10, "echo": True, "temperature": 0.0}
    choices = server.complete(model="storyteller", prompt=prompts, **parameters)["choices"]
    for ids, choice in zip(prompts, choices, strict=True):
        found = choice["logprobs"]
        assert len(found["tokens"]) == len(ids)
        assert sum(found["token_logprobs"][1:]) == pytest.approx(logprob(ids[:1], ids[1:])[0], abs=1e-4)
        assert all(len(best) >= 10 for best in found["top_logprobs"][1:])
