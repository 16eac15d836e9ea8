"""Test /v1/completions: results equal those of the library, in every combination of echo, logprobs, stream and n."""

import itertools
from collections import Counter

import numpy as np
import pytest
from serving import ONCE, M

from numpy_gpt import complete, complete_batch, forward
from numpy_gpt.generate.sampling import likeliest

IDS = M.tokenizer.encode(ONCE)
EMOJI = "\U0001f60a"  # four tokens, none of which is a character
SEEDED = {"prompt": ONCE, "max_tokens": 12, "temperature": 0.8, "top_p": 0.95, "seed": 5}


def text(ids, n=12, temperature=0.8, top_p=0.95, seed=5, **options):
    return M.tokenizer.decode(complete(M, ids, n, temperature, top_p=top_p, seed=seed, **options))


def reference(ids):
    """Return the logprobs of all ids after each of the tokens, from one forward"""
    return [likeliest(z, 1)[1] for z in forward(M, np.array([ids]))[0]]


def test_text_is_that_of_complete_with_the_same_seed(server):
    (choice,) = server.complete(**SEEDED)["choices"]
    assert choice == {"text": text(IDS), "index": 0, "logprobs": None, "finish_reason": "length"}


def test_response_has_openai_s_fields(server):
    response = server.complete(**SEEDED)
    assert list(response) == ["id", "object", "created", "model", "choices", "usage"]
    assert response["id"].startswith("cmpl-")
    assert (response["object"], response["model"]) == ("text_completion", "storyteller")
    assert response["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}


@pytest.mark.parametrize(("echo", "logprobs", "stream", "n"), [*itertools.product([0, 1], [None, 2], [0, 1], [1, 3])])
def test_echo_logprobs_stream_and_n_work_in_every_combination(server, echo, logprobs, stream, n):
    response = server.complete(**SEEDED, echo=bool(echo), logprobs=logprobs, stream=bool(stream), n=n)
    start = len(ONCE) if not echo else 0
    for number, choice in enumerate(response["choices"]):
        new = text(IDS, sample=number)
        assert choice["text"] == (ONCE + new if echo else new)
        assert choice["index"] == number
        if logprobs is None:
            assert choice["logprobs"] is None
            continue
        found = choice["logprobs"]
        assert "".join(found["tokens"]) == choice["text"]
        assert len({len(values) for values in found.values()}) == 1
        lengths = [len(token) for token in found["tokens"]]
        assert found["text_offset"] == [start + sum(lengths[:i]) for i in range(len(lengths))]
    assert len(response["choices"]) == n


def test_logprobs_are_those_of_one_forward(server):
    (choice,) = server.complete(**SEEDED, echo=True, logprobs=3, logit_bias={"300": -3}, presence_penalty=0.5)[
        "choices"
    ]
    ids = [*IDS, *M.tokenizer.encode(choice["text"][len(ONCE) :])]
    expected = reference(ids)
    found = choice["logprobs"]
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    for i, token in enumerate(ids[1:]):
        assert found["token_logprobs"][i + 1] == pytest.approx(expected[i][token], abs=1e-4)
        best = np.argsort(-expected[i])[:3].tolist()
        names = {M.tokenizer.decode([other]) for other in [*best, token]}
        assert set(found["top_logprobs"][i + 1]) == names
        assert found["top_logprobs"][i + 1][found["tokens"][i + 1]] == found["token_logprobs"][i + 1]


def test_logprobs_0_returns_the_logprob_of_the_drawn_token_alone(server):
    (choice,) = server.complete(**SEEDED, logprobs=0)["choices"]
    found = choice["logprobs"]
    drawn = zip(found["tokens"], found["token_logprobs"], strict=True)
    assert found["top_logprobs"] == [{token: logprob} for token, logprob in drawn]


def test_echo_with_max_tokens_0_scores_the_prompt(server):
    (choice,) = server.complete(prompt=ONCE, max_tokens=0, echo=True, logprobs=1)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (ONCE, "length")
    assert choice["logprobs"]["tokens"] == ["Once", " upon", " a", " time"]


def test_max_tokens_0_without_echo_returns_an_empty_text(server):
    for stream in (False, True):
        (choice,) = server.complete(prompt=ONCE, max_tokens=0, stream=stream)["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("", "length")


def test_text_offset_counts_characters(server):
    (choice,) = server.complete(prompt=f"é{EMOJI} a", max_tokens=0, echo=True, logprobs=0)["choices"]
    found = choice["logprobs"]
    offsets = dict(zip(found["tokens"][::-1], found["text_offset"][::-1], strict=True))
    assert offsets["bytes:\\xf0"] == 1
    assert found["text_offset"][-1] == 2  # " a" follows two characters of six bytes


def test_part_of_a_character_is_written_as_bytes(server):
    (choice,) = server.complete(prompt=EMOJI, max_tokens=0, echo=True, logprobs=5)["choices"]
    assert choice["text"] == EMOJI
    assert choice["logprobs"]["tokens"] == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x8a"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 0, 0]
    for i, best in enumerate(choice["logprobs"]["top_logprobs"][1:], 1):
        assert len(best) == 5 + (choice["logprobs"]["tokens"][i] not in list(best)[:5])
        assert "\ufffd" not in "".join(best)


def test_stop_string_over_several_tokens_never_leaks(server):
    whole = text(IDS, n=60)
    stop = whole[30:55]
    for stream in (False, True):
        parameters = {**SEEDED, "max_tokens": 60, "stop": [stop], "logprobs": 0, "stream": stream}
        (choice,) = server.complete(**parameters)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")
        *tokens, last = choice["logprobs"]["tokens"]
        assert len("".join(tokens)) < len(choice["text"]) <= len("".join([*tokens, last]))
    chunks = server.chunks(**SEEDED | {"max_tokens": 60, "stop": stop})
    for i in range(len(chunks)):
        assert whole.startswith("".join(chunk["choices"][0]["text"] for chunk in chunks[:i]))


def test_text_that_only_begins_like_a_stop_string_is_returned(server):
    whole = text(IDS)
    for stream in (False, True):
        (choice,) = server.complete(**SEEDED, stop=[whole[10:] + "?"], stream=stream, logprobs=0)["choices"]
        assert (choice["text"], choice["finish_reason"]) == (whole, "length")
        assert "".join(choice["logprobs"]["tokens"]) == whole


def test_end_of_text_stops_and_its_logprob_is_returned(server):
    parameters = {"prompt": ONCE, "max_tokens": 5, "logit_bias": {str(M.tokenizer.eot): 100}, "logprobs": 1}
    for stream in (False, True):
        response = server.complete(
            **parameters, echo=True, stream=stream, stream_options={"include_usage": True} if stream else None
        )
        (choice,) = response["choices"]
        assert (choice["text"], choice["finish_reason"]) == (ONCE, "stop")
        assert choice["logprobs"]["tokens"][4:] == ["<|endoftext|>"]
        assert choice["logprobs"]["text_offset"][4:] == [len(ONCE)]
        assert response["usage"]["completion_tokens"] == 1


def test_usage_is_the_last_chunk_and_has_no_choices(server):
    *chunks, last = server.chunks(**SEEDED, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert all("usage" not in chunk for chunk in server.chunks(**SEEDED))


def test_stream_arrives_token_by_token(server):
    chunks = server.chunks(**SEEDED)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 11 + ["length"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text(IDS)


def test_prompts_may_be_texts_or_ids_alone_or_in_a_list(server):
    other = "The dog"
    ids = M.tokenizer.encode(other)
    both = [text(IDS), text(ids)]
    for prompt in ([ONCE, other], [IDS, ids]):
        response = server.complete(**SEEDED | {"prompt": prompt})
        assert [choice["text"] for choice in response["choices"]] == both
        assert response["usage"]["prompt_tokens"] == len(IDS) + len(ids)
    assert server.complete(**SEEDED | {"prompt": ids})["choices"][0]["text"] == both[1]


def test_choices_of_several_prompts_are_numbered_in_order(server):
    response = server.complete(**SEEDED | {"prompt": [ONCE, "The dog"], "n": 2})
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2, 3]
    assert response["choices"][1]["text"] == text(IDS, sample=1)
    assert response["choices"][3]["text"] == text(M.tokenizer.encode("The dog"), sample=1)


def test_repeated_prompt_gets_other_samples(server):
    response = server.complete(**SEEDED | {"prompt": [ONCE, ONCE]})
    assert [choice["text"] for choice in response["choices"]] == [text(IDS), text(IDS, sample=1)]


def test_without_a_seed_texts_differ(server):
    parameters = {"prompt": [ONCE, ONCE], "n": 2, "max_tokens": 40, "temperature": 1.5}
    found = {choice["text"] for _ in range(2) for choice in server.complete(**parameters)["choices"]}
    assert len(found) == 8


def test_negative_seed_is_taken_modulo_2_to_the_64(server):
    assert server.complete(**SEEDED | {"seed": -1})["choices"][0]["text"] == text(IDS, seed=2**64 - 1)


def test_best_of_returns_the_best_mean_logprob_and_counts_all_tokens(server):
    parameters = {**SEEDED, "temperature": 1.5, "top_p": 1, "logprobs": 0, "logit_bias": {str(M.tokenizer.eot): 6}}
    everything = server.complete(**parameters, n=6)
    logprobs = {c["text"]: c["logprobs"]["token_logprobs"] for c in everything["choices"]}
    best = sorted(logprobs, key=lambda text: np.mean(logprobs[text]))[:-3:-1]
    assert best != sorted(logprobs, key=lambda text: np.sum(logprobs[text]))[:-3:-1]
    response = server.complete(**parameters, n=2, best_of=6)
    assert [c["text"] for c in response["choices"]] == best
    assert [c["index"] for c in response["choices"]] == [0, 1]
    assert response["usage"] == everything["usage"]
    without = server.complete(**parameters | {"logprobs": None}, n=2, best_of=6)
    assert [c["text"] for c in without["choices"]] == [c["text"] for c in response["choices"]]
    assert without["choices"][0]["logprobs"] is None


def mean_logprob(ids, new):
    """Return the mean log-probability of new tokens after ids, by one forward of the library"""
    z = forward(M, [ids + new[:-1]])[0, len(ids) - 1 :].astype(np.float64)
    return np.mean(z[range(len(new)), new] - np.log(np.exp(z).sum(-1)))


def test_best_of_ranks_each_prompts_candidates_as_the_library_scores_them(server):
    prompts, expected = [ONCE, "The dog"], []
    for prompt in prompts:
        ids = M.tokenizer.encode(prompt)
        candidates = complete_batch(M, [ids] * 6, 12, 1.5, 0, 1.0, 5)
        assert all(M.tokenizer.eot not in new for new in candidates)  # it would end the server's text
        ranked = sorted(candidates, key=lambda new: mean_logprob(ids, new), reverse=True)
        expected += [prompt + M.tokenizer.decode(new) for new in ranked[:2]]
    response = server.complete(prompt=prompts, max_tokens=12, temperature=1.5, seed=5, n=2, best_of=6, echo=True)
    assert [choice["text"] for choice in response["choices"]] == expected


def test_logit_bias_bans_and_forces_tokens(server):
    token = M.tokenizer.encode(" dog")[0]
    forced = server.complete(**SEEDED, logit_bias={str(token): 100})["choices"][0]["text"]
    assert forced == " dog" * 12
    first = M.tokenizer.encode(text(IDS, temperature=0))[0]
    banned = server.complete(prompt=ONCE, temperature=0, logit_bias={str(first): -100})["choices"][0]["text"]
    assert first not in M.tokenizer.encode(banned)


def test_penalties_are_those_of_the_formula(server):
    ids = list(IDS)
    for _ in range(48):
        z = forward(M, np.array([ids]))[0, -1].astype(np.float64)
        for token, count in Counter(ids[len(IDS) :]).items():
            z[token] -= 1.5 * count + 0.5
        ids.append(int(z.argmax()))
    expected = M.tokenizer.decode(ids[len(IDS) :])
    assert expected != text(IDS, n=48, temperature=0)
    parameters = {"prompt": ONCE, "max_tokens": 48, "temperature": 0}
    (choice,) = server.complete(**parameters, frequency_penalty=1.5, presence_penalty=0.5)["choices"]
    assert choice["text"] == expected


def test_top_k_1_takes_the_best_token(server):
    assert server.complete(**SEEDED, top_k=1)["choices"][0]["text"] == text(IDS, temperature=0)


def test_empty_or_absent_prompt_continues_end_of_text(server):
    expected = text([M.tokenizer.eot])
    for prompt in ({"prompt": ""}, {"prompt": None}, {}, {"prompt": [""]}):
        parameters = {name: value for name, value in SEEDED.items() if name != "prompt"} | prompt
        response = server.complete(**parameters, echo=True, logprobs=0)
        assert response["choices"][0]["text"] == expected
        assert "".join(response["choices"][0]["logprobs"]["tokens"]) == expected
        assert response["choices"][0]["logprobs"]["text_offset"][0] == 0
        assert response["usage"]["prompt_tokens"] == 1


def test_end_of_text_in_a_prompt_is_one_token(server):
    response = server.complete(**SEEDED | {"prompt": f"The end.<|endoftext|>{ONCE}"})
    ids = [*M.tokenizer.encode("The end."), M.tokenizer.eot, *IDS]
    assert response["choices"][0]["text"] == text(ids)


def test_html_is_returned_as_text_of_json(server):
    prompt = "<script>alert(1)</script>"
    response = server.get("/v1/models")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert server.complete(prompt=prompt, max_tokens=0, echo=True)["choices"][0]["text"] == prompt


def test_null_means_the_default(server):
    names = "max_tokens temperature top_p top_k n best_of seed stop logprobs echo logit_bias presence_penalty"
    nulls = dict.fromkeys([*names.split(), "frequency_penalty", "stream", "stream_options", "user", "model"])
    response = server.complete(prompt=ONCE, **nulls)
    assert response["usage"]["completion_tokens"] <= 16
    assert response["choices"][0]["logprobs"] is None
