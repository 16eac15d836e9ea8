"""Does the inspection refuse invalid requests with a clear message, and keep the tensors of one prompt?"""

import json
import weakref
from dataclasses import replace
from threading import Barrier, Thread

import numpy as np
import pytest
from inspecting import IDS, M, ask

import numpy_gpt
from numpy_gpt import GPTError
from numpy_gpt.serve.inspection import FUNCTIONS, VIEWS, answer
from numpy_gpt.serve.inspection.last_run import LastRun
from numpy_gpt.text.tokenizer import EOT
from parity.inputs import TINY, random_model

FIELDS = {
    "tokens": {},
    "candidates": {"position": 1},
    "attention": {},
    "head": {"layer": 0, "head": 0},
    "row": {"layer": 0, "head": 0, "position": 1},
    "lens": {"positions": [1]},
    "attribution": {"position": 1},
    "backward": {"position": 1},
    "diagram": {"box": "emb", "position": 1},
}
STORYTELLER = numpy_gpt.load("storyteller")


def test_every_view_has_an_answer_for_json():
    assert {*FIELDS, "compare"} == VIEWS.keys()
    for view, fields in FIELDS.items():
        found = answer(FUNCTIONS, STORYTELLER, {"view": view, "prompt": "Once upon a time", **fields})
        assert isinstance(found, bytes) == (view == "head")
        if view != "head":
            json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("view", FIELDS)
def test_prompt_of_one_token_has_an_answer(view):
    fields = {name: [0] if name == "positions" else 0 for name in FIELDS[view]}
    assert ask(view, [3], **fields | ({"box": "emb"} if view == "diagram" else {}))


@pytest.mark.parametrize("view", FIELDS)
def test_vocabulary_of_one_token_has_an_answer(view):
    assert ask(view, [0, 0], random_model(replace(TINY, n_vocab=1)), **FIELDS[view])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "the request is null: it must be a JSON object"),
        ([], r"the request is \[\]"),
        ({}, "view is null: it must be one of tokens, candidates"),
        ({"view": "token"}, 'view is "token": it must be one of tokens'),
        ({"view": ["tokens"]}, r'view is \["tokens"\]'),
        ({"view": "tokens", "layer": 0}, 'the view tokens has no field "layer": its fields are view and prompt'),
        ({"view": "row", "count": 0}, 'no field "count": its fields are view, prompt, layer, head, position'),
        ({"view": "tokens"}, "prompt is null: it must be a text or a list"),
        ({"view": "tokens", "prompt": {}}, "prompt is {}"),
        ({"view": "tokens", "prompt": [True]}, r"prompt is \[true\]"),
        ({"view": "tokens", "prompt": [1.0]}, r"prompt is \[1.0\]"),
        ({"view": "tokens", "prompt": [[1]]}, r"prompt is \[\[1\]\]"),
        ({"view": "tokens", "prompt": ["a"]}, r'prompt is \["a"\]'),
        ({"view": "tokens", "prompt": []}, "prompt is empty"),
        ({"view": "tokens", "prompt": ""}, "prompt is empty"),
        ({"view": "tokens", "prompt": [-1]}, "prompt has the id -1"),
        ({"view": "tokens", "prompt": [4096]}, "prompt has the id 4096"),
        ({"view": "tokens", "prompt": [10**30]}, "prompt has the dtype object"),
        ({"view": "tokens", "prompt": [1] * 257}, "prompt has 257 tokens, and the model's context is 256"),
        ({"view": "compare", "prompt": [1]}, r"start python -m torch_gpt\.serve"),
    ],
)
def test_invalid_request_is_refused(body, message):
    with pytest.raises(GPTError, match=message):
        answer(FUNCTIONS, STORYTELLER, body)


@pytest.mark.parametrize(
    ("view", "fields", "message"),
    [
        ("candidates", {}, "position is missing: give a whole number from 0 to 6"),
        ("candidates", {"position": None}, "position is null"),
        ("candidates", {"position": 7}, "position is 7: it must be a whole number from 0 to 6"),
        ("candidates", {"position": -1}, "position is -1"),
        ("candidates", {"position": 1.0}, "position is 1.0"),
        ("candidates", {"position": True}, "position is true"),
        ("candidates", {"position": "1"}, 'position is "1"'),
        ("candidates", {"position": 10**400}, "position is 1000"),
        ("candidates", {"position": 1, "temperature": -1}, "temperature is -1"),
        ("candidates", {"position": 1, "temperature": float("nan")}, "temperature is NaN"),
        ("candidates", {"position": 1, "temperature": 10**400}, "temperature is 1000"),
        ("candidates", {"position": 1, "temperature": None}, "temperature is null: it must be a number"),
        ("candidates", {"position": 1, "top_k": -1}, "top_k is -1"),
        ("candidates", {"position": 1, "top_k": 1.5}, "top_k is 1.5"),
        ("candidates", {"position": 1, "top_p": 1.1}, "top_p is 1.1"),
        ("candidates", {"position": 1, "top_p": []}, r"top_p is \[\]"),
        ("head", {"layer": 2, "head": 0}, "layer is 2: it must be a whole number from 0 to 1"),
        ("head", {"layer": 0, "head": 3}, "head is 3: it must be a whole number from 0 to 2"),
        ("head", {"layer": 0, "head": 0, "first": 7}, "first is 7"),
        ("head", {"layer": 0, "head": 0, "first": 3, "count": 5}, "count is 5: it must be a whole number from 1 to 4"),
        ("head", {"layer": 0, "head": 0, "count": 0}, "count is 0"),
        ("row", {"layer": 0, "head": 0, "position": 7}, "position is 7"),
        ("lens", {}, "positions is null: it must be a list of 1 to 32"),
        ("lens", {"positions": []}, r"positions is \[\]"),
        ("lens", {"positions": [0] * 33}, r"positions is \[0, 0"),
        ("lens", {"positions": [7]}, r"positions\[0\] is 7: it must be a whole number from 0 to 6"),
        ("lens", {"positions": [0, "0"]}, r'positions\[1\] is "0"'),
        ("attribution", {"position": 0, "target": 61}, "target is 61: it must be a whole number from 0 to 60"),
        ("attribution", {"position": 0, "other": -1}, "other is -1"),
        ("backward", {"position": 0, "target": 61}, "target is 61"),
        ("diagram", {"position": 0}, r"box is null: it must be one of emb, .*, h\.0\.ln_1\.out"),
        ("diagram", {"position": 0, "box": "h.2.ln_1.out"}, r'box is "h\.2\.ln_1\.out"'),
        ("diagram", {"position": 0, "box": ["emb"]}, r'box is \["emb"\]'),
    ],
)
def test_invalid_field_is_refused_before_the_forward(view, fields, message):
    def fail(m, ids):
        raise AssertionError

    functions = FUNCTIONS._replace(run_forward=fail)
    with pytest.raises(GPTError, match=message):
        answer(functions, M._replace(), {"view": view, "prompt": IDS, **fields})


def test_text_without_a_tokenizer_is_refused():
    with pytest.raises(GPTError, match="the model has no tokenizer: give the prompt as a list"):
        ask("tokens", "text")


def test_text_and_its_ids_have_the_same_answer():
    text = f"Ann 😀 {EOT}\ud800"
    ids = STORYTELLER.tokenizer.encode(text)
    assert ask("tokens", text, STORYTELLER) == ask("tokens", ids, STORYTELLER)


@pytest.mark.parametrize("view", ["tokens", "backward"])
@pytest.mark.parametrize("name", ["h.0.mlp.c_fc.w", "head.w"])
def test_model_with_an_infinite_result_is_refused(view, name):
    m = random_model(replace(TINY, tied=False))
    dict(numpy_gpt.named(m.params))[name][...] = 1e38
    with pytest.raises(GPTError, match="not finite though every parameter is"):
        ask(view, m=m, **FIELDS[view])


def test_infinite_gradient_of_a_finite_output_is_refused():
    m = random_model(TINY)
    p = m.params.h[0]
    p.ln_2.g[...] = p.ln_2.b[...] = 0  # c_fc gets zeros
    p.mlp.c_fc.w[...] = np.copysign(3e38, p.mlp.c_fc.w)
    p.mlp.c_proj.w[...] *= 1000
    assert ask("tokens", m=m)
    with pytest.raises(GPTError, match="the gradient is not finite though every parameter is"):
        ask("backward", m=m, position=2)


def test_full_memory_is_an_error_with_a_remedy():
    def run_forward(m, ids):
        return np.empty(1 << 60, np.uint8)

    functions = FUNCTIONS._replace(run_forward=run_forward)
    with pytest.raises(GPTError, match="the memory is full: the view tokens needs a shorter prompt"):
        answer(functions, M._replace(), {"view": "tokens", "prompt": IDS})


class Counting:
    """Count the forwards of FUNCTIONS"""

    def __init__(self):
        self.forwards = 0
        self.functions = FUNCTIONS._replace(run_forward=self.run_forward)

    def run_forward(self, m, ids):
        self.forwards += 1
        return FUNCTIONS.run_forward(m, ids)


def test_second_view_of_a_prompt_runs_no_forward():
    counting = Counting()
    bodies = [{"view": view, "prompt": [8, 9, 10], **fields} for view, fields in FIELDS.items()]
    for body in bodies:
        answer(counting.functions, M._replace(), body)  # another model object: nothing of it is kept yet
    assert counting.forwards == len(bodies)
    for body in bodies:
        answer(counting.functions, M, body)
    assert counting.forwards == len(bodies) + 1


def test_another_prompt_or_model_runs_a_forward_of_its_own():
    last, counting, other = LastRun(), Counting(), random_model(TINY)
    for m, ids in ((M, [1]), (M, [1, 2]), (other, [1, 2]), (M, [1, 2])):
        run = last.get(counting.functions, m, ids)
        np.testing.assert_array_equal(run.tensors["logits"], FUNCTIONS.run_forward(m, ids)["logits"])
        assert run.m is m
    assert counting.forwards == 4


def test_tensors_of_the_last_prompt_are_freed_before_the_next_forward():
    last, alive = LastRun(), []

    def run_forward(m, ids):
        alive.append([a() is not None for a in arrays])
        return FUNCTIONS.run_forward(m, ids)

    def to_numpy(m):
        alive.append([a() is not None for a in arrays])
        return m

    arrays = []
    functions = FUNCTIONS._replace(run_forward=run_forward, to_numpy=to_numpy)
    for m, ids in ((M, [1]), (M, [2]), (M._replace(), [2])):
        arrays.append(weakref.ref(last.get(functions, m, ids).tensors["h.0.mlp.act"].base))
    assert alive == [[], [], [False], [False, False], [False, False]]


def test_failed_forward_is_run_again():
    last, counting = LastRun(), Counting()
    broken = random_model(TINY)
    broken.params.wte[...] = np.nan
    for _ in range(2):
        with pytest.raises(GPTError, match="not finite"):
            last.get(counting.functions, broken, [1])
    assert counting.forwards == 2


def test_threads_with_one_prompt_share_one_forward():
    last, counting, n = LastRun(), Counting(), 4
    barrier, runs = Barrier(n), []

    def work():
        barrier.wait(timeout=30)
        runs.append(last.get(counting.functions, M, [1, 2, 3]))

    threads = [Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.forwards == 1
    assert all(run is runs[0] for run in runs)
    assert len(runs) == n


def test_threads_with_different_prompts_get_their_own_answers():
    prompts = [[i, i + 1, i + 2] for i in range(4)]
    expected = [ask("tokens", ids) for ids in prompts]
    barrier, found = Barrier(len(prompts)), {}

    def work(i):
        barrier.wait(timeout=30)
        found[i] = [ask("tokens", prompts[i]) for _ in range(5)]

    threads = [Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: [expected[i]] * 5 for i in range(len(prompts))}
