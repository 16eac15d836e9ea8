"""Test that invalid parameters of a completion are refused with 400 and an explanation."""

import json

import pytest
import requests
from serving import ONCE, M

V = M.config.n_vocab

INVALID = [
    ({"suffix": "end"}, "suffix", "can't insert"),
    ({"suffix": None}, "suffix", "can't insert"),
    ({"temprature": 1}, "temprature", "did you mean temperature?"),
    ({"max_completion_tokens": 1}, "max_completion_tokens", "isn't a parameter"),
    ({"prompt": []}, "prompt", "prompt is an empty list: give at least one prompt."),
    ({"prompt": [[]]}, "prompt[0]", "give at least one token id"),
    ({"prompt": [[1], []]}, "prompt[1]", "give at least one token id"),
    ({"prompt": 3}, "prompt", "prompt is 3: it must be a string."),
    ({"prompt": {"a": 1}}, "prompt", 'prompt is {"a": 1}: it must be a string'),
    ({"prompt": True}, "prompt", "true"),
    ({"prompt": [1, "a"]}, "prompt[1]", 'prompt[1] is "a": it must be a whole number'),
    ({"prompt": ["a", 1]}, "prompt[1]", "prompt[1] is 1: it must be a string."),
    ({"prompt": [[1], "a"]}, "prompt[1]", "must be a list of token ids"),
    ({"prompt": [1.5]}, "prompt[0]", "1.5"),
    ({"prompt": [True]}, "prompt[0]", "true"),
    ({"prompt": [-1]}, "prompt[0]", f"prompt[0] is -1: it must be a whole number from 0 to {V - 1}."),
    ({"prompt": [[5], [3, V]]}, "prompt[1][1]", f"prompt[1][1] is {V}"),
    ({"prompt": ["a"] * 129}, "prompt", "129 prompts"),
    ({"prompt": "\ud83d"}, "prompt", "U+D83D at character 0"),
    ({"prompt": ["a"] * 100, "n": 2}, "prompt", "200 sequences"),
    ({"max_tokens": -1}, "max_tokens", "max_tokens is -1: it must be a whole number of at least 0."),
    ({"max_tokens": "5"}, "max_tokens", '"5"'),
    ({"max_tokens": 1.5}, "max_tokens", "1.5"),
    ({"max_tokens": True}, "max_tokens", "true"),
    ({"max_tokens": 10**30}, "max_tokens", "maximum context length is 256 tokens"),
    ({"temperature": -0.1}, "temperature", "from 0 to 2"),
    ({"temperature": 2.1}, "temperature", "from 0 to 2"),
    ({"temperature": "hot"}, "temperature", '"hot"'),
    ({"top_p": 1.1}, "top_p", "from 0 to 1"),
    ({"top_p": -1}, "top_p", "from 0 to 1"),
    ({"top_k": -1}, "top_k", "at least 0"),
    ({"n": 0}, "n", "from 1 to 128"),
    ({"n": 129}, "n", "from 1 to 128"),
    ({"best_of": 0}, "best_of", "from 1 to 20"),
    ({"best_of": 21}, "best_of", "from 1 to 20"),
    ({"best_of": 2, "n": 3}, "best_of", "best_of must be at least n"),
    ({"best_of": 2, "stream": True}, "best_of", "a stream can't choose the best"),
    ({"seed": 2**64}, "seed", "18446744073709551616"),
    ({"seed": -(2**63) - 1}, "seed", "whole number"),
    ({"seed": "a"}, "seed", '"a"'),
    ({"stop": ""}, "stop", "stop is empty"),
    ({"stop": ["a", ""]}, "stop", "stop[1] is empty"),
    ({"stop": ["a"] * 1000}, "stop", "stop has 1000 texts: send at most 4."),
    ({"stop": "a" * 1001}, "stop", "1001 characters"),
    ({"stop": [5]}, "stop[0]", "stop[0] is 5"),
    ({"stop": "\ufffd"}, "stop", "U+FFFD"),
    ({"stop": "\udc00"}, "stop", "U+DC00"),
    ({"logprobs": 6}, "logprobs", "at most 5"),
    ({"logprobs": 11, "echo": True, "max_tokens": 0}, "logprobs", "from 0 to 10"),
    ({"logprobs": 10, "max_tokens": 0}, "logprobs", "only with echo and max_tokens 0"),
    ({"logprobs": -1}, "logprobs", "-1"),
    ({"logprobs": True}, "logprobs", "true"),
    ({"echo": 1}, "echo", "echo is 1: it must be true or false."),
    ({"logit_bias": {"a": 1}}, "logit_bias", '"a"'),
    ({"logit_bias": {"01": 1}}, "logit_bias", '"01"'),
    ({"logit_bias": {str(V): 1}}, "logit_bias", f"from 0 to {V - 1}"),
    ({"logit_bias": {"5": 101}}, 'logit_bias["5"]', "from -100 to 100"),
    ({"logit_bias": {"5": None}}, 'logit_bias["5"]', "null"),
    ({"logit_bias": [1]}, "logit_bias", "must be an object"),
    ({"presence_penalty": 2.5}, "presence_penalty", "from -2 to 2"),
    ({"frequency_penalty": -3}, "frequency_penalty", "from -2 to 2"),
    ({"stream": "yes"}, "stream", '"yes"'),
    ({"stream_options": {}}, "stream_options", "stream_options needs stream"),
    ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options", "needs stream"),
    ({"stream_options": {"include_usag": True}, "stream": True}, "include_usag", "did you mean include_usage?"),
    ({"stream_options": {"include_usage": 1}, "stream": True}, "include_usage", "true or false"),
    ({"stream_options": {"include_obfuscation": True}, "stream": True}, "stream_options", "isn't supported"),
    ({"stream_options": True, "stream": True}, "stream_options", "must be an object"),
    ({"user": 5}, "user", "user is 5"),
    ({"model": 5}, "model", "model is 5"),
    ({"\udfff": 5}, "\\udfff", "isn't a parameter"),
]


@pytest.mark.parametrize(("parameters", "param", "message"), INVALID, ids=lambda x: json.dumps(x)[:40])
def test_invalid_parameter_is_400_with_its_name_and_the_reason(server, parameters, param, message):
    error = server.error(**{"prompt": ONCE} | parameters)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert message in error["message"]
    assert error["message"].endswith((".", "length."))


def test_prompt_and_max_tokens_over_the_context_are_400_in_openai_s_words(server):
    error = server.error(prompt=[5] * 250, max_tokens=7)
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == (
        "This model's maximum context length is 256 tokens, however you requested 257 tokens (250 in your prompt; 7 "
        "for the completion). Please reduce your prompt; or completion length."
    )
    assert len(server.complete(prompt=[5] * 250, max_tokens=6)["choices"]) == 1
    assert len(server.complete(prompt=[5] * 256, max_tokens=0)["choices"]) == 1


def test_prompt_far_over_the_context_is_refused_without_tokenizing_it(server):
    error = server.error(prompt="a" * 10**6)
    assert error["code"] == "context_length_exceeded"
    assert "at least" in error["message"]


def test_unknown_model_is_404(server):
    error = server.error(404, prompt=ONCE, model="gpt-5")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert server.get("/v1/models/gpt-5").status_code == 404


def test_user_has_no_effect(server):
    same = {"prompt": ONCE, "seed": 1}
    assert server.complete(**same, user="me")["choices"] == server.complete(**same)["choices"]


def test_whole_numbers_may_be_written_with_a_point(server):
    assert server.complete(prompt=ONCE, max_tokens=2.0)["usage"]["completion_tokens"] == 2


BODIES = [
    (b"", "Expecting value"),
    (b"{", "isn't valid JSON"),
    (b'{"prompt": "a"', "isn't valid JSON"),
    (b'{"prompt": "\xff"}', "isn't UTF-8: byte 12 is 0xff"),
    (b'{"temperature": NaN}', "NaN isn't a JSON value"),
    (b'{"temperature": 1e999}', "must be a number from 0 to 2"),
    (b'{"max_tokens": -1e999}', "must be a whole number of at least 0"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "an integer has 5000 digits, and at most 100 are accepted"),
    (b'{"n": 1, "n": 2}', "a name occurs twice"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b"[]", "the body is []: it must be a JSON object."),
    (b"null", "the body is null"),
    (b'"text"', "must be a JSON object"),
]


def test_byte_order_mark_before_the_body_is_ignored(server):
    body, headers = b'\xef\xbb\xbf{"prompt": "a"}', {"content-type": "application/json"}
    assert requests.post(f"{server.url}/tokenize", data=body, headers=headers, timeout=60).status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
@pytest.mark.parametrize(("body", "message"), BODIES, ids=lambda x: str(x)[:30])
def test_malformed_body_is_400(server, path, body, message):
    if path == "/tokenize" and b"1e999" in body:
        return
    response = requests.post(server.url + path, data=body, headers={"content-type": "application/json"}, timeout=60)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_content_type_other_than_json_is_415(server, kind):
    headers = {"content-type": kind} if kind else {}
    response = requests.post(server.url + "/v1/completions", data=b'{"prompt": "a"}', headers=headers, timeout=60)
    assert response.status_code == 415
    assert "must be application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_compressed_body_is_415(server, encoding):
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = requests.post(server.url + "/v1/completions", data=b"\x1f\x8b", headers=headers, timeout=60)
    assert response.status_code == 415
    expected = f"the content encoding is {encoding}: send the body uncompressed, without this header."
    assert response.json()["error"]["message"] == expected


@pytest.mark.parametrize("chunked", [False, True])
def test_body_of_10_mb_is_413(server, chunked):
    body = b'{"prompt": "' + b"a" * 10**7 + b'"}'
    data = (body[i : i + 10**5] for i in range(0, len(body), 10**5)) if chunked else body
    headers = {"content-type": "application/json"}
    response = requests.post(server.url + "/v1/completions", data=data, headers=headers, timeout=60)
    assert response.status_code == 413
    assert "larger than 2,097,152 bytes" in response.json()["error"]["message"]
