"""Is every request answered, or refused with an explanation?"""

from contextlib import suppress

import pytest

pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
from hypothesis import given, settings
from hypothesis import strategies as st
from inspecting import IDS, M

from numpy_gpt import GPTError
from numpy_gpt.serve.inspection import FUNCTIONS, VIEWS, answer

few = settings(max_examples=150, deadline=None, derandomize=True, database=None)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=2)
)
FITTING = st.integers(0, 6) | st.lists(st.integers(0, 6), min_size=1, max_size=3) | st.sampled_from(["emb", "logits"])
PROMPTS = st.just(IDS) | st.lists(st.integers(0, 60), max_size=4) | VALUES


@given(st.data())
@few
def test_any_fields_are_answered_or_refused(data):
    view = data.draw(st.sampled_from([*VIEWS]))
    _, fields = VIEWS[view]
    chosen = [name for name in fields if data.draw(st.integers(0, 9))]  # now and then one is missing
    body = {name: data.draw(FITTING | VALUES) for name in chosen}
    with suppress(GPTError):
        assert answer(FUNCTIONS, M, body | {"view": view, "prompt": data.draw(PROMPTS)})


@given(VALUES)
@few
def test_any_json_but_a_request_is_refused(body):
    with pytest.raises(GPTError):
        answer(FUNCTIONS, M, body)
