"""Do both packages, transformers and lm-evaluation-harness measure the same on LAMBADA and WikiText-2?

The model is the storyteller, and the passages are its own stories, so that it predicts some of the last words.
"""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import numpy_gpt
import torch_gpt
from numpy_gpt.evaluate.lambada import lambada
from numpy_gpt.evaluate.perplexity import perplexity
from numpy_gpt.evaluate.scoring import scorer
from numpy_gpt.evaluate.wikitext2 import wikitext2
from torch_gpt.evaluate.scoring import scorer as twin_scorer

M = numpy_gpt.load("storyteller")
N = M.config.n_ctx
CLOSE = 1e-5


def stories(n, length):
    """Return n stories of the storyteller, cut after a word"""
    prompts = [M.tokenizer.encode(beginning) for beginning in ("Once upon a time", "Tom and Lily", "One day,", "In")]
    prompts = [prompts[i % len(prompts)] for i in range(n)]
    drawn = numpy_gpt.complete_batch(M, prompts, length, temperature=0.7, seed=5)
    texts = [M.tokenizer.decode(prompt + new) for prompt, new in zip(prompts, drawn, strict=True)]
    return [text[: text.rindex(" ")].replace("<|endoftext|>", "\n").rstrip() for text in texts]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a directory with the model as transformers loads it, passages and WikiText, and a cache of its own"""
    directory = tmp_path_factory.mktemp("files")
    numpy_gpt.save(M, directory / "model")
    texts = stories(20, 60)
    texts += [" ".join(texts), "Once", "The dog said:\n\n “Hello”", texts[0] + "\n Unbelievably"]
    passages = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (directory / "passages.jsonl").write_text(passages)
    lines = [" = The dogs = ", " ", *(f" {text} ".replace(",", " ,").replace("\n", " \n ") for text in texts[:9])]
    lines += [" ", " = The cat = ", " ", " The cat 's name was ( 3 @.@ 5 ) . ", " = = Food = = ", " Milk . ", " "]
    (directory / "wiki.raw").write_text("".join(f"{line}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        yield directory


def measures(task, directory, m, score, stride=N):
    """Return all measures of a task"""
    if task == "lambada":
        return lambada(m, directory / "passages.jsonl", score)
    if task == "perplexity":
        return perplexity(m, directory / "wiki.raw", stride, score)
    per_token, per_word = wikitext2(m, directory / "wiki.raw", stride, score)
    return per_token | per_word


@pytest.mark.parametrize(
    ("task", "stride"), [("lambada", N), ("wikitext2", N), ("wikitext2", 100), ("perplexity", N), ("perplexity", 100)]
)
def test_both_packages_give_the_same_measures(task, stride, files, device):
    twin = torch_gpt.from_numpy(M, device)
    ours = measures(task, files, M, scorer(M), stride)
    assert ours == pytest.approx(measures(task, files, twin, twin_scorer(twin), stride), rel=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", CLOSE), ("float64", CLOSE), ("bfloat16", 0.2)])
def test_command_of_the_twin_prints_the_measures(dtype, tolerance, files, device):
    args = ["lambada", str(files / "passages.jsonl"), "--device", device, "--dtype", dtype, "--json"]
    command = [sys.executable, "-m", "torch_gpt.evaluate", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.pop("model") == "storyteller"
    assert found == pytest.approx(measures("lambada", files, M, scorer(M)), rel=tolerance)


@pytest.fixture(scope="module")
def elsewhere(files):
    """Return transformers' GPT2LMHeadModel with the storyteller's weights, and its tokenizer"""
    model = AutoModelForCausalLM.from_pretrained(files / "model", dtype=torch.float64).eval()
    return model, AutoTokenizer.from_pretrained(files / "model")


@torch.no_grad()
def logprobs(model, context, continuation):
    """Return the log-probability of each token of a continuation, and whether each is the best one"""
    z = model(torch.tensor([[*context, *continuation][:-1]])).logits[0, -len(continuation) :]
    expected = torch.tensor(continuation)
    return z.log_softmax(-1).gather(-1, expected[:, None])[:, 0], z.argmax(-1) == expected


def test_lambada_equals_a_loop_over_transformers(files, elsewhere):
    model, tokenizer = elsewhere
    results = []
    for line in (files / "passages.jsonl").read_text().splitlines():
        *context, word = json.loads(line)["text"].split(" ")
        context = " ".join(context)
        spaces = context[len(context.rstrip()) :]
        context, word = context.rstrip(), f"{spaces} {word}"
        before = tokenizer.encode(context) or [tokenizer.eos_token_id]
        after = tokenizer.encode(context + word)[len(tokenizer.encode(context)) :]
        values, best = logprobs(model, before[-(N + 1 - len(after)) :], after)
        results.append((values.sum().item(), best.all().item()))
    values, best = zip(*results, strict=True)
    found = measures("lambada", files, M, scorer(M))
    assert 0 < sum(best) < len(best) == found["passages"]
    assert found["accuracy"] == sum(best) / len(best)
    assert found["perplexity"] == pytest.approx(math.exp(-np.mean(values)), rel=CLOSE)


@pytest.mark.parametrize("stride", [N, 100])
@torch.no_grad()
def test_token_perplexity_of_wikitext2_equals_transformers_loss_with_masked_labels(stride, files, elsewhere):
    model, tokenizer = elsewhere
    rows = (files / "wiki.raw").read_text().splitlines(keepends=True)
    ids = tokenizer("\n\n".join(row if row.strip() else "" for row in rows), return_tensors="pt").input_ids
    total, count, end = 0.0, 0, 0
    for start in range(0, ids.shape[1], stride):
        window = ids[:, start : start + N]
        labels = window.clone()
        labels[:, : max(end - start, 1)] = -100
        counted = int((labels != -100).sum())
        if counted:
            total += model(window, labels=labels).loss.item() * counted
            count += counted
        end = start + window.shape[1]
        if end == ids.shape[1]:
            break
    found = measures("wikitext2", files, M, scorer(M), stride)
    assert found["tokens"] == count > N
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=CLOSE)


def harness_task(name, file):
    """Return the config of one of the harness's tasks, for a local file in place of its data set"""
    yaml = pytest.importorskip("yaml")
    folder = Path(importlib.import_module("lm_eval.tasks").__file__).parent / name.partition("_")[0]
    config = yaml.safe_load((folder / f"{name}.yaml").read_text().replace("!function preprocess_wikitext.", ""))
    if name == "wikitext":
        functions = importlib.import_module("lm_eval.tasks.wikitext.preprocess_wikitext")
        config |= {key: getattr(functions, config[key]) for key in ("doc_to_target", "process_results")}
    used = ("task", "output_type", "test_split", "doc_to_text", "doc_to_target", "process_results", "metric_list")
    config = {key: config[key] for key in used if key in config}
    return config | {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_measures_equal_those_of_the_harness(files, elsewhere, monkeypatch, tmp_path):
    """Let lm-evaluation-harness evaluate transformers' model, with passages and documents longer than the context"""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness isn't installed: pip install -e '.[ci]'")
    utils = importlib.import_module("lm_eval.utils")
    base = importlib.import_module("lm_eval.api.model").TemplateLM
    model, tokenizer = elsewhere

    class Elsewhere(base):
        eot_token_id = tokenizer.eos_token_id

        def tok_encode(self, string, add_special_tokens=None, **_):
            return tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests, **_):
            for _, context, continuation in requests:
                context = [*context, *continuation][-(N + 1) : -len(continuation)]
                values, best = logprobs(model, context, continuation)
                yield values.sum().item(), best.all().item()

        def loglikelihood(self, requests, disable_tqdm=False):
            return list(super().loglikelihood(requests, disable_tqdm=True))

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            return [sum(value for value, _ in self._loglikelihood_tokens(self.windows(*r.args))) for r in requests]

        def windows(self, string):
            options = {"prefix_token": self.prefix_token_id, "max_seq_len": N, "context_len": 1}
            for pair in utils.get_rolling_token_windows(self.tok_encode(string), **options):
                yield None, *utils.make_disjoint_window(pair)

        def generate_until(self, requests, disable_tqdm=False):
            raise NotImplementedError

    pages = (files / "wiki.raw").read_text().split("\n = The cat")
    (tmp_path / "pages.jsonl").write_text(
        "".join(json.dumps({"page": page}) + "\n" for page in (pages[0], " = The cat" + pages[1]))
    )
    tasks = [
        harness_task("lambada_openai", files / "passages.jsonl"),
        harness_task("wikitext", tmp_path / "pages.jsonl"),
    ]
    results = lm_eval.simple_evaluate(Elsewhere(), tasks=tasks, bootstrap_iters=0, verbosity="ERROR")["results"]
    found = measures("lambada", files, M, scorer(M))
    assert found["accuracy"] == results["lambada_openai"]["acc,none"]
    assert found["perplexity"] == pytest.approx(results["lambada_openai"]["perplexity,none"], rel=CLOSE)
    found = measures("wikitext2", files, M, scorer(M))
    assert found["documents"] == 2
    for key in ("word_perplexity", "bits_per_byte"):
        assert found[key] == pytest.approx(results["wikitext"][f"{key},none"], rel=CLOSE)
