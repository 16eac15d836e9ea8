"""What python -m numpy_gpt.generate shows of its samples: text as it comes, a line for each token, or JSON."""

import argparse
import json
import math
import sys
import time
from typing import Any

from ..system.cli import print_stderr, uninterrupted
from ..text.tokenizer import Tokenizer
from .sampling import likeliest
from .scheduler import Draw
from .stopping import Text

REASONS = {"id": "eot", "text": "stop", "length": "length"}  # the only id that ends a sample is eot

PIECE = 1000  # characters: a pipe takes so few whole, where Python's unbuffered stdout would lose the rest of more


class Sample:
    """One of them: `unshown` is what is to be shown next, as soon as that may be"""

    def __init__(self, tokenizer: Tokenizer, args: argparse.Namespace, seed: int, number: int, prompt_tokens: int):
        self.tokenizer = tokenizer
        self.args = args
        self.told = {"prompt_tokens": prompt_tokens, "seed": seed, "sample": number, "model": args.model}
        self.text = Text(tokenizer, args.stop)
        self.tokens: list[int] = []
        self.steps: list[dict[str, Any]] = []
        self.unshown = ""
        self.ended = False

    def take(self, draw: Draw) -> None:
        if draw.end == "id":
            return
        self.tokens.append(draw.token)
        new = self.text.feed(draw.token)
        if draw.logits is not None:
            self.steps.append(self.step(draw))
            new = line(self.steps[-1])
        if not self.args.json:
            self.unshown += new

    def step(self, draw: Draw) -> dict[str, Any]:
        best, logprobs = likeliest(draw.logits, self.args.logprobs)
        token, *others = (self.told_of(i, float(logprobs[i])) for i in [draw.token, *best.tolist()])
        return token | {"best": others}

    def told_of(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.decode([token])
        return {"id": token, "text": text, "logprob": logprob, "probability": math.exp(logprob)}

    def end(self, reason: str | None, timings: dict[str, float | None]) -> None:
        self.ended = True
        rest = self.text.end()
        if self.args.json:
            told = {"text": self.text.said, "tokens": self.tokens, "finish_reason": reason, **self.told}
            steps = {"logprobs": self.steps} if self.args.logprobs else {}
            self.unshown = json.dumps(told | steps | {"timings": timings}) + "\n"
        elif not self.args.logprobs:
            self.unshown += rest + "\n"


def line(step: dict[str, Any]) -> str:
    """The token and its probability in 24 columns, then those of the best: "," 0.773   "," 0.773, " there" 0.221"""
    tokens = [step, *step["best"]]
    token, *best = (f"{json.dumps(t['text'], ensure_ascii=False)} {t['probability']:.3f}" for t in tokens)
    return f"{token:24} {', '.join(best)}\n"


class Show:
    """Shows the first sample as it comes, then what there is of the next, and so on"""

    def __init__(self, samples: list[Sample], args: argparse.Namespace, prompt: str, load_s: float):
        self.samples = samples
        self.args = args
        self.load_s = load_s
        self.shown = 0  # samples, completely
        self.drawn = [0] * len(samples)
        self.started = time.perf_counter()
        self.first: float | None = None  # when the first token was there
        plain = not args.json and not args.logprobs
        self.prompt = prompt if plain and sys.stdout and sys.stdout.isatty() else ""
        self.separator = "" if args.json else "---\n"
        self.write(self.prompt)

    def take(self, draw: Draw) -> None:
        self.first = self.first or time.perf_counter()
        self.drawn[draw.prompt] += 1
        sample = self.samples[draw.prompt]
        sample.take(draw)
        if draw.end:
            sample.end(REASONS[draw.end], self.timings(self.drawn[draw.prompt]))
        self.show()

    def show(self) -> None:
        while self.shown < len(self.samples):
            sample = self.samples[self.shown]
            if sample.ended or not self.args.no_stream:
                with uninterrupted():  # nothing is shown by half, or twice
                    self.write(sample.unshown)
                    sample.unshown = ""
            if not sample.ended:
                return
            self.shown += 1
            if self.shown < len(self.samples):
                self.write(self.separator + self.prompt)

    def end(self, reason: str | None) -> None:
        """End those that haven't, for this reason; a terminal is told how long all of them took"""
        for sample, drawn in zip(self.samples, self.drawn, strict=True):
            if not sample.ended:
                sample.end(reason, self.timings(drawn))
        self.show()
        if sys.stderr and sys.stderr.isatty():
            timings = self.timings(sum(self.drawn), len(self.samples))
            told = ", ".join(f"{name} {number:.3g}" for name, number in timings.items() if number is not None)
            print_stderr(f"{sum(self.drawn)} tokens: {told}")

    def timings(self, drawn: int, samples: int = 1) -> dict[str, float | None]:
        """What so many tokens took; the first of each sample comes with the prefill"""
        first = self.first or self.started
        decode_s = time.perf_counter() - first if self.first else 0.0
        return {
            "load_s": self.load_s,
            "prefill_s": first - self.started,
            "decode_s": decode_s,
            "tokens_per_s": (drawn - samples) / decode_s if drawn > samples else None,
        }

    @staticmethod
    def write(text: str) -> None:
        for start in range(0, len(text) if sys.stdout else 0, PIECE):
            print(text[start : start + PIECE], end="", flush=True)
