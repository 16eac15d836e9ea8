"""python -m numpy_gpt.checkpoint info | verify | convert: inspect, verify or convert a checkpoint."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from ..checks import check_tokenizer
from ..errors import CheckpointError, GPTError
from ..system.atomic import read_consistently
from ..system.cli import print_stderr, run
from ..text.tokenizer import Tokenizer
from . import SUFFIXES, WRITERS, classifier, read_checkpoint, save_with_template, to_model, verify
from .destination import (
    check_suffix,
    check_vocabulary_beside,
    has_vocabulary_beside,
    weights_beside,
    write_vocabulary_beside,
)
from .layouts import TRAINING, home, layouts
from .source import find
from .stored import Contents
from .training_run import check_moments, check_partial_moments, read_run

EXAMPLES = """examples:
  python -m numpy_gpt.checkpoint info 124M
  python -m numpy_gpt.checkpoint verify some/dir
  python -m numpy_gpt.checkpoint convert 124M some/dir
  python -m numpy_gpt.checkpoint convert some/dir gpt2_124M.bin

A checkpoint is a directory in Hugging Face's or OpenAI's layout, a .safetensors file, llm.c's .bin file, or the name of
a released model."""
COMMANDS = {
    "info": "print the table of tensors and the number of parameters",
    "verify": "read every byte; exit 0 if all is intact, 3 if a tensor or the vocabulary is corrupt or a training run "
    "can't be resumed, 1 if the model has the 124M's shapes and isn't OpenAI's",
    "convert": "write the model and its vocabulary in another format; replace an earlier checkpoint of that format",
}
SHOWN = 8  # labels of a classifier
FIRST_NAMES = {"124M": "117M", "355M": "345M", "774M": "762M", "1558M": "1542M"}


def main() -> int:
    args = parse()
    path = find(args.source)
    if args.command != "convert" and classifier.is_classifier(path):
        contents = classifier.read_contents(path)
    else:
        contents = read_checkpoint(path, args.n_head)
    if len([*layouts(path)]) > 1:
        print_stderr(f"checkpoint: {path} has checkpoints in OpenAI's and in Hugging Face's layout: OpenAI's is read.")
    if args.command == "convert":
        return convert(path, contents, args)
    return info(path, contents) if args.command == "info" else prove(path, contents)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m numpy_gpt.checkpoint",
        description="Show the contents of a GPT-2 checkpoint, verify that it is intact, or write it in another format.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("source", help="directory, .safetensors or .bin file, or the name of a released model")
        command.add_argument("--n-head", type=int, metavar="H", help="for a .safetensors file that doesn't contain it")
    convert = commands.choices["convert"]
    convert.add_argument("destination", help="a directory, or a .safetensors or .bin file")
    formats = "the format (default: that of the checkpoint in the directory, else huggingface; for a .bin file llmc-v3)"
    convert.add_argument("--to", choices=WRITERS, help=formats)
    dtypes = ("float16", "float32", "float64")
    convert.add_argument("--dtype", choices=dtypes, help="default: that of the source, or float32 for half precision")
    args = parser.parse_args()
    if args.command == "convert":
        check_destination(convert, args)
    return args


def check_destination(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with a message if the destination's name is empty or doesn't fit --to"""
    try:
        if not args.destination:
            raise GPTError("destination is '': give a directory, or a .safetensors or .bin file.")
        check_suffix(Path(args.destination), args.to)
    except GPTError as e:
        parser.error(str(e))


def convert(path: Path, contents: Contents, args: argparse.Namespace) -> int:
    """Write the model and its tokenizer; refuse corrupt weights, which would get valid checksums"""
    destination, m = Path(args.destination), to_model(contents)
    verify.check_checksums(path, contents.tensors)
    single = destination.suffix in SUFFIXES
    if single:
        check_vocabulary_beside(destination, m.tokenizer)
    save_with_template(m, destination, args.to, args.dtype, contents.template)
    print(destination)
    if single and m.tokenizer and not has_vocabulary_beside(destination):
        add_vocabulary(destination, m.tokenizer)
    if destination.suffix == ".bin" and m.config.dropout:
        print_stderr(f"checkpoint: {destination} can't contain the dropout rate {m.config.dropout}: it was left out.")
    if single and contents.template:
        print_stderr(f"checkpoint: {destination} can't contain the template of instructions: it was left out.")
    return 0


def add_vocabulary(file: Path, tokenizer: Tokenizer) -> None:
    """Write the vocabulary to the directory of a file, unless load would also use it for another file there"""
    others = weights_beside(file)
    if others:
        shared = f"load would use a vocabulary in {file.parent} for {others[0].name} too"
        print_stderr(f"checkpoint: {file} has no tokenizer, since {shared}: choose another directory to get one.")
    else:
        print(*write_vocabulary_beside(file, tokenizer), sep="\n")


def info(path: Path, contents: Contents) -> int:
    """Print the tensors and the counts of parameters, and the labels of a classifier"""
    config = contents.config
    rows = [("tensor", "in the file", "dtype", "shape", "parameters")]
    for name, stored in contents.tensors.items():
        rows.append((name, stored.name, stored.dtype, " x ".join(map(str, stored.shape)), f"{stored.array.size:,}"))
    rows.append((f"{len(contents.tensors)} tensors", "", "", "", f"{number_of_parameters(contents):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{path}: {contents.format}'s format, {config}\n")
    for *texts, number in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=False)), number.rjust(widths[-1])
        )
    print()
    for n, meaning in counts(contents):
        print(f"{n:>{widths[-1]}}  {meaning}")
    if contents.labels:
        more = ", ..." if len(contents.labels) > SHOWN else ""
        print(f"\nclassifier of {len(contents.labels)} labels: {', '.join(map(repr, contents.labels[:SHOWN]))}{more}")
    if contents.template:
        print(f"\ntemplate of instructions: {json.dumps(contents.template.prompt, ensure_ascii=False)}")
    return 0


def number_of_parameters(contents: Contents) -> int:
    return sum(stored.array.size for stored in contents.tensors.values())


def counts(contents: Contents) -> list[tuple[str, str]]:
    """Return the numbers of parameters that are in use for this model, each with its meaning"""
    config, n = contents.config, number_of_parameters(contents)
    rows = [(f"{n:,}", "parameters, each counted once")]
    if contents.labels:
        return rows
    if config.tied:
        rows.append((f"{n + config.n_vocab * config.n_embd:,}", "with the output head, which is wte, counted again"))
    masks = f"{config.n_layer} masks of {config.n_ctx} x {config.n_ctx}"
    rows.append((f"{n + config.n_layer * config.n_ctx**2:,}", f"with the {masks} in older Hugging Face files"))
    size = config.released_size()
    if size:
        rows.append((FIRST_NAMES[size], f"the first name of OpenAI's {size}, which came from a mistake in counting"))
    return rows


def prove(path: Path, contents: Contents) -> int:
    """Check every byte of a checkpoint, and print the results"""
    started = time.perf_counter()
    checks = verify.check(contents.tensors)
    seconds = time.perf_counter() - started
    nbytes = sum(stored.array.nbytes for stored in contents.tensors.values())
    if sys.stderr.isatty():
        print(f"{nbytes:,} bytes in {seconds:.2f} s, {nbytes / seconds / 1e6:,.0f} MB/s", file=sys.stderr)
    verify.check_intact(path, contents.tensors, checks)
    indexed = all(stored.crc is not None for stored in contents.tensors.values())
    print(f"{len(checks)} tensors, {nbytes:,} bytes, no NaN and no infinity")
    print("each matches its checksum" if indexed else "the files contain no checksums")
    if contents.tokenizer:
        check_tokenizer(contents.tokenizer, contents.config, path, CheckpointError)
        print(f"a vocabulary of {contents.tokenizer.n_vocab:,} tokens")
    if contents.template:
        print("a template of instructions")
    if contents.labels:
        print(f"a classifier of {len(contents.labels)} labels")
    prove_run(path, contents)
    if contents.config.released_size() == "124M":
        different = verify.first_different(contents, checks)
        if different:
            raise GPTError(f"{path} is not OpenAI's 124M: the first tensor that differs is {different}.")
        print("bit-identical to OpenAI's 124M")
    return 0


def prove_run(path: Path, contents: Contents) -> None:
    """Check the progress and Adam's moments if path is the directory of a training run"""
    there = [os.path.isfile(home(path) / name) for name in TRAINING]
    if not any(there):
        return
    if not all(there):
        lacking, other = TRAINING if there[1] else reversed(TRAINING)
        raise CheckpointError(
            f"{path} is a training run without {lacking}, so it can't be resumed: restore the file, or remove "
            f"{other} to use the weights alone."
        )
    # the run may save its next state meanwhile
    _, about, tensors = read_consistently(path, lambda run: read_run(home(run)), training_files)
    dtype = contents.tensors["wte"].dtype
    if "task" in about:  # a run of finetune
        shapes = {name: stored.shape for name, stored in contents.tensors.items()}
        check_partial_moments(home(path), about, tensors, shapes, dtype)
    else:
        check_moments(home(path), tensors, contents.config, dtype)
    indexed = all(stored.crc is not None for stored in tensors.values())
    kind = "moments and adapters" if about["settings"].get("lora") else "moments"
    print(f"{len(tensors)} {kind} of a training run, " + ("each matches its checksum" if indexed else "no checksums"))


def training_files(directory: Path) -> list[Path]:
    """Return the files of a training run's progress"""
    return [home(directory) / name for name in TRAINING]


if __name__ == "__main__":
    sys.exit(run("checkpoint", main))
