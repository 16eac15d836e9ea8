"""Test that the openai client reads the responses, streams and errors."""

import pytest
from serving import ONCE, M

from numpy_gpt import complete

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


def test_models_lists_and_retrieves_the_model(client):
    assert [model.id for model in client.models.list()] == ["storyteller"]
    assert client.models.retrieve("storyteller").max_model_len == 256


def test_prompts_of_ids_are_accepted(client):
    ids = M.tokenizer.encode(ONCE)
    completion = client.completions.create(**PARAMETERS | {"prompt": [ids, ids[:2]]})
    assert completion.choices[0].text == TEXT
    assert len(completion.choices) == 2
