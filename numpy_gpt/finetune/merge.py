"""python -m numpy_gpt.finetune merge: add LoRA adapters to the weights of their model."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint import adapter, hub, read_checkpoint, save_with_template, source, to_model, verify
from ..checkpoint.destination import check_directory_name
from ..checkpoint.layouts import TRAINING, home
from ..errors import CheckpointError, GPTError
from ..system.cli import parse
from ..train.options import FORMATS

EPILOG = """examples:
  python -m {0} merge adapter --out merged
  python -m {0} merge adapter --model 124M --out merged
  python -m numpy_gpt.generate --model merged "Once upon a time"

ADAPTER has adapter_config.json and adapter_model.safetensors, in the layout of the library PEFT. The merged model has
the weights w + scale a b, so it is as fast as the model without adapters, and every command and transformers load it.
It has the template of instructions of the adapters, or else that of the model. An earlier model in DIR is replaced
atomically."""
ORGANISATION = "openai-community/"  # of the released models at Hugging Face


def main(argv: Sequence[str], name: str = "numpy_gpt.finetune") -> int:
    """Merge with the options of the command line; return the exit status"""
    args = parse_options(parser(name), argv)
    directory, out = Path(args.adapter), Path(args.out)
    check_directory_name(out, "choose a name without it")
    path = find_model(directory, args.model)
    check_other_directory(out, path)
    check_unmerged(directory, path)
    contents = read_checkpoint(path)
    lora = adapter.read(directory, contents.config)
    if lora.head is not None:
        raise GPTError(
            f"{directory} has a classifier's head, and adapters don't contain the labels: take the merged classifier "
            "of the run that trained them, or merge them with PEFT."
        )
    verify.check_intact(path, contents.tensors, verify.check(contents.tensors))  # save would make new checksums
    save_with_template(
        adapter.merge(to_model(contents), lora), out, args.format, None, lora.template or contents.template
    )
    print(out)
    return 0


def parse_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Return the options; exit with status 2 if a name is empty, since an empty path means the working directory"""
    args = parse(parser, argv)
    for option, value in (("ADAPTER", args.adapter), ("--out", args.out), ("--model", args.model)):
        if value == "":
            parser.error(f"{option} is empty: give {'a name or a path' if option == '--model' else 'a directory'}.")
    return args


def parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of the command's options"""
    result = argparse.ArgumentParser(
        prog=f"python -m {name} merge",
        description="Write a model into which LoRA adapters are merged.",
        epilog=EPILOG.format(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("adapter", metavar="ADAPTER", help="the directory of the adapters")
    text = "the model that the adapters were trained on, a name or a path (default: the one that they name)"
    result.add_argument("--model", metavar="M", help=text)
    result.add_argument("--out", metavar="DIR", required=True, help="directory of the merged model")
    text = f"layout of the merged model (default: that of the model in DIR, else {FORMATS[0]})"
    result.add_argument("--format", choices=FORMATS, help=text)
    return result


def find_model(directory: Path, model: str | None) -> Path:
    """Return the path of the model with this name, or of the one that the adapters name"""
    base = adapter.read_description(directory).base
    if model is not None:
        return source.find(model)
    name = base.removeprefix(ORGANISATION)
    if name not in hub.NAMES:
        name = base
    if not name:
        raise CheckpointError(f"{directory} doesn't name its model: give it with --model.")
    try:
        return source.find(name)
    except CheckpointError:
        raise CheckpointError(f"{directory} needs the model {base}, which isn't found: give it with --model.") from None


def check_other_directory(out: Path, model: Path) -> None:
    """Raise GPTError if out is the directory of the model, which would lose its own weights"""
    directory = model if os.path.isdir(model) else model.parent
    if os.path.isdir(out) and os.path.samefile(out, directory):
        raise GPTError(f"--out {out} has the unmerged model, which would be replaced: choose another directory.")


def check_unmerged(directory: Path, model: Path) -> None:
    """Raise GPTError if the model is the result of the run that trained the adapters, which has them merged already"""
    if os.path.isdir(model) and os.path.exists(home(model) / TRAINING[0]) and os.path.samefile(model, directory / ".."):
        raise GPTError(f"{model} has these adapters merged already: give the model that its run was started from.")
