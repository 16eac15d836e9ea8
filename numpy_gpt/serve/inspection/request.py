"""Read and check the fields of a request, and provide the tensors of its prompt."""

import operator
from functools import cached_property
from typing import Any

import numpy as np

from ...checks import check_ids
from ...errors import GPTError
from ...number import is_index
from ...params import Model
from ..parameters import shown
from .functions import InspectionFunctions
from .last_run import LAST, Run

REQUIRED = object()


class Request:
    """Hold the model, the ids of the prompt and the fields of the view

    Fields are checked when they are read. The forward runs when the first tensor is read, so an invalid field should be
    read before.
    """

    def __init__(self, functions: InspectionFunctions, m: Model, body: dict[str, Any]):
        self.functions, self.m, self.body = functions, m, body
        self.tokenizer = m.tokenizer
        self.ids = self.read_prompt()

    def read_prompt(self) -> list[int]:
        """Return the ids of the prompt, at least one and at most n_ctx"""
        prompt, config = self.body.get("prompt"), self.m.config
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise GPTError("the model has no tokenizer: give the prompt as a list of token ids.")
            ids = self.tokenizer.encode(prompt)
        elif isinstance(prompt, list) and all(map(is_index, prompt)):
            ids = prompt
        else:
            raise GPTError(f"prompt is {shown(prompt)}: it must be a text or a list of token ids.")
        if not ids:
            raise GPTError("prompt is empty: it must have at least one token.")
        if len(ids) > config.n_ctx:
            raise GPTError(f"prompt has {len(ids)} tokens, and the model's context is {config.n_ctx}: shorten it.")
        check_ids(np.array(ids), config, "prompt")
        return list(map(int, ids))

    def whole(self, name: str, low: int, high: int, default: Any = REQUIRED) -> Any:
        """Return a field that is a whole number from low to high, or the default if it is absent"""
        value = self.body.get(name, default)
        if value is REQUIRED:
            raise GPTError(f"{name} is missing: give a whole number from {low} to {high}.")
        return default if value is default else check_whole(value, name, low, high)

    def position(self) -> int:
        """Return the index of a token of the prompt"""
        return self.whole("position", 0, len(self.ids) - 1)

    def layer(self) -> int:
        """Return the number of a block"""
        return self.whole("layer", 0, self.m.config.n_layer - 1)

    def head(self) -> int:
        """Return the number of a head in a block"""
        return self.whole("head", 0, self.m.config.n_head - 1)

    def token_id(self, name: str) -> int | None:
        """Return a token id, or None if the field is absent"""
        return self.whole(name, 0, self.n_vocab - 1, None)

    @property
    def n_vocab(self) -> int:
        """Return the number of ids that can be drawn; a padded vocabulary has more ids, which have no text"""
        return self.tokenizer.n_vocab if self.tokenizer else self.m.config.n_vocab

    @cached_property
    def run(self) -> Run:
        """Return the model with NumPy arrays and the tensors of the prompt's forward"""
        return LAST.get(self.functions, self.m, self.ids)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Return the tensors of the prompt's forward"""
        return self.run.tensors

    def logits(self, position: int) -> np.ndarray:
        """Return the logits (V,) of the token after a position, of the ids that can be drawn"""
        return self.tensors["logits"][position, : self.n_vocab]

    def token(self, i: int) -> dict[str, Any]:
        """Return the id, text and bytes of a token for JSON"""
        i = int(i)
        if self.tokenizer is None or i >= self.n_vocab:
            return {"id": i, "text": None, "bytes": None}
        content = self.tokenizer.token(i)
        try:
            text = content.decode()
        except UnicodeDecodeError:  # a part of a character
            text = None
        return {"id": i, "text": text, "bytes": content.hex()}


def check_whole(value: Any, name: str, low: int, high: int) -> int:
    """Return value as an int; raise GPTError unless it is a whole number from low to high"""
    if not is_index(value) or not low <= value <= high:
        raise GPTError(f"{name} is {shown(value)}: it must be a whole number from {low} to {high}.")
    return operator.index(value)
