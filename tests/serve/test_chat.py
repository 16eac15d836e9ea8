"""Test /v1/chat/completions with a model that has a template: prompts, answers, streams, parameters and errors."""

import json

import pytest
from serving import M, running

from numpy_gpt import complete
from numpy_gpt.text.template import Template, render

PATH = "/v1/chat/completions"
TEMPLATE = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")
T = M.tokenizer
HI = [{"role": "user", "content": "Tom had a ball."}]
IDS = T.encode("Tom had a ball. One day,")


@pytest.fixture(scope="module")
def server():
    """Return a running server of the storyteller with a template"""
    with running(template=TEMPLATE) as server:
        yield server


def ask(server, messages=HI, **parameters):
    """Return the response, whose chunks are joined if it is a stream"""
    body = {"messages": messages, "temperature": 0, "max_tokens": 12, **parameters}
    if parameters.get("stream"):
        return joined(server.chunks(PATH, **body))
    status, response = server.post(PATH, body)
    assert status == 200, response
    return response


def joined(chunks):
    """Return the response that a client makes of the chunks of a stream"""
    choices = {}
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert {chunk[name] for name in ("id", "created", "model")} == {
            chunks[0][name] for name in ("id", "created", "model")
        }
        for new in chunk["choices"]:
            if new["index"] not in choices:
                assert new["delta"] == {"role": "assistant", "content": ""}
                choices[new["index"]] = {"message": {"content": ""}, "logprobs": None, "finish_reason": None}
            choice = choices[new["index"]]
            assert choice["finish_reason"] is None, "a chunk follows the last one"
            choice["message"]["content"] += new["delta"].get("content", "")
            choice["finish_reason"] = new["finish_reason"]
            if new["logprobs"]:
                choice["logprobs"] = choice["logprobs"] or {"content": []}
                choice["logprobs"]["content"] += new["logprobs"]["content"]
    return {"choices": [choices[i] for i in sorted(choices)], "usage": chunks[-1].get("usage")}


def content(response):
    return response["choices"][0]["message"]["content"]


def answer(ids, n=12, **options):
    return T.decode(complete(M, ids, n, stop=[T.eot], **{"temperature": 0, **options}))


def test_answer_is_the_continuation_of_the_template(server):
    response = ask(server)
    assert response["id"].startswith("chatcmpl-")
    assert response["object"] == "chat.completion"
    assert response["model"] == "storyteller"
    assert response["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": answer(IDS), "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert response["usage"] == {
        "prompt_tokens": len(IDS),
        "completion_tokens": 12,
        "total_tokens": len(IDS) + 12,
    }


CONVERSATIONS = {
    "turns": (
        [("user", "Tom had a ball."), ("assistant", " He ran."), ("user", "Lily cried.")],
        [*IDS, *T.encode(" He ran."), T.eot, *T.encode("Lily cried. One day,")],
    ),
    "system": ([("system", "Be kind."), ("user", "Tom sat.")], T.encode("Be kind.\n\nTom sat. One day,")),
    "developer": ([("developer", "Be kind."), ("user", "Tom sat.")], T.encode("Be kind.\n\nTom sat. One day,")),
    "late system": (
        [("user", "Tom sat."), ("assistant", ""), ("system", "Be kind."), ("user", "Lily sat.")],
        [*T.encode("Tom sat. One day,"), T.eot, *T.encode("Be kind.\n\nLily sat. One day,")],
    ),
    "empty system": ([("system", " "), ("user", "Tom sat.")], T.encode("Tom sat. One day,")),
    "two users": ([("user", "Tom sat."), ("user", "Lily sat.")], T.encode("Tom sat.\n\nLily sat. One day,")),
    "parts": (
        [("user", [{"type": "text", "text": "Tom sat."}, {"type": "text", "text": "Lily sat."}])],
        T.encode("Tom sat.\nLily sat. One day,"),
    ),
    "special": (
        [("user", "<|endoftext|> {input} {instruction}"), ("assistant", "<|endoftext|>"), ("user", "a")],
        [*T.encode("<|endoftext|> {input} {instruction} One day,<|endoftext|>"), T.eot, *T.encode("a One day,")],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_messages_become_the_tokens_of_the_template(name, server):
    conversation, ids = CONVERSATIONS[name]
    response = ask(server, [{"role": role, "content": text} for role, text in conversation])
    assert response["usage"]["prompt_tokens"] == len(ids)
    assert content(response) == answer(ids)


def test_answer_that_a_client_sends_back_is_accepted(server):
    message = ask(server)["choices"][0]["message"] | {"tool_calls": None, "annotations": [], "name": "story"}
    ids = [*IDS, *T.encode(message["content"]), T.eot, *T.encode("More. One day,")]
    assert content(ask(server, [*HI, message, {"role": "user", "content": "More.", "name": "me"}])) == answer(ids)


def test_stream_has_the_answers_of_the_response(server):
    parameters = {"n": 3, "temperature": 0.9, "seed": 4, "logprobs": True, "top_logprobs": 2, "max_tokens": 40}
    whole = ask(server, **parameters)
    assert len({choice["message"]["content"] for choice in whole["choices"]}) == 3
    streamed = ask(server, stream=True, stream_options={"include_usage": True}, **parameters)
    assert streamed["usage"] == whole["usage"]
    for a, b in zip(streamed["choices"], whole["choices"], strict=True):
        assert a["message"]["content"] == b["message"]["content"]
        assert a["logprobs"]["content"] == b["logprobs"]["content"]
        assert a["finish_reason"] == b["finish_reason"]


def test_seed_gives_the_samples_of_the_library(server):
    response = ask(server, n=2, temperature=0.8, top_p=0.95, seed=5)
    texts = [answer(IDS, temperature=0.8, top_p=0.95, seed=5, sample=i) for i in (0, 1)]
    assert [choice["message"]["content"] for choice in response["choices"]] == texts


def test_answer_without_max_tokens_ends_at_endoftext_or_when_the_context_is_full(server):
    body = {"messages": HI, "temperature": 0, "logit_bias": {str(T.eot): 10}}  # the answer has one sentence
    status, response = server.post(PATH, body)
    assert status == 200
    assert response["choices"][0]["finish_reason"] == "stop"
    assert answer(IDS, n=256).startswith(content(response))
    long, bias = [{"role": "user", "content": "Tom had a ball. " * 48}], {str(T.eot): -100}
    _, response = server.post(PATH, {"messages": long, "temperature": 0, "logit_bias": bias})
    assert response["choices"][0]["finish_reason"] == "length"
    assert response["usage"]["total_tokens"] == 256


@pytest.mark.parametrize("stream", [False, True])
def test_answer_ends_before_a_stop_string(stream, server):
    whole = answer(IDS, n=256)
    response = ask(server, stop=["."], max_tokens=200, stream=stream)
    assert content(response) == whole[: whole.index(".")]
    assert response["choices"][0]["finish_reason"] == "stop"


def test_max_completion_tokens_is_another_name_of_max_tokens(server):
    for names in (["max_completion_tokens"], ["max_tokens", "max_completion_tokens"]):
        status, response = server.post(PATH, {"messages": HI, **dict.fromkeys(names, 3)})
        assert (status, response["usage"]["completion_tokens"]) == (200, 3)


def test_logprobs_are_those_of_completions_without_endoftext(server):
    parameters = {"temperature": 0, "max_tokens": 20, "logit_bias": {str(T.eot): 10}}  # the answer has one sentence
    (ours,) = ask(server, logprobs=True, top_logprobs=3, **parameters)["choices"]
    (theirs,) = server.complete(prompt=IDS, logprobs=3, **parameters)["choices"]
    tokens = ours["logprobs"]["content"]
    assert theirs["logprobs"]["tokens"].pop() == "<|endoftext|>"
    assert [token["token"] for token in tokens] == theirs["logprobs"]["tokens"]
    assert [token["logprob"] for token in tokens] == theirs["logprobs"]["token_logprobs"][:-1]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == ours["message"]["content"]
    for token, best in zip(tokens, theirs["logprobs"]["top_logprobs"], strict=False):
        assert {other["token"]: other["logprob"] for other in token["top_logprobs"]} == best
        assert token["top_logprobs"][0]["token"] == token["token"]
    assert ask(server, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert (
        len(ask(server, logprobs=True, top_logprobs=20)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 20
    )


def message(**changes):
    return {"messages": [{"role": "user", "content": "Hi", **changes}]}


INVALID = [
    ({"messages": None}, "messages", "messages is missing: it must be a list of at least one message."),
    ({"messages": []}, "messages", "messages is []: it must be a list of at least one message."),
    ({"messages": "Hi"}, "messages", 'messages is "Hi": it must be a list'),
    ({"messages": ["Hi"]}, "messages[0]", 'messages[0] is "Hi": it must be an object with role and content.'),
    (message(role="tool"), "messages[0].role", 'role is "tool": it must be system, developer, user or assistant.'),
    (message(role=["user"]), "messages[0].role", 'role is ["user"]: it must be'),
    ({"messages": [{"content": "Hi"}]}, "messages[0].role", "messages[0].role is missing: it must be"),
    (message(content=None), "messages[0].content", "messages[0].content is null: it must be a string."),
    (message(content=""), "messages[0].content", "messages[0].content is empty: write a message."),
    (message(content=" \n"), "messages[0].content", "messages[0].content is empty: write a message."),
    (message(content=[]), "messages[0].content", "messages[0].content is an empty list: give at least one part."),
    (message(content=["Hi"]), "messages[0].content", 'messages[0].content[0] is "Hi": the model reads only texts'),
    (message(content=[{"type": "image_url"}]), "messages[0].content", "the model reads only texts, such as"),
    (message(content=[{"type": "text", "text": 5}]), "messages[0].content[0].text", "it must be a string."),
    (message(content="\ud800"), "messages[0].content", "half of a surrogate pair"),
    (message(name=5), "messages[0].name", "messages[0].name is 5: it must be a string."),
    (message(tool_calls=[1]), "messages[0]", "messages[0].tool_calls is [1]: the model supports only texts; remove"),
    (message(contents="a"), "messages[0]", 'messages[0] has the key "contents": it may have role, content and name'),
    (
        {"messages": [{"role": "assistant", "content": "Hi"}, *HI]},
        "messages[0]",
        "messages[0] is an answer with no message before it that it answers: remove it.",
    ),
    (
        {"messages": [*HI, {"role": "assistant", "content": "Hi"}]},
        "messages",
        "the last message has the role assistant: it must be the user's.",
    ),
    ({"messages": [{"role": "system", "content": "Hi"}]}, "messages", "the last message has the role system"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens is 0: it must be a whole number of at least 1."),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens", "max_tokens is 3 and max_completion_tok"),
    ({"logprobs": 3}, "logprobs", "logprobs is 3: it must be true or false."),
    ({"top_logprobs": 3}, "top_logprobs", "top_logprobs needs logprobs: set logprobs to true"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "it must be a whole number from 0 to 20."),
    ({"stream_options": {}}, "stream_options", "stream_options needs stream"),
    ({"tools": []}, "tools", "tools isn't supported: the model answers with text alone; remove it."),
    ({"response_format": {"type": "json_object"}}, "response_format", "response_format isn't supported"),
    ({"prompt": "Hi"}, "prompt", '"prompt" isn\'t a parameter of this request'),
    ({"echo": True}, "echo", '"echo" isn\'t a parameter of this request'),
    ({"temperature": 3}, "temperature", "temperature is 3: it must be a number from 0 to 2."),
    ({"n": 129}, "n", "n is 129"),
    ({"stop": [""]}, "stop", "stop[0] is empty"),
]


@pytest.mark.parametrize(("parameters", "param", "fault"), INVALID, ids=lambda x: json.dumps(x)[:40])
def test_invalid_parameter_is_400_with_its_name_and_the_reason(parameters, param, fault, server):
    error = server.error(400, PATH, **{"messages": HI} | parameters)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert fault in error["message"]
    assert error["message"].endswith(".")


def test_unknown_model_is_404(server):
    assert server.error(404, PATH, messages=HI, model="gpt-5")["code"] == "model_not_found"


def test_conversation_longer_than_the_context_is_400_in_openai_s_words(server):
    room = 256 - len(T.encode(render(TEMPLATE, "")))
    longest = next(n for n in range(room, 0, -1) if len(T.encode(render(TEMPLATE, "the " * n))) == 255)
    full = [{"role": "user", "content": "the " * longest}]
    assert ask(server, full, max_tokens=1)["usage"]["total_tokens"] == 256
    error = server.error(400, PATH, messages=full, max_tokens=2)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")
    assert error["message"] == (
        "This model's maximum context length is 256 tokens, however you requested 257 tokens (255 in your messages; 2 "
        "for the completion). Please reduce your messages; or completion length."
    )
    error = server.error(400, PATH, messages=[{"role": "user", "content": "the " * (longest + 1)}])
    assert "however you requested 257 tokens (256 in your messages; 1 for the completion)" in error["message"]
    error = server.error(400, PATH, messages=[{"role": "user", "content": "the " * (longest + 50)}])
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a" * 10**6}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}] * 300 + HI,
    ],
    ids=["long", "many"],
)
def test_conversation_far_over_the_context_is_refused_without_tokenizing_it(messages, server):
    error = server.error(400, PATH, messages=messages)
    assert error["code"] == "context_length_exceeded"
    assert "however there are at least " in error["message"]


def test_models_and_tokenizer_info_have_the_template(server):
    turn = "{message} One day,{answer}<|endoftext|>"
    assert server.get("/v1/models/storyteller").json()["chat_template"] == turn
    assert "' One day,'" in server.get("/tokenizer_info").json()["chat_template"].replace('"', "'")


def test_completions_of_a_model_with_a_template_take_no_template(server):
    ids = T.encode(HI[0]["content"])
    found = server.complete(prompt=HI[0]["content"], temperature=0, max_tokens=12)["choices"][0]["text"]
    assert found == T.decode(complete(M, ids, 12, temperature=0))
