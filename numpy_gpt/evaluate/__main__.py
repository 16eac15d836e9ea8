"""python -m numpy_gpt.evaluate: measure a model on text."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import fast
from ..checkpoint import source
from ..checks import check_tokenizer
from ..errors import GPTError
from ..params import Model
from ..system.cli import parse, run
from .lambada import lambada
from .metrics import format_measures, format_number
from .perplexity import perplexity
from .scoring import scorer
from .segments import Score
from .wikitext2 import wikitext2

EPILOG = """examples:
  python -m {0} perplexity story.txt
  python -m {0} perplexity story.txt --model 124M --stride 512 --json
  zcat stories.gz | python -m {0} perplexity /dev/stdin
  python -m {0} lambada lambada_test.jsonl --model 124M
  python -m {0} wikitext2 wiki.test.raw --model 124M

A loss is -log p, where p is the probability of a token after the tokens before it. N is the model's context, which is
1,024 in the released models.

perplexity FILE: any text in UTF-8.
  The windows are N + 1 tokens long and begin every --stride tokens (default: N). A window counts the loss of its tokens
  that no earlier window counted. So each token except the first counts once. Its context begins at the beginning of its
  window: at least N - stride + 1 tokens, except in the first window. <|endoftext|> in the text separates documents: its
  own loss counts, it is the context of the next document, and it has no bytes. None is put before the text. White space
  around it is dropped.
    loss             the mean over the tokens
    perplexity       e to the power of the loss
    bits/byte        the total loss in bits, divided by the bytes of the tokens that count
    word_perplexity  e to the power of the total loss divided by the number of words (in --json). A word is a run of
                     characters other than white space in the text after the first token.
  Bits per byte and word perplexity compare models with different vocabularies.

lambada FILE: JSON Lines, an object with "text" in each; blank lines are skipped.
  As task lambada_openai of lm-evaluation-harness. The last word is the text after the last space, with this space and
  any white space before it. Its context is the text before it, and its tokens are those that it adds to the tokens of
  the context. Of a passage of more than N + 1 tokens, the last N + 1 are used. <|endoftext|> is put before a passage
  only if it is a single word. In a passage, <|endoftext|> is ordinary text.
    accuracy         the share of passages in which each token of the last word is the model's best one
    perplexity       e to the power of the mean over the passages of the last word's total loss

wikitext2 FILE: wiki.test.raw, or JSON Lines of its rows ("text") or documents ("page").
  Per token, as the guide "Perplexity of fixed-length models" of transformers. The lines of the raw text, each with its
  line break and a blank one without, are joined by two line breaks. The windows are N tokens long and begin every
  --stride tokens (default: N). A window counts the loss of its tokens that no earlier window counted, except its first
  token, which has no context. No <|endoftext|> is added.
    perplexity       e to the power of the mean loss of the tokens that count
  Per word, as task wikitext of lm-evaluation-harness. A line = Title = begins a document. Spaces around punctuation are
  removed as the harness does. Each document is scored alone, after <|endoftext|>, in blocks of N tokens. The context of
  a block begins with the token before it. The last block may be shorter: its context is as many tokens as fit into
  N + 1 with it.
    word perplexity  e to the power of the total loss divided by the number of words
    bits/byte        the total loss in bits, divided by the bytes of the text
  Words and bytes are those of the raw text. White space separates words. If a document begins or ends with it, the
  empty string there is a word too.

--json prints an object with the key "model" and these:
  perplexity  loss, perplexity, bits_per_byte, tokens (that count), word_perplexity, words, stride
  lambada     accuracy, perplexity, passages, tokens (of the last words)
  wikitext2   loss, perplexity, tokens (that count), stride, word_perplexity, words, bits_per_byte, documents

Published for the 124M: lambada accuracy 0.3256 and perplexity 40.06, wikitext2 perplexity 29.94 and word perplexity
37.37. OpenAI's paper has other figures, since it defines the measures in another way."""


class Backend(NamedTuple):
    """Bundle the parts of the command that differ between numpy_gpt and torch_gpt"""

    command: str  # as in python -m COMMAND
    add_arguments: Callable[[argparse.ArgumentParser], None]  # adds the package's own options
    load: Callable[[argparse.Namespace], Model]
    scorer: Callable[[Model], Score]


NUMPY = Backend(
    command="numpy_gpt.evaluate",
    add_arguments=lambda parser: None,
    load=lambda args: source.load(args.model),
    scorer=scorer,
)


def main(backend: Backend = NUMPY) -> None:
    """Run the command: parse the options, load the model, and print its measures on the file"""
    fast.tune()
    parser = new_parser(backend)
    args = parse(parser, sys.argv[1:])
    if args.stride is not None and args.stride < 1:
        parser.error(f"--stride is {args.stride}: it must be at least 1.")
    if args.stride is not None and args.task == "lambada":
        parser.error("--stride is for perplexity and wikitext2: lambada has no windows.")
    m = backend.load(args)
    check_tokenizer(m.tokenizer, m.config, args.model)
    if args.stride and args.stride > m.config.n_ctx:
        raise GPTError(f"--stride is {args.stride}, and the model's context is {m.config.n_ctx}: choose at most that.")
    found: dict[str, Any] = {}
    for measured, line in measurements(args, m, backend.scorer(m)):
        found |= measured
        if not args.json:
            print(line, flush=True)
    if args.json:
        print(json.dumps({**found, "model": args.model}))


def new_parser(backend: Backend) -> argparse.ArgumentParser:
    """Return the parser of the command's options"""
    parser = argparse.ArgumentParser(
        prog=f"python -m {backend.command}",
        description="Measure a model on text that it wasn't trained on.",
        epilog=EPILOG.format(backend.command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = "the measures, which are defined below"
    add("task", choices=["lambada", "wikitext2", "perplexity"], help=what)
    add("file", metavar="FILE", help="a file or a pipe")
    add("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller)")
    what = "from one window to the next, in tokens, from 1 to the model's context (default: the model's context)"
    add("--stride", type=int, metavar="S", help=what)
    add("--json", action="store_true", help="print an object with the keys below")
    backend.add_arguments(parser)
    return parser


def measurements(args: argparse.Namespace, m: Model, score: Score) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the measures of each pass through the file, and the line that reports them"""
    if args.task == "perplexity":
        found = perplexity(m, args.file, args.stride, score)
        measures = (
            f"loss {format_number(found['loss'], 4)}  {format_measures(found['perplexity'], found['bits_per_byte'])}"
        )
        yield found, f"{measures}  ({found['tokens']:,} tokens)"
    elif args.task == "lambada":
        found = lambada(m, args.file, score)
        measures = f"accuracy {found['accuracy']:.4f}  {format_measures(found['perplexity'], None)}"
        yield found, f"{measures}  ({found['passages']:,} passages)"
    else:
        passes = wikitext2(m, args.file, args.stride or m.config.n_ctx, score)
        found = next(passes)
        yield found, f"{format_measures(found['perplexity'], None)}  ({found['tokens']:,} tokens)"
        found = next(passes)
        measures = f"word {format_measures(found['word_perplexity'], found['bits_per_byte'])}"
        yield found, f"{measures}  ({found['words']:,} words in {found['documents']:,} documents)"


if __name__ == "__main__":
    sys.exit(run("evaluate", main))
