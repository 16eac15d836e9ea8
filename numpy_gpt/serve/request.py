"""Check the parameters of a completion, as OpenAI defines them, with top_k besides."""

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import GPTError
from ..generate.options import DecodingOptions, check_stop
from ..generate.scheduler import number_samples
from ..params import Model
from .api_error import APIError
from .engine.sequence import Sequence
from .parameters import (
    Parameter,
    boolean,
    check_names,
    integer,
    number,
    read_all,
    real,
    shown,
    string,
    text,
)
from .prompt import Prompt, prompt_parameter

MAX_LOGPROBS = 5
MAX_SCORED = 10  # logprobs of a prompt alone: lm-evaluation-harness used to request 10
MAX_N = 128
MAX_BEST_OF = 20
MAX_SEQUENCES = 128  # of all prompts of a request
MAX_STOPS = 4
MAX_STOP = 1000  # characters
REFUSED = {"suffix": "suffix isn't supported: the model continues a text and can't insert into it; remove suffix."}


class Request(NamedTuple):
    """Hold the checked parameters of a completion"""

    prompts: list[Prompt]
    n: int
    candidates: int  # best_of, at least n
    options: DecodingOptions
    seeded: bool  # whether the request has a seed
    stop: list[str]
    logit_bias: dict[int, float]
    presence_penalty: float
    frequency_penalty: float
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool

    @property
    def ranked(self) -> bool:
        """Return whether only the best candidates are returned"""
        return self.candidates > self.n

    def sequences(self, eot: int | None) -> list[Sequence]:
        """Return the sequences to decode: all candidates of the first prompt, then those of the next one"""
        stop: list[int | str] = [*self.stop, *([] if eot is None else [eot])]
        scored = self.logprobs is not None
        return [
            Sequence(
                prompt.ids,
                options,
                stop,
                self.logit_bias,
                self.presence_penalty,
                self.frequency_penalty,
                0 if self.ranked and not scored else self.logprobs,
                prompt_logprobs=scored and self.echo and prompt.echoed,
            )
            for prompt, options in self.numbered()
        ]

    def numbered(self) -> Iterator[tuple[Prompt, DecodingOptions]]:
        """Yield each candidate's prompt, and its options with the number of the sample

        With a seed, a prompt that is given twice takes the next sample numbers, as in complete_batch. Without one, each
        prompt gets a random seed, so that the random numbers of different prompts are independent.
        """
        prompts = [prompt for prompt in self.prompts for _ in range(self.candidates)]
        if self.seeded:
            samples = number_samples([prompt.ids for prompt in prompts], 0)
            seeds = [self.options.seed] * len(prompts)
        else:
            samples = [*range(self.candidates)] * len(self.prompts)
            seeds = [seed for _ in self.prompts for seed in [secrets.randbits(64)] * self.candidates]
        for prompt, seed, sample in zip(prompts, seeds, samples, strict=True):
            yield prompt, self.options._replace(seed=seed, sample=sample)


def parameters(m: Model, model: str) -> dict[str, Parameter]:
    """Return the parameters of a completion by name; model is the model's name"""
    return {
        "model": model_parameter(model),
        "prompt": prompt_parameter(m.tokenizer, m.config.n_ctx),
        "max_tokens": integer("largest number of tokens to draw; 0 only reads the prompt", 0, None, 16),
        "temperature": number("divisor of the logits; 0 always takes the best token", 0, 2, 1.0),
        "top_p": number("draw from the best tokens that have this probability together; 1 keeps all", 0, 1, 1.0),
        "top_k": integer("draw from this many of the best tokens; 0 keeps all", 0, None, 0),
        "n": integer("number of choices per prompt", 1, MAX_N, 1),
        "best_of": integer("draw this many, and return the n with the best mean logprob", 1, MAX_BEST_OF),
        "seed": integer("seed of the random numbers, modulo 2**64; by default a random one", -(2**63), 2**64 - 1),
        "stop": Parameter(STOP, read_stop),
        "logprobs": integer("return the logprob of each token, and this many of the best tokens", 0, MAX_SCORED),
        "echo": boolean("return the prompt before the new text"),
        "logit_bias": Parameter(LOGIT_BIAS, bias_reader(m.tokenizer.n_vocab)),
        "presence_penalty": number("subtracted from the logits of tokens that were drawn before", -2, 2, 0.0),
        "frequency_penalty": number("subtracted once for each time that the token was drawn before", -2, 2, 0.0),
        "stream": boolean("send the text while it is drawn, as server-sent events"),
        "stream_options": Parameter(STREAM_OPTIONS, read_stream_options),
        "user": string("name of the end user; it has no effect"),
    }


def model_parameter(model: str) -> Parameter:
    """Return the parameter for the name of the model, which may be absent"""
    schema, read_string = string("name of the model, as in /v1/models; it may be absent")

    def read(name: str, value: Any) -> None:
        if read_string(name, value) not in (None, model):
            message = f"The model {shown(value)} does not exist: this server has {model}."
            raise APIError(message, name, status=404, code="model_not_found")

    return Parameter(schema, read)


def read_request(body: Any, known: dict[str, Parameter], n_ctx: int) -> Request:
    """Return the checked parameters in the body of a completion; raise APIError if they are invalid"""
    v = read_all(check_names(body, known, REFUSED), known)
    check_combinations(v)
    for prompt in v["prompt"]:
        check_length(len(prompt.ids), v["max_tokens"], n_ctx)
    return to_request(v)


def to_request(v: dict[str, Any]) -> Request:
    """Return the request with these values of the parameters of a completion"""
    seed = (v["seed"] or 0) % 2**64
    return Request(
        prompts=v["prompt"],
        n=v["n"],
        candidates=v["best_of"] or v["n"],
        options=DecodingOptions(v["max_tokens"], v["temperature"], v["top_k"], v["top_p"], seed),
        seeded=v["seed"] is not None,
        stop=v["stop"],
        logit_bias=v["logit_bias"],
        presence_penalty=v["presence_penalty"],
        frequency_penalty=v["frequency_penalty"],
        logprobs=v["logprobs"],
        echo=v["echo"],
        stream=v["stream"],
        include_usage=bool(v["stream_options"]),
    )


def check_combinations(v: dict[str, Any]) -> None:
    """Raise APIError if two parameters contradict each other"""
    n, best_of, stream = v["n"], v["best_of"], v["stream"]
    check_stream_options(v)
    if best_of is not None and best_of < n:
        raise APIError(f"best_of is {best_of} and n {n}: best_of must be at least n.", "best_of")
    if best_of is not None and best_of > n and stream:
        message = f"best_of is {best_of}: a stream can't choose the best; set stream to false, or best_of to n."
        raise APIError(message, "best_of")
    if (v["logprobs"] or 0) > MAX_LOGPROBS and not (v["echo"] and v["max_tokens"] == 0):
        message = (
            f"logprobs is {v['logprobs']}: it must be at most {MAX_LOGPROBS}; {MAX_SCORED} only with echo and "
            "max_tokens 0."
        )
        raise APIError(message, "logprobs")
    total = len(v["prompt"]) * (best_of or n)
    if total > MAX_SEQUENCES:
        raise APIError(f"the request has {total} sequences: send at most {MAX_SEQUENCES} in one request.", "prompt")


def check_stream_options(v: dict[str, Any]) -> None:
    """Raise APIError if there are options of a stream without a stream"""
    if v["stream_options"] is not None and not v["stream"]:
        raise APIError("stream_options needs stream: set stream to true, or remove stream_options.", "stream_options")


def check_length(prompt: int, new: int, n_ctx: int, name: str = "prompt") -> None:
    """Raise APIError if a prompt and the new tokens together exceed the context; name is the prompt's parameter"""
    if prompt + new > n_ctx:
        message = (
            f"This model's maximum context length is {n_ctx} tokens, however you requested {prompt + new} tokens "
            f"({prompt} in your {name}; {new} for the completion). Please reduce your {name}; or completion length."
        )
        raise APIError(message, name if prompt > n_ctx else "max_tokens", code="context_length_exceeded")


STOP = {
    "description": "texts that end the completion; they aren't returned",
    "default": None,
    "anyOf": [
        {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_STOP},
        {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": MAX_STOP}, "maxItems": MAX_STOPS},
    ],
}


def read_stop(name: str, value: Any) -> list[str]:
    """Return the stop strings"""
    stops = [] if value is None else value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise APIError(f"stop has {len(stops)} texts: send at most {MAX_STOPS}.", name)
    for i, stop in enumerate(stops):
        place = f"stop[{i}]" if isinstance(value, list) else name
        if not text(place, stop):
            raise APIError(f"{place} is empty: give at least one character, or remove it.", name)
        if len(stop) > MAX_STOP:
            raise APIError(f"{place} has {len(stop)} characters: give at most {MAX_STOP}.", name)
    try:
        check_stop(stops)
    except GPTError as e:
        raise APIError(str(e), name) from None
    return stops


LOGIT_BIAS = {
    "description": "numbers to add to the logits, by token id",
    "default": None,
    "type": ["object", "null"],
    "patternProperties": {"^(0|[1-9][0-9]*)$": {"type": "number", "minimum": -100, "maximum": 100}},
    "additionalProperties": False,
}


def bias_reader(n_vocab: int) -> Any:
    """Return a function that reads logit_bias for a vocabulary of this size"""

    def read(name: str, value: Any) -> dict[int, float]:
        if value is not None and not isinstance(value, dict):
            raise APIError(f"{name} is {shown(value)}: it must be an object of token ids and numbers.", name)
        return {
            token_id(name, key): real(f"{name}[{shown(key)}]", bias, -100, 100) for key, bias in (value or {}).items()
        }

    def token_id(name: str, key: str) -> int:
        if key.isascii() and key.isdigit() and len(key) < 10 and str(int(key)) == key and int(key) < n_vocab:
            return int(key)
        raise APIError(f"{name} has the key {shown(key)}: it must be a token id from 0 to {n_vocab - 1}.", name)

    return read


STREAM_OPTIONS = {
    "description": "include_usage: send the numbers of tokens before the end of the stream",
    "default": None,
    "type": ["object", "null"],
    "properties": {"include_usage": {"type": ["boolean", "null"]}, "include_obfuscation": {"enum": [False, None]}},
    "additionalProperties": False,
}


def read_stream_options(name: str, value: Any) -> bool | None:
    """Return include_usage, or None if there are no options"""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise APIError(f"{name} is {shown(value)}: it must be an object.", name)
    known = {option: boolean("") for option in ("include_usage", "include_obfuscation")}
    options = read_all(check_names(value, known), known)
    if options["include_obfuscation"]:
        raise APIError("include_obfuscation isn't supported: set it to false, or remove it.", name)
    return options["include_usage"]
