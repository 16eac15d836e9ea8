"""Test the other endpoints: models, chat, tokenizer, health, metrics, inspection, page, and errors of routing."""

import http.client
import re

import pytest
import requests
from serving import ONCE, M, running

from numpy_gpt import __version__


def test_models_lists_the_model_with_its_context(server):
    (listed,) = server.get("/v1/models").json()["data"]
    assert listed == server.get("/v1/models/storyteller").json()
    assert (listed["id"], listed["object"], listed["max_model_len"]) == ("storyteller", "model", 256)
    assert (listed["backend"], listed["chat_template"]) == ("numpy", None)


def test_chat_is_400_for_a_model_without_a_chat_template(server):
    status, response = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
    assert status == 400
    assert response["error"]["message"].startswith("storyteller has no chat template")
    assert server.post("/v1/chat/completions", [])[0] == 400


def test_health_names_model_backend_and_version(server):
    expected = {"status": "ok", "model": "storyteller", "backend": "numpy", "version": __version__}
    assert server.get("/health").json() == expected


def test_health_is_503_after_the_engine_has_stopped():
    with running() as server:
        server.engine.close()
        response = server.get("/health")
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "server_error"
        assert server.error(503, prompt=ONCE)["message"] == "the server is shutting down."


def test_tokenizer_endpoints_invert_each_other(server):
    text = f"{ONCE} \U0001f60a<|endoftext|>é"
    status, response = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    assert status == 200
    assert response["tokens"].count(M.tokenizer.eot) == 1
    assert server.post("/detokenize", response) == (200, {"prompt": text})


def test_tokenizer_endpoints_check_the_model_if_it_is_given(server):
    for path, body in (("/tokenize", {"prompt": ONCE}), ("/detokenize", {"tokens": [5]})):
        assert server.post(path, {**body, "model": "storyteller"}) == server.post(path, body)
        status, response = server.post(path, {**body, "model": "gpt-4"})
        assert (status, response["error"]["code"]) == (404, "model_not_found")


def test_tokenizer_info_has_the_special_tokens(server):
    info = server.get("/tokenizer_info").json()
    assert (info["eos_token"], info["bos_token"]) == ("<|endoftext|>", "<|endoftext|>")
    assert server.post("/tokenize", {"prompt": info["eos_token"]})[1] == {"tokens": [M.tokenizer.eot]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"prompt": 5}),
        ("/tokenize", {"prompt": "\ud800"}),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 3}),
        ("/tokenize", {"prompt": "a", "model": 5}),
        ("/tokenize", {"prompt": "a", "models": "b"}),
        ("/tokenize", {"prompt": "a", "\ud800": "b"}),
        ("/detokenize", {}),
        ("/detokenize", {"tokens": "a"}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [10**9]}),
        ("/detokenize", {"tokens": [[1]]}),
        ("/inspect", {}),
        ("/inspect", {"view": "tokens", "prompt": ""}),
        ("/inspect", []),
    ],
)
def test_invalid_body_is_400(server, path, body):
    status, response = server.post(path, body)
    assert status == 400
    assert response["error"]["type"] == "invalid_request_error"


def test_inspect_returns_json_or_bytes(server):
    status, response = server.post("/inspect", {"view": "tokens", "prompt": ONCE})
    assert status == 200
    assert [token["text"] for token in response["tokens"]] == ["Once", " upon", " a", " time"]
    body = {"view": "head", "prompt": ONCE, "layer": 0, "head": 0}
    raw = requests.post(server.url + "/inspect", json=body, timeout=60)
    assert raw.headers["content-type"] == "application/octet-stream"
    assert len(raw.content) == 16


def test_metrics_count_responses_and_tokens():
    with running() as server:
        server.complete(prompt=ONCE, max_tokens=5, n=2, temperature=0)
        server.error(prompt=ONCE, n=0)
        server.get("/nonsense")
        text = server.get("/metrics").text
    values = dict(re.findall(r"^numpy_gpt_(\S+) (\d+)$", text, re.M))
    assert values.pop("prompt_tokens_total") in ("4", "8")  # the two choices may share the prompt
    assert values == {
        'responses_total{path="/v1/completions",status="200"}': "1",
        'responses_total{path="/v1/completions",status="400"}': "1",
        'responses_total{path="other",status="404"}': "1",
        "generated_tokens_total": "10",
        "running_sequences": "0",
        "waiting_sequences": "0",
    }
    assert len(re.findall("^# TYPE", text, re.M)) == 5


def test_unknown_path_is_404_in_json(server):
    for path in ("/nonsense", "/v1/completions/", "/v1", "/page", "/page/"):
        response = server.get(path)
        assert response.status_code == 404
        assert "doesn't exist" in response.json()["error"]["message"]


def test_wrong_method_is_405_and_names_the_right_one(server):
    response = server.get("/v1/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["message"] == "/v1/completions doesn't support GET: use POST."
    assert requests.delete(server.url + "/v1/models", timeout=60).status_code == 405


def raw_get(server, path, **headers):
    """Return the response to a path that no client library changes"""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2Fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..%5capp.py",
        "/page//etc/passwd",
        "/page/%2Fetc%2Fpasswd",
        "/page/..",
        "/page/.",
        "/page/%00",
        "/page/index.html%00.js",
        "/page/app.py",
        "/page/__init__.py",
        "/page/" + "a" * 5000,
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_path_outside_of_the_page_is_404(server, path):
    status, _, body = raw_get(server, path)
    assert status == 404
    assert b'"error"' in body


def test_page_is_html_with_a_strict_policy_and_an_etag(server):
    status, headers, body = raw_get(server, "/")
    assert status == 200
    assert body == raw_get(server, "/page/index.html")[2]
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-cache"
    status, _, body = raw_get(server, "/", **{"if-none-match": headers["etag"]})
    assert (status, body) == (304, b"")


def test_scripts_and_styles_have_their_types(server):
    assert raw_get(server, "/page/style.css")[1]["content-type"] == "text/css; charset=utf-8"
