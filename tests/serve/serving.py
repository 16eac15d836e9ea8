"""Run the server in a thread, and send it requests."""

import json
from contextlib import contextmanager
from threading import Thread
from typing import NamedTuple

import pytest
import requests

from numpy_gpt import load
from numpy_gpt.serve.__main__ import NUMPY, new_app, new_parser
from numpy_gpt.serve.engine import Engine

http = pytest.importorskip("numpy_gpt.serve.server", reason="web isn't installed: pip install -e '.[web]'")
M = load("storyteller")
ONCE = "Once upon a time"


class Running(NamedTuple):
    url: str
    engine: Engine

    def post(self, path, body, **options):
        """Return the status and the JSON of the response"""
        response = requests.post(self.url + path, json=body, timeout=60, **options)
        return response.status_code, response.json()

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=60, **options)

    def complete(self, **parameters):
        """Return the response of /v1/completions, whose chunks are joined if it is a stream"""
        if parameters.get("stream"):
            return joined(self.chunks(**parameters))
        status, response = self.post("/v1/completions", parameters)
        assert status == 200, response
        return response

    def chunks(self, path="/v1/completions", **parameters):
        """Return the objects of a stream, which ends with [DONE]"""
        parameters["stream"] = True
        with requests.post(self.url + path, json=parameters, stream=True, timeout=60) as response:
            assert response.status_code == 200, response.text
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            *lines, last = [line for line in response.iter_lines() if line]
        assert last == b"data: [DONE]"
        return [json.loads(line.removeprefix(b"data: ")) for line in lines]

    def error(self, status=400, path="/v1/completions", **parameters):
        """Return the error of a request, and check its status"""
        found, response = self.post(path, parameters)
        assert found == status, response
        assert set(response) == {"error"}
        assert set(response["error"]) == {"message", "type", "param", "code"}
        return response["error"]


def joined(chunks):
    """Return a response with the text, logprobs and last finish_reason of each choice in the chunks"""
    response = {**chunks[0], "choices": []}
    for chunk in chunks:
        assert {name: chunk[name] for name in ("id", "object", "created", "model")} == {
            name: response[name] for name in ("id", "object", "created", "model")
        }
        response |= {"usage": chunk.get("usage")}
        for new in chunk["choices"]:
            choices = response["choices"]
            while len(choices) <= new["index"]:
                choices.append({"text": "", "index": len(choices), "logprobs": None, "finish_reason": None})
            append(choices[new["index"]], new)
    return response


def append(choice, new):
    assert choice["finish_reason"] is None, "a chunk follows the last one"
    choice["text"] += new["text"]
    choice["finish_reason"] = new["finish_reason"]
    if new["logprobs"]:
        before = choice["logprobs"] or {name: [] for name in new["logprobs"]}
        choice["logprobs"] = {name: before[name] + new["logprobs"][name] for name in before}


@contextmanager
def running(*options, m=M, template=None, functions=None, on_loopback=True):
    """Run the server with these options of the command"""
    args = new_parser(NUMPY).parse_args([*options])
    engine = Engine(m, functions or NUMPY.functions(m), args.max_running, args.max_waiting)
    listener = http.listen("127.0.0.1", 0)
    address = http.url(listener)
    server = http.Server(new_app(NUMPY, args, m, template, engine, on_loopback), engine, lambda: None)
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Running(address, engine)
    finally:
        server.should_exit = True
        thread.join()
