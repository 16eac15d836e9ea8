"""python -m numpy_gpt.checkpoint info | verify | convert"""

import argparse
import sys
import time
from pathlib import Path

from ..checks import check_tokenizer
from ..errors import CheckpointError, GPTError
from ..system.cli import print_stderr, run
from ..text.tokenizer import Tokenizer
from . import SUFFIXES, WRITERS, openai, read, safetensors, save, to_model, verify
from .destination import check_vocabulary_beside, has_vocabulary_beside, weights_beside, write_vocabulary_beside
from .source import find
from .stored import Contents

EXAMPLES = """examples:
  python -m numpy_gpt.checkpoint info 124M
  python -m numpy_gpt.checkpoint verify some/dir
  python -m numpy_gpt.checkpoint convert some/dir gpt2_124M.bin

A checkpoint is a directory in OpenAI's or Hugging Face's layout, a .safetensors file, llm.c's .bin, or the name of a
released model."""
COMMANDS = {
    "info": "the table of tensors, and the number of parameters",
    "verify": "read every byte: exit 0 if all is well, 3 if a tensor or the vocabulary is broken, 1 if it looks like "
    "the 124M and isn't",
    "convert": "write it in another format, with its vocabulary, replacing what is there",
}
FIRST_NAMES = {"124M": "117M", "355M": "345M", "774M": "762M", "1558M": "1542M"}


def main() -> int:
    args = parse()
    path = find(args.source)
    contents = read(path, args.n_head)
    if args.command == "convert":
        return convert(path, contents, args)
    return info(path, contents) if args.command == "info" else prove(path, contents)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.checkpoint",
        description="Look into a checkpoint of GPT-2, prove that it is intact, or write it in another format.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        command.add_argument("source", help="directory, .safetensors or .bin file, or the name of a released model")
        command.add_argument("--n-head", type=int, metavar="H", help="for a .safetensors file that doesn't say it")
    convert = commands.choices["convert"]
    convert.add_argument("destination", help="a directory, or a .safetensors or .bin file")
    convert.add_argument("--to", choices=WRITERS, help="the format, if the destination's name doesn't say it")
    dtypes = ("float16", "float32", "float64")
    convert.add_argument("--dtype", choices=dtypes, help="default: as it is, but half precision as float32")
    return parser.parse_args()


def convert(path: Path, contents: Contents, args: argparse.Namespace) -> int:
    """Write the model and its tokenizer; corrupt weights are refused, since they would get valid checksums"""
    destination, m = Path(args.destination), to_model(contents)
    verify.check_checksums(path, contents.tensors)
    single = destination.suffix in SUFFIXES
    if single:
        check_vocabulary_beside(destination, m.tokenizer)
    save(m, destination, args.to, args.dtype)
    print(destination)
    if single and m.tokenizer and not has_vocabulary_beside(destination):
        add_vocabulary(destination, m.tokenizer)
    if destination.suffix == ".bin" and m.config.dropout:
        print_stderr(
            f"checkpoint: {destination} has no place for the dropout rate {m.config.dropout}: it was left out."
        )
    return 0


def add_vocabulary(file: Path, tokenizer: Tokenizer) -> None:
    """Write the vocabulary beside a single file, unless other files there would get it too"""
    others = weights_beside(file)
    if others:
        shared = f"a vocabulary in {file.parent} would be that of {others[0].name} too"
        print_stderr(f"checkpoint: {file} has no tokenizer, since {shared}: choose another directory to get one.")
    else:
        print(*write_vocabulary_beside(file, tokenizer), sep="\n")


def info(path: Path, contents: Contents) -> int:
    config = contents.config
    rows = [("tensor", "in the file", "dtype", "shape", "parameters")]
    for name, stored in contents.tensors.items():
        rows.append((name, stored.name, stored.dtype, " x ".join(map(str, stored.shape)), f"{stored.array.size:,}"))
    rows.append((f"{len(contents.tensors)} tensors", "", "", "", f"{config.num_parameters():,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{path}: {contents.format}'s format, {config}\n")
    for *texts, number in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=False)), number.rjust(widths[-1])
        )
    print()
    for n, why in counts(contents):
        print(f"{n:>{widths[-1]}}  {why}")
    return 0


def counts(contents: Contents) -> list[tuple[str, str]]:
    """What this model is said to have, and why"""
    config, n = contents.config, contents.config.num_parameters()
    rows = [(f"{n:,}", "parameters, each counted once")]
    if config.tied:
        rows.append((f"{n + config.n_vocab * config.n_embd:,}", "if the output head, which is wte, is counted again"))
    masks = f"{config.n_layer} masks of {config.n_ctx} x {config.n_ctx}"
    rows.append((f"{n + config.n_layer * config.n_ctx**2:,}", f"with the {masks} that older Hugging Face files hold"))
    size = config.released_size()
    if size:
        rows.append(
            (FIRST_NAMES[size], f"what OpenAI's paper calls the {size}, by a mistake in counting that it took back")
        )
    return rows


def prove(path: Path, contents: Contents) -> int:
    started = time.perf_counter()
    checks = verify.check(contents.tensors)
    seconds = time.perf_counter() - started
    nbytes = sum(stored.array.nbytes for stored in contents.tensors.values())
    if sys.stderr.isatty():
        print(f"{nbytes:,} bytes in {seconds:.2f} s, {nbytes / seconds / 1e6:,.0f} MB/s", file=sys.stderr)
    verify.check_intact(path, contents.tensors, checks)
    indexed = all(stored.crc is not None for stored in contents.tensors.values())
    print(f"{len(checks)} tensors, {nbytes:,} bytes, no NaN and no infinity")
    print("each matches its checksum in the index" if indexed else f"{contents.format}'s format has no checksums")
    if contents.tokenizer:
        check_tokenizer(contents.tokenizer, contents.config, path, CheckpointError)
        print(f"a vocabulary of {contents.tokenizer.n_vocab:,} tokens")
    prove_moments(path)
    if contents.config.released_size() == "124M":
        different = verify.first_different(contents, checks)
        if different:
            raise GPTError(f"{path} is not OpenAI's 124M: the first tensor that differs is {different}.")
        print("bit-identical to OpenAI's 124M")
    return 0


def prove_moments(path: Path) -> None:
    """Check Adam's moments in a training run's directory"""
    moments = path / openai.TRAINING[1]
    if not moments.is_file():
        return
    _, tensors = safetensors.read(moments)
    verify.check_intact(moments, tensors, verify.check(tensors))
    indexed = all(stored.crc is not None for stored in tensors.values())
    print(f"{len(tensors)} moments of a training run, " + ("each matches its checksum" if indexed else "no checksums"))


if __name__ == "__main__":
    sys.exit(run("checkpoint", main))
