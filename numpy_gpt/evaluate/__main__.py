"""python -m numpy_gpt.evaluate: how well a model tells what others wrote"""

import argparse
import json
import sys
from typing import Any

from tqdm import tqdm

from ..checkpoint.source import load
from ..checks import check_tokenizer
from ..errors import GPTError
from ..fast import memory
from ..language_model import forward
from ..ops import cross_entropy
from ..params import Model
from ..system.cli import parse, run
from ..text import token_cache, windows
from .metrics import lengths, measure, short, told

TOKENS = 2048  # at a time: their logits take half a gigabyte in the 124M
EPILOG = """examples:
  python -m numpy_gpt.evaluate perplexity story.txt
  python -m numpy_gpt.evaluate perplexity story.txt --model 124M --json
  zcat stories.gz | python -m numpy_gpt.evaluate perplexity /dev/stdin

The text is read in windows as long as the model sees, one after the other, and each token but the first is foretold
once, from those before it in its window. bits/byte, what the tokens cost for each byte of the text, compares models
whose vocabularies differ. <|endoftext|> parts documents: it costs, and is no byte."""


def main() -> None:
    memory.keep_freed()
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.evaluate",
        description="Measure a model on text that it wasn't trained on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=["perplexity"], help="the loss over a text, as e to its power")
    parser.add_argument("file", metavar="FILE", help="text in UTF-8, a file or a pipe")
    parser.add_argument("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller)")
    parser.add_argument("--json", action="store_true", help="an object: loss, perplexity, bits_per_byte, tokens, model")
    args = parse(parser, sys.argv[1:])
    m = load(args.model)
    check_tokenizer(m.tokenizer, m.config, args.model)
    measured = perplexity(m, args.file)
    if args.json:
        print(json.dumps({**measured, "model": args.model}))
    else:
        words = told(measured["perplexity"], measured["bits_per_byte"])
        print(f"loss {short(measured['loss'], 4)}  {words}  ({measured['tokens']:,} tokens)")


def perplexity(m: Model, file: str) -> dict[str, Any]:
    tokens = token_cache.tokenize([file], m.tokenizer)
    if len(tokens) < 2:
        raise GPTError(f"{file} has fewer than two tokens: there must be two, for one to follow the other.")
    T = m.config.n_ctx
    B = max(1, TOKENS // T)
    quiet = None if sys.stderr else True  # None: where it is no terminal
    batches = tqdm(windows.batches(tokens, T, B), "batches", -(-len(tokens) // (T * B)), leave=False, disable=quiet)
    nbytes = lengths(m.tokenizer, m.config.n_vocab)
    return measure(lambda x, y: float(cross_entropy(forward(m, x), y)[0]), batches, nbytes)


if __name__ == "__main__":
    sys.exit(run("evaluate", main))
