"""python -m numpy_gpt.generate: what comes after a prompt"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .. import generate
from ..checkpoint import source
from ..checks import check_tokenizer
from ..errors import GPTError
from ..fast import memory
from ..params import Model
from ..system import cli
from ..system.cli import print_stderr, run
from ..text.tokenizer import EOT, Tokenizer
from .options import DecodingOptions, check_decoding_options, check_samples, check_stop
from .output import Sample, Show
from .scheduler import Draw

EPILOG = """examples:
  python -m {0} "Once upon a time"
  python -m {0} --model 124M --temperature 0 -n 40 "The meaning of life is"
  cat story.txt | python -m {0} --num-samples 3 --json

The new text goes to stdout; a terminal shows the prompt before it. The same seed gives the same text in NumPy and in
PyTorch, alone and in a batch, but where rounding decides. --num-samples 3 draws the samples 0, 1 and 2 of a seed, and
--sample 2 draws the last of them alone; no sample shares random numbers with another one of this or another seed. But
the numbers don't depend on the prompt: with one seed and sample, the texts of different prompts are correlated. The
model sees n_ctx tokens: a longer prompt loses its beginning, and when they are full, the older half is dropped and the
rest read again. A prompt that starts with -- goes after a separate --. In the file of --config, stop = ["one", "two"]
gives --stop twice."""

MOST_SAMPLES = 4096  # as one batch: each has keys and values in memory


def main(
    name: str = "numpy_gpt.generate",
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None,
    load: Callable[[argparse.Namespace], Model] = lambda args: source.load(args.model),
    draws: Callable[..., Iterable[Draw]] = lambda args, *rest: generate.draws(*rest),
) -> None:
    """What torch_gpt.generate does in another way comes in as arguments"""
    memory.keep_freed()
    args, settings = parse(name, add_arguments)
    prompt = read_prompt(args)
    started = time.perf_counter()
    m = load(args)
    load_s = time.perf_counter() - started
    check_tokenizer(m.tokenizer, m.config, args.model)
    ids = to_ids(prompt, m.tokenizer, args.model)
    if len(ids) > m.config.n_ctx:
        print_stderr(
            f"generate: the prompt has {len(ids)} tokens and the model sees {m.config.n_ctx}: only the last are read."
        )
    if args.seed is None and args.temperature > 0 and not args.json:
        print_stderr(f"seed {settings.seed}")
    numbers = range(args.sample, args.sample + args.num_samples)
    show = Show([Sample(m.tokenizer, args, settings.seed, i, len(ids)) for i in numbers], args, prompt, load_s)
    stop = [*args.stop, *([] if m.tokenizer.eot is None else [m.tokenizer.eot])]
    try:
        for draw in draws(args, m, [ids] * args.num_samples, settings, stop, args.logprobs > 0):
            show.take(draw)
    except BaseException:  # Ctrl-C first of all
        show.end(None)
        raise
    show.end("length")  # with -n 0; otherwise each has ended for its own reason


def parse(
    name: str, add_arguments: Callable[[argparse.ArgumentParser], Any]
) -> tuple[argparse.Namespace, DecodingOptions]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description="Continue a prompt with GPT-2, or with the storyteller that ships with the package.",
        epilog=EPILOG.format(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("prompt", nargs="?", help=f"default: what is piped in, but for a line break at its end, or else {EOT}")
    add("-f", "--file", help="read the prompt from a file, but for a line break at its end")
    add("--model", default="storyteller", metavar="M", help="a name or a path (default: storyteller, a toy)")
    add("-n", "--max-new-tokens", type=int, default=200, metavar="N", help="at most so many new tokens (default: 200)")
    add("--temperature", type=float, default=0.8, metavar="T", help="0 takes the best token always (default: 0.8)")
    add("--top-k", type=int, default=0, metavar="K", help="draw from the K best tokens (default: 0, from all)")
    add("--top-p", type=float, default=0.95, metavar="P", help="... from the best that have P together (default: 0.95)")
    add("--seed", type=int, metavar="S", help="from 0 to 2**64 - 1 (default: a random one, which is told)")
    add("--stop", action="append", default=[], metavar="STR", help="end before this text; may be given several times")
    add(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="so many samples as one batch, numbered K, K + 1 ... (default: 1)",
    )
    add("--sample", type=int, default=0, metavar="K", help="number of the first sample of this seed (default: 0)")
    add("--logprobs", type=int, default=0, metavar="K", help="show each token's probability, and those of the K best")
    add("--json", action="store_true", help="an object per sample; finish_reason: length, stop, eot, null after Ctrl-C")
    add("--no-stream", action="store_true", help="show a sample when it is complete")
    add_arguments(parser)
    args = cli.parse(parser, sys.argv[1:])
    if not 1 <= args.num_samples <= MOST_SAMPLES:
        parser.error(f"num_samples is {args.num_samples}: it must be from 1 to {MOST_SAMPLES}.")
    seed = secrets.randbits(32) if args.seed is None else args.seed
    settings = DecodingOptions(args.max_new_tokens, args.temperature, args.top_k, args.top_p, seed, args.sample)
    try:
        check_decoding_options(settings)
        check_samples(args.sample, args.num_samples)
        check_stop(args.stop)
    except GPTError as e:
        parser.error(str(e))
    if args.logprobs < 0:
        parser.error(f"logprobs is {args.logprobs}: it must be at least 0.")
    if args.prompt is not None and args.file is not None:
        parser.error("there is a prompt and a file: give one of them.")
    return args, settings


def read_prompt(args: argparse.Namespace) -> str:
    if args.prompt is not None:
        return args.prompt
    if args.file is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    source = "what is piped in" if args.file is None else repr(args.file)
    try:
        data = sys.stdin.buffer.read() if args.file is None else Path(args.file).read_bytes()
        text = data.decode()
    except OSError as e:
        raise GPTError(f"{source} can't be read: {e.strerror}.") from None
    except UnicodeDecodeError as e:
        raise GPTError(f"{source} is no UTF-8 text: byte {e.start} is {data[e.start]:#04x}.") from None
    return text.removeprefix("\ufeff").removesuffix("\r\n" if text.endswith("\r\n") else "\n")


def to_ids(prompt: str, tokenizer: Tokenizer, model: str) -> list[int]:
    if prompt:
        return tokenizer.encode(prompt)
    if tokenizer.eot is None:
        raise GPTError(f"the tokenizer of {model} has no {EOT} to begin with: give a prompt.")
    return [tokenizer.eot]


if __name__ == "__main__":
    sys.exit(run("generate", main))
