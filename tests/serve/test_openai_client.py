"""Test that the openai client reads the responses, streams and errors."""

import pytest
from serving import ONCE, M, running

from numpy_gpt import complete
from numpy_gpt.text.template import Template

openai = pytest.importorskip("openai", reason="the openai client isn't installed: pip install -e '.[ci]'")

PARAMETERS = {"model": "storyteller", "prompt": ONCE, "max_tokens": 12, "temperature": 0.8, "top_p": 0.95, "seed": 5}
TEXT = M.tokenizer.decode(complete(M, M.tokenizer.encode(ONCE), 12, 0.8, top_p=0.95, seed=5))


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_completion_has_text_logprobs_and_usage(client):
    completion = client.completions.create(**PARAMETERS, logprobs=2, echo=True)
    (choice,) = completion.choices
    assert choice.text == ONCE + TEXT
    assert choice.finish_reason == "length"
    assert choice.logprobs.token_logprobs[0] is None
    assert "".join(choice.logprobs.tokens) == ONCE + TEXT
    assert completion.usage.total_tokens == 16


def test_stream_yields_the_text_and_the_usage(client):
    stream = client.completions.create(**PARAMETERS, n=2, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices[0].index == 0) == TEXT
    assert last.choices == []
    assert last.usage.completion_tokens == 24


def test_every_parameter_of_the_client_is_accepted(client):
    completion = client.completions.create(
        **PARAMETERS,
        best_of=2,
        echo=False,
        frequency_penalty=0.5,
        logit_bias={"300": -100},
        logprobs=5,
        n=1,
        presence_penalty=-0.5,
        stop=["\n\n", "."],
        stream=False,
        user="someone",
        extra_body={"top_k": 50},
    )
    assert completion.choices[0].finish_reason in ("length", "stop")


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"suffix": "end"}, openai.BadRequestError, "suffix"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
    ],
)
def test_error_is_the_client_s_exception_with_the_parameter(client, change, error, param):
    with pytest.raises(error) as raised:
        client.completions.create(**PARAMETERS | change)
    assert raised.value.param == param
    assert raised.value.type == "invalid_request_error"


def test_chat_is_a_bad_request(client):
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model="storyteller", messages=[{"role": "user", "content": "Hi"}])


@pytest.fixture(scope="module")
def chat():
    """Return a function that sends a chat to the storyteller with a template"""
    template = Template("{instruction} One day,", "{instruction}\n{input}\nOne day,")
    with (
        running(template=template) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client.chat.completions


CHAT = {"model": "storyteller", "max_tokens": 12, "temperature": 0.8, "top_p": 0.95, "seed": 5}
HI = {"role": "user", "content": "Tom had a ball."}
ANSWER = M.tokenizer.decode(complete(M, M.tokenizer.encode("Tom had a ball. One day,"), 12, 0.8, top_p=0.95, seed=5))


def test_chat_has_the_answer_logprobs_and_usage(chat):
    completion = chat.create(**CHAT, messages=[HI], logprobs=True, top_logprobs=2)
    (choice,) = completion.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ANSWER, "length")
    assert "".join(token.token for token in choice.logprobs.content) == ANSWER
    assert {len(token.top_logprobs) for token in choice.logprobs.content} == {2}
    assert completion.usage.completion_tokens == 12


def test_chat_continues_after_the_message_of_a_response(chat):
    message = chat.create(**CHAT, messages=[HI]).choices[0].message
    completion = chat.create(**CHAT, messages=[HI, message, {"role": "user", "content": "Then?"}])
    t = M.tokenizer
    ids = [*t.encode("Tom had a ball. One day,"), *t.encode(ANSWER), t.eot, *t.encode("Then? One day,")]
    assert completion.choices[0].message.content == t.decode(complete(M, ids, 12, 0.8, top_p=0.95, seed=5))
    assert completion.usage.prompt_tokens == len(ids)


def test_chat_stream_yields_the_answer_and_the_usage(chat):
    stream = chat.create(**CHAT, messages=[HI], n=2, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices[0].index == 0]
    assert "".join(texts) == ANSWER
    assert (last.choices, last.usage.completion_tokens) == ([], 24)


def test_chat_stream_is_accumulated_by_the_client(chat):
    bias = {str(M.tokenizer.eot): 10}  # the answer has one sentence
    parameters = CHAT | {"temperature": 0, "max_tokens": 20, "logit_bias": bias}
    with chat.stream(**parameters, messages=[HI], logprobs=True) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    (choice,) = final.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert choice.message.content == "".join(deltas)
    assert choice.message.content == chat.create(**parameters, messages=[HI]).choices[0].message.content
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content


def test_every_parameter_of_a_chat_that_completions_have_is_accepted(chat):
    completion = chat.create(
        **CHAT,
        messages=[{"role": "system", "content": "Be kind."}, HI],
        frequency_penalty=0.5,
        logit_bias={"300": -100},
        n=1,
        presence_penalty=-0.5,
        stop=["\n\n", "."],
        stream=False,
        user="someone",
        extra_body={"top_k": 50},
    )
    assert completion.choices[0].finish_reason in ("length", "stop")


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
    ],
)
def test_error_of_a_chat_is_the_client_s_exception_with_the_parameter(chat, change, error, param):
    with pytest.raises(error) as raised:
        chat.create(**CHAT | {"messages": [HI]} | change)
    assert raised.value.param == param


def test_models_lists_and_retrieves_the_model(client):
    assert [model.id for model in client.models.list()] == ["storyteller"]
    assert client.models.retrieve("storyteller").max_model_len == 256


def test_prompts_of_ids_are_accepted(client):
    ids = M.tokenizer.encode(ONCE)
    completion = client.completions.create(**PARAMETERS | {"prompt": [ids, ids[:2]]})
    assert completion.choices[0].text == TEXT
    assert len(completion.choices) == 2
