"""Print samples while they are drawn: as streamed text, as one line per token with probabilities, or as JSON."""

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

REASONS = {"id": "eot", "text": "stop", "length": "length"}  # the command's only stop id is eot

PIECE = 1000  # characters per write: a pipe can cut a longer write short, and unbuffered stdout drops the rest


class Sample:
    """Collect the tokens and the text of one sample; `unprinted` is the output that can be printed next"""

    def __init__(self, tokenizer: Tokenizer, args: argparse.Namespace, seed: int, number: int, prompt_tokens: int):
        self.tokenizer = tokenizer
        self.args = args
        self.origin = {"prompt_tokens": prompt_tokens, "seed": seed, "sample": number, "model": args.model}
        self.decoder = tokenizer.decoder()
        self.text = ""
        self.tokens: list[int] = []
        self.steps: list[dict[str, Any]] = []
        self.unprinted = ""
        self.ended = False

    def add(self, draw: Draw) -> None:
        """Add a token; bytes that may belong to a stop string are held back from the text"""
        if draw.end == "id":
            return
        self.tokens.append(draw.token)
        new = self.decoder.feed(draw.token, draw.held)
        self.text += new
        if draw.logits is not None:
            self.steps.append(self.step(draw))
            new = line(self.steps[-1])
        if not self.args.json:
            self.unprinted += new

    def step(self, draw: Draw) -> dict[str, Any]:
        """Return the token and the most probable tokens with their probabilities"""
        best, logprobs = likeliest(draw.logits, self.args.logprobs)
        token, *others = (self.describe(i, float(logprobs[i])) for i in [draw.token, *best.tolist()])
        return token | {"best": others}

    def describe(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.tokenizer.decode([token])
        return {"id": token, "text": text, "logprob": logprob, "probability": math.exp(logprob)}

    def end(self, reason: str | None, timings: dict[str, float | None]) -> None:
        """Add the text that was held back, or drop it if it begins with a stop string"""
        self.ended = True
        rest = self.decoder.flush(drop_held=reason == "stop")
        self.text += rest
        if self.args.json:
            result = {"text": self.text, "tokens": self.tokens, "finish_reason": reason, **self.origin}
            steps = {"logprobs": self.steps} if self.args.logprobs else {}
            self.unprinted = json.dumps(result | steps | {"timings": timings}) + "\n"
        elif not self.args.logprobs:
            self.unprinted += rest + "\n"


def line(step: dict[str, Any]) -> str:
    """Return the token and its probability in 24 columns, then the best ones: "," 0.773   "," 0.773, " there" 0.221"""
    tokens = [step, *step["best"]]
    token, *best = (f"{json.dumps(t['text'], ensure_ascii=False)} {t['probability']:.3f}" for t in tokens)
    return f"{token:24} {', '.join(best)}\n"


class Printer:
    """Print the first sample while it is drawn; print the text of each next one when the one before it has ended"""

    def __init__(self, samples: list[Sample], args: argparse.Namespace, prompt: str, load_s: float):
        self.samples = samples
        self.args = args
        self.load_s = load_s
        self.printed = 0  # samples that are printed completely
        self.drawn = [0] * len(samples)
        self.started = time.perf_counter()
        self.first: float | None = None  # time of the first token
        plain = not args.json and not args.logprobs
        self.prompt = prompt if plain and sys.stdout and sys.stdout.isatty() else ""
        self.separator = "" if args.json else "---\n"
        self.write(self.prompt)

    def add(self, draw: Draw) -> None:
        """Add a token to its sample, and print the text that this completes"""
        self.first = self.first or time.perf_counter()
        self.drawn[draw.prompt] += 1
        sample = self.samples[draw.prompt]
        sample.add(draw)
        if draw.end:
            sample.end(REASONS[draw.end], self.timings(self.drawn[draw.prompt]))
        self.print_ready()

    def print_ready(self) -> None:
        """Print the new output of the first sample that hasn't been printed completely, then of the next ones"""
        while self.printed < len(self.samples):
            sample = self.samples[self.printed]
            if sample.ended or not self.args.no_stream:
                with uninterrupted():  # Ctrl-C between the two lines would print the text again
                    self.write(sample.unprinted)
                    sample.unprinted = ""
            if not sample.ended:
                return
            self.printed += 1
            if self.printed < len(self.samples):
                self.write(self.separator + self.prompt)

    def end(self, reason: str | None) -> None:
        """End the samples that haven't ended yet; print the timings of all if stderr is a terminal"""
        for sample, drawn in zip(self.samples, self.drawn, strict=True):
            if not sample.ended:
                sample.end(reason, self.timings(drawn))
        self.print_ready()
        if sys.stderr and sys.stderr.isatty():
            timings = self.timings(sum(self.drawn), len(self.samples))
            shown = ", ".join(f"{name} {number:.3g}" for name, number in timings.items() if number is not None)
            print_stderr(f"{sum(self.drawn)} tokens: {shown}")

    def timings(self, drawn: int, samples: int = 1) -> dict[str, float | None]:
        """Return the times until now, and the rate of the drawn tokens after each sample's first"""
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
