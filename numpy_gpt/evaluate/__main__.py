"""python -m numpy_gpt.evaluate: measure a model on text."""

import argparse
import json
import sys
from typing import Any

from tqdm import tqdm

from .. import fast
from ..checkpoint.source import load
from ..checks import check_tokenizer
from ..errors import GPTError
from ..language_model import forward
from ..ops import cross_entropy
from ..params import Model
from ..system.cli import parse, run
from ..text import token_cache, windows
from .metrics import format_measures, format_number, measure, token_lengths

TOKENS = 2048  # in a batch: their logits take half a gigabyte in the 124M
EPILOG = """examples:
  python -m numpy_gpt.evaluate perplexity story.txt
  python -m numpy_gpt.evaluate perplexity story.txt --model 124M --json
  zcat stories.gz | python -m numpy_gpt.evaluate perplexity /dev/stdin

The text is cut into windows of the model's context length. The loss is the mean over all tokens except the first, each
predicted from the tokens before it in its window. Perplexity is e to the power of the loss. bits/byte is the total loss
in bits, divided by the bytes of the text: it compares models with different vocabularies. <|endoftext|> separates
documents: its loss counts, and it has no bytes."""


def main() -> None:
    fast.tune()
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.evaluate",
        description="Measure a model on text that it wasn't trained on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=["perplexity"], help="loss, perplexity and bits per byte")
    parser.add_argument("file", metavar="FILE", help="text in UTF-8, a file or a pipe")
    parser.add_argument("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller)")
    keys = "loss, perplexity, bits_per_byte, tokens, model"
    parser.add_argument("--json", action="store_true", help=f"print a JSON object with the keys {keys}")
    args = parse(parser, sys.argv[1:])
    m = load(args.model)
    check_tokenizer(m.tokenizer, m.config, args.model)
    measured = perplexity(m, args.file)
    if args.json:
        print(json.dumps({**measured, "model": args.model}))
    else:
        measures = format_measures(measured["perplexity"], measured["bits_per_byte"])
        print(f"loss {format_number(measured['loss'], 4)}  {measures}  ({measured['tokens']:,} tokens)")


def perplexity(m: Model, file: str) -> dict[str, Any]:
    """Return the measures of a model on a text"""
    tokens = token_cache.tokenize([file], m.tokenizer)
    if len(tokens) < 2:
        raise GPTError(f"{file} has {len(tokens)} tokens, and a loss needs at least two: give more text.")
    T = m.config.n_ctx
    B = max(1, TOKENS // T)
    quiet = None if sys.stderr else True  # None disables the bar unless stderr is a terminal
    batches = tqdm(windows.batches(tokens, T, B), "batches", -(-len(tokens) // (T * B)), leave=False, disable=quiet)
    nbytes = token_lengths(m.tokenizer, m.config.n_vocab)
    return measure(lambda x, y: float(cross_entropy(forward(m, x), y)[0]), batches, nbytes)


if __name__ == "__main__":
    sys.exit(run("evaluate", main))
