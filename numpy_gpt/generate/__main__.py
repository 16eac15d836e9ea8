"""python -m numpy_gpt.generate: continue a prompt, or answer an instruction."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from .. import fast, generate
from ..checkpoint import source
from ..checks import check_tokenizer
from ..errors import GPTError
from ..params import Model
from ..system import cli
from ..system.cli import print_stderr, run
from ..text.template import Template, render
from ..text.tokenizer import EOT, Tokenizer
from .options import DecodingOptions, check_decoding_options, check_samples, check_stop
from .output import Printer, Sample
from .scheduler import Draw

EPILOG = """examples:
  python -m {0} "Once upon a time"
  python -m {0} --model 124M --temperature 0 -n 40 "The meaning of life is"
  cat story.txt | python -m {0} --num-samples 3 --json
  python -m {0} --model assistant --instruct "Name three colours."
  python -m {0} --model assistant --instruct "Translate into French." --input "The cat sleeps."

The new text goes to stdout. A terminal shows the prompt before it. To pass a prompt that starts with --, put a separate
-- before it.

--instruct puts the prompt into the template that the model was fine-tuned with, and prints the answer alone. The answer
ends at <|endoftext|>.

A prompt that is longer than the model's context loses its beginning, and such an instruction is refused. When the
context is full, the older half is dropped and the rest is recomputed.

The same seed gives the same text in NumPy and in PyTorch, alone and in a batch, unless rounding decides between two
tokens. --num-samples 3 draws the samples 0, 1 and 2 of a seed, and --sample 2 draws the last of them alone. No two
samples of one seed or of different seeds share random numbers. But the random numbers don't depend on the prompt: with
the same seed and sample, the texts of different prompts are correlated.

In the file of --config, stop = ["one", "two"] means --stop one --stop two."""

MAX_SAMPLES = 4096  # they run as one batch, and each has its keys and values in memory


class Backend(NamedTuple):
    """Bundle the parts of the command that differ between numpy_gpt and torch_gpt"""

    command: str  # as in python -m COMMAND
    add_arguments: Callable[[argparse.ArgumentParser], None]  # adds the package's own options
    load: Callable[[argparse.Namespace], tuple[Model, Template | None]]
    # command line, model, prompts, options, stop ids and strings, whether to return logits -> the new tokens
    draws: Callable[
        [argparse.Namespace, Model, list[list[int]], DecodingOptions, list[int | str], bool], Iterable[Draw]
    ]


NUMPY = Backend(
    command="numpy_gpt.generate",
    add_arguments=lambda parser: None,
    load=lambda args: source.load_with_template(args.model),
    draws=lambda args, *request: generate.draws(*request),
)


def main(backend: Backend = NUMPY) -> None:
    """Run the command: parse the options, load the model, and print the samples while they are drawn"""
    fast.tune()
    args, options = parse(backend)
    prompt = read_prompt(args)
    if args.instruct and not prompt.strip():
        raise GPTError("the instruction is empty: give it as an argument, with -f, or on stdin.")
    started = time.perf_counter()
    m, template = backend.load(args)
    load_s = time.perf_counter() - started
    check_tokenizer(m.tokenizer, m.config, args.model)
    ids = instruction_ids(prompt, args, m, template) if args.instruct else prompt_ids(prompt, args.model, m)
    if args.seed is None and args.temperature > 0 and not args.json:
        print_stderr(f"seed {options.seed}")
    numbers = range(args.sample, args.sample + args.num_samples)
    samples = [Sample(m.tokenizer, args, options.seed, number, len(ids)) for number in numbers]
    printer = Printer(samples, args, shown_before(prompt, args), load_s)
    stop = [*args.stop, *([] if m.tokenizer.eot is None else [m.tokenizer.eot])]
    try:
        for draw in backend.draws(args, m, [ids] * args.num_samples, options, stop, args.logprobs > 0):
            printer.add(draw)
    except BaseException:  # Ctrl-C too: print the text so far
        printer.end(None)
        raise
    printer.end("length")  # every sample has ended already, unless -n is 0


def parse(backend: Backend) -> tuple[argparse.Namespace, DecodingOptions]:
    """Parse the command line; exit with status 2 if a value is invalid"""
    parser = new_parser(backend)
    args = cli.parse(parser, sys.argv[1:])
    if not 1 <= args.num_samples <= MAX_SAMPLES:
        parser.error(f"num_samples is {args.num_samples}: it must be from 1 to {MAX_SAMPLES}.")
    seed = int.from_bytes(os.urandom(4)) if args.seed is None else args.seed
    options = DecodingOptions(args.max_new_tokens, args.temperature, args.top_k, args.top_p, seed, args.sample)
    try:
        check_decoding_options(options)
        check_samples(args.sample, args.num_samples)
        check_stop(args.stop)
    except GPTError as e:
        parser.error(str(e))
    if args.logprobs < 0:
        parser.error(f"logprobs is {args.logprobs}: it must be at least 0.")
    if args.prompt is not None and args.file is not None:
        parser.error("the command line has a prompt and --file: give one of them.")
    if args.input is not None and not args.instruct:
        parser.error("--input belongs to an instruction: add --instruct, or remove --input.")
    return args, options


def new_parser(backend: Backend) -> argparse.ArgumentParser:
    """Return the parser of the command's options"""
    parser = argparse.ArgumentParser(
        prog=f"python -m {backend.command}",
        description="Continue a prompt with GPT-2, or with the storyteller that ships with the package.",
        epilog=EPILOG.format(backend.command),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prompt", nargs="?", help=f"default: piped stdin, without a line break at its end, or else {EOT}")
    add("-f", "--file", help="read the prompt from this file, without a line break at its end")
    add("--instruct", action="store_true", help="answer the prompt, an instruction, as the model was fine-tuned to do")
    add("--input", metavar="TEXT", help="a text that the instruction is about")
    add("--model", default="storyteller", metavar="M", help="name or path of a model (default: storyteller, a toy)")
    add("-n", "--max-new-tokens", type=int, default=200, metavar="N", help="draw at most N new tokens (default: 200)")
    add("--temperature", type=float, default=0.8, metavar="T", help="0 always takes the best token (default: 0.8)")
    add("--top-k", type=int, default=0, metavar="K", help="draw from the K best tokens (default: 0, from all)")
    what = "draw from the best tokens that have probability P together (default: 0.95)"
    add("--top-p", type=float, default=0.95, metavar="P", help=what)
    add("--seed", type=int, metavar="S", help="from 0 to 2**64 - 1 (default: a random seed, printed on stderr)")
    add("--stop", action="append", default=[], metavar="STR", help="end before this text; may be given several times")
    what = "draw N samples as one batch, with the numbers K, K + 1 ... (default: 1)"
    add("--num-samples", type=int, default=1, metavar="N", help=what)
    add("--sample", type=int, default=0, metavar="K", help="number of the first sample of this seed (default: 0)")
    what = "print each token's probability, and those of the K best tokens"
    add("--logprobs", type=int, default=0, metavar="K", help=what)
    what = "print an object per sample; finish_reason is length, stop or eot, and null after Ctrl-C"
    add("--json", action="store_true", help=what)
    add("--no-stream", action="store_true", help="print a sample when it is complete")
    backend.add_arguments(parser)
    return parser


def read_prompt(args: argparse.Namespace) -> str:
    """Return the prompt from the command line, the file or piped stdin; "" if there is none"""
    if args.prompt is not None:
        return args.prompt
    if args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    place = "stdin" if args.file is None else repr(args.file)
    try:
        data = sys.stdin.buffer.read() if args.file is None else Path(args.file).read_bytes()
        text = data.decode()
    except OSError as e:
        raise GPTError(f"{place} can't be read: {e.strerror}.") from None
    except UnicodeDecodeError as e:
        raise GPTError(f"{place} isn't UTF-8 text: byte {e.start} is {data[e.start]:#04x}.") from None
    return text.removeprefix("\ufeff").removesuffix("\r\n" if text.endswith("\r\n") else "\n")


def instruction_ids(instruction: str, args: argparse.Namespace, m: Model, template: Template | None) -> list[int]:
    """Return the tokens of an instruction in the model's template; raise GPTError if they don't fit the context"""
    if template is None:
        raise GPTError(
            f"{args.model} has no template of instructions: leave --instruct out, or choose a model that was "
            "fine-tuned on instructions."
        )
    ids = m.tokenizer.encode(render(template, instruction, args.input or ""))
    if len(ids) > m.config.n_ctx:
        raise GPTError(
            f"the instruction has {len(ids)} tokens with its template, and the model's context is {m.config.n_ctx}: "
            "make it shorter."
        )
    return ids


def prompt_ids(prompt: str, model: str, m: Model) -> list[int]:
    """Return the prompt's tokens; print a notice if they don't fit the context"""
    ids, N = to_ids(prompt, m.tokenizer, model), m.config.n_ctx
    if len(ids) > N:
        print_stderr(
            f"generate: the prompt has {len(ids)} tokens, and the model's context is {N}: only the last {N} are used."
        )
    return ids


def shown_before(prompt: str, args: argparse.Namespace) -> str:
    """Return the text that a terminal shows before the new text: an instruction and its input are lines of their own"""
    lines = [prompt, *([args.input] if args.input else []), ""]
    return "\n".join(lines) if args.instruct else prompt


def to_ids(prompt: str, tokenizer: Tokenizer, model: str) -> list[int]:
    """Return the prompt's tokens; <|endoftext|> for an empty prompt"""
    if prompt:
        return tokenizer.encode(prompt)
    if tokenizer.eot is None:
        raise GPTError(f"the tokenizer of {model} has no {EOT} to begin with: give a prompt.")
    return [tokenizer.eot]


if __name__ == "__main__":
    sys.exit(run("generate", main))
