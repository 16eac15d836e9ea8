"""Does torch_gpt.serve answer as numpy_gpt.serve does, and as torch_gpt's library does?"""

import pytest
import requests

import numpy_gpt
import torch_gpt
from numpy_gpt.checkpoint import save_with_template
from numpy_gpt.text.template import Template

from .streams import serving

pytest.importorskip("starlette", reason="the web extra isn't installed: pip install -e '.[web]'")

ONCE = "Once upon a time"
BODY = {"prompt": ONCE, "max_tokens": 20, "temperature": 0.8, "seed": 3, "logprobs": 2, "echo": True, "n": 2}


def post(url, path, body):
    response = requests.post(url + path, json=body, timeout=60)
    return response.status_code, response.json()


@pytest.mark.slow
def test_both_servers_give_the_same_completions_and_torch_gpt_compares_itself():
    found = {}
    for package in ("numpy_gpt", "torch_gpt"):
        with serving(package) as (_, url):
            status, response = post(url, "/v1/completions", BODY)
            assert status == 200
            found[package] = response["choices"]
            (model,) = requests.get(url + "/v1/models", timeout=60).json()["data"]
            assert model["backend"] == package.removesuffix("_gpt")
            compared, _ = post(url, "/inspect", {"view": "compare", "prompt": ONCE})
            assert compared == (200 if package == "torch_gpt" else 400)
    for ours, theirs in zip(found["numpy_gpt"], found["torch_gpt"], strict=True):
        assert ours["text"] == theirs["text"]
        assert ours["logprobs"]["tokens"] == theirs["logprobs"]["tokens"]
        assert ours["logprobs"]["token_logprobs"][1:] == pytest.approx(
            theirs["logprobs"]["token_logprobs"][1:], abs=1e-3
        )
    m = torch_gpt.load("storyteller")
    new = torch_gpt.complete(m, m.tokenizer.encode(ONCE), 20, temperature=0.8, seed=3, sample=1)
    assert found["torch_gpt"][1]["text"] == ONCE + m.tokenizer.decode(new)


@pytest.mark.slow
def test_both_servers_answer_a_chat_by_the_stored_template(tmp_path):
    template = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")
    save_with_template(numpy_gpt.load("storyteller"), tmp_path / "model", None, None, template)
    messages = [{"role": "user", "content": "Tom had a ball."}]
    body = {"messages": messages, "max_tokens": 20, "temperature": 0.8, "seed": 3, "logprobs": True, "n": 2}
    found = {}
    for package in ("numpy_gpt", "torch_gpt"):
        with serving(package, "--model", str(tmp_path / "model")) as (_, url):
            status, response = post(url, "/v1/chat/completions", body)
            assert status == 200
            found[package] = [choice["message"] for choice in response["choices"]]
            chat_template = requests.get(url + "/v1/models/model", timeout=60).json()["chat_template"]
            assert chat_template == "{message} One day,{answer}<|endoftext|>"
    assert found["numpy_gpt"] == found["torch_gpt"]
    m = torch_gpt.load("storyteller")
    new = torch_gpt.complete(m, m.tokenizer.encode("Tom had a ball. One day,"), 20, temperature=0.8, seed=3, sample=1)
    assert found["torch_gpt"][1]["content"] == m.tokenizer.decode(new)


@pytest.mark.slow
def test_dtype_option_is_that_of_the_model():
    with serving("torch_gpt", "--device", "cpu", "--dtype", "bfloat16") as (_, url):
        _, response = post(url, "/inspect", {"view": "compare", "prompt": ONCE})
        assert (response["device"], response["dtype"]) == ("cpu", "bfloat16")
        assert post(url, "/v1/completions", BODY)[0] == 200
