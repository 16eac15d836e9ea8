"""Does POST /inspect answer like the function, and leave the results of completions unchanged?"""

from threading import Event, Thread

import pytest
import requests
from serving import ONCE
from serving import M as STORYTELLER

from numpy_gpt.serve.inspection import FUNCTIONS, answer

BODIES = [
    {"view": "tokens"},
    {"view": "candidates", "position": 2, "temperature": 0.8, "top_k": 40, "top_p": 0.95},
    {"view": "attention"},
    {"view": "head", "layer": 3, "head": 1, "first": 1, "count": 2},
    {"view": "row", "layer": 3, "head": 1, "position": 3},
    {"view": "lens", "positions": [0, 3]},
    {"view": "attribution", "position": 3, "target": 262},
    {"view": "backward", "position": 3},
    {"view": "diagram", "box": "h.3.mlp.act", "position": 3},
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body["view"])
def test_answer_over_http_is_that_of_the_function(body, server):
    body = {"prompt": ONCE, **body}
    found = requests.post(server.url + "/inspect", json=body, timeout=60)
    assert found.status_code == 200
    expected = answer(FUNCTIONS, STORYTELLER, body)
    assert (found.content if isinstance(expected, bytes) else found.json()) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"view": "compare", "prompt": ONCE}, "this server runs NumPy alone"),
        ({"view": "row", "prompt": ONCE, "layer": 4}, "layer is 4: it must be a whole number from 0 to 3."),
        ({"view": "tokens", "prompt": "a b " * 1000}, "the model's context is 256: shorten it."),
        ({"view": "candidates", "prompt": ONCE, "position": 0, "top_p": 2}, "top_p is 2"),
    ],
)
def test_invalid_request_is_400_with_the_reason(body, message, server):
    status, response = server.post("/inspect", body)
    assert status == 400
    assert message in response["error"]["message"]


@pytest.mark.slow
def test_completions_during_inspections_are_those_alone(server):
    # 200 tokens are several tiles of attention, which share the threads of the process
    ids = [i * i % 4096 for i in range(200)]
    request = {"prompt": [ONCE, "The dog"], "max_tokens": 40, "n": 2, "seed": 3, "logprobs": 2}
    alone = server.complete(**request)["choices"]
    ended, statuses = Event(), []

    def inspect():
        while not ended.is_set():
            body = {"view": "backward", "prompt": ids, "position": 180 + len(statuses) % 20}
            statuses.append(server.post("/inspect", body)[0])

    thread = Thread(target=inspect)
    thread.start()
    try:
        during = [server.complete(**request)["choices"] for _ in range(3)]
    finally:
        ended.set()
        thread.join()
    assert during == [alone] * 3
    assert statuses
    assert set(statuses) == {200}
