"""Does torch_gpt.serve answer as numpy_gpt.serve does, and as torch_gpt's library does?"""

import pytest
import requests

import torch_gpt

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
def test_dtype_option_is_that_of_the_model():
    with serving("torch_gpt", "--device", "cpu", "--dtype", "bfloat16") as (_, url):
        _, response = post(url, "/inspect", {"view": "compare", "prompt": ONCE})
        assert (response["device"], response["dtype"]) == ("cpu", "bfloat16")
        assert post(url, "/v1/completions", BODY)[0] == 200
