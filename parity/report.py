"""python -m parity report: print the error of each side against float64 for every tensor, forward and backward."""

import argparse

from numpy_gpt import Config, GPTError

from .compare import FEW_ULP, FLOAT64, disagreements
from .inputs import TINY
from .trace import compare_steps, enough_draws

EXAMPLES = """examples:
  python -m parity report
  python -m parity report --n-layer 12 --n-head 12 --n-embd 768 --n-ctx 1024 --n-vocab 50257 --tokens 64 --draws 1
  python -m parity report --dropout 0.1 --untied --device cuda

exit status: 0 if all tensors agree, 1 if one differs, 2 on wrong usage
"""


def main(argv):
    args = arguments().parse_args(argv)
    shape = (args.n_vocab, args.n_ctx, args.n_embd, args.n_head, args.n_layer)
    config = Config(*shape, args.dropout, qkv_bias=not args.no_qkv_bias, tied=not args.untied)
    check_scores(args.tokens, args.dropout)
    if config.n_embd == 2:
        raise GPTError(
            "--n-embd is 2: LayerNorm turns any two numbers into 1 and -1, so there is no error to compare: "
            "give 3 or more."
        )
    draws = args.draws or enough_draws(config, args.tokens)
    rows = compare_steps(config, args.batch_size, args.tokens, args.seed, args.device, draws, args.fused_attention)
    print("\n".join([*table(rows), "", *summary(rows, draws)]))
    return 1 if disagreements(rows) else 0


def arguments():
    parser = argparse.ArgumentParser(
        prog="python -m parity report",
        description="Run one training step of random weights in both packages, and print the error of every tensor.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("n_layer", "n_head", "n_embd", "n_ctx", "n_vocab"):
        default = getattr(TINY, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=f"[{default}]")
    parser.add_argument("--no-qkv-bias", action="store_true", help="no bias in c_attn")
    parser.add_argument("--untied", action="store_true", help="a separate output head")
    parser.add_argument("--dropout", type=float, default=0.0, metavar="RATE", help="[0]")
    parser.add_argument("--batch-size", type=at_least(1), default=2, metavar="B", help="[2]")
    parser.add_argument(
        "--tokens", type=at_least(1), default=7, metavar="T", help="length of a sequence, 2 or more [7]"
    )
    seed = "seed of weights, tokens and dropout: 0 to 2**32 - 1 [0]"
    parser.add_argument("--seed", type=at_least(0, 2**32 - 1), default=0, metavar="S", help=seed)
    draws = "draws of weights and tokens; an error is their median [16, more for narrow models and short sequences]"
    parser.add_argument("--draws", type=at_least(1), metavar="N", help=draws)
    parser.add_argument("--device", default="cpu", metavar="D", help="PyTorch's device: cpu, cuda [cpu]")
    parser.add_argument(
        "--fused-attention",
        action="store_true",
        help="use the attention kernel that PyTorch chooses, not the plain one",
    )
    return parser


def at_least(least, most=None):
    """Return an argparse type for whole numbers from least to most"""

    def whole_number(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most}")
        return int(text)

    return whole_number


def check_scores(T, dropout):
    """Raise GPTError if there are too few scores for gradients of queries and keys"""
    if T == 1:
        raise GPTError(
            "--tokens is 1: the query and key of a position that attends only to itself have no gradient, so there is "
            "no error to compare: give 2 or more."
        )
    if (T - 1) * (1 - dropout) < 0.5:
        raise GPTError(
            f"--dropout {dropout} drops nearly all scores of {T} tokens: give more --tokens or less --dropout."
        )


def table(rows):
    """Yield the lines: a value and its gradient share one; parameters have only gradients"""
    by_name = {row.name: row for row in rows}
    values = [row.name for row in rows if not row.name.startswith("grad.")]
    parameters = [row.name.removeprefix("grad.param.") for row in rows if row.name.startswith("grad.param.")]
    width = max(map(len, values + parameters))
    yield f"{'':{width}}  {'':13}  {'value':^18}  {'gradient':^18}".rstrip()
    yield f"{'tensor':{width}}  {'shape':13}  {'NumPy':>8}  {'PyTorch':>8}  {'NumPy':>8}  {'PyTorch':>8}"
    for name in values:
        yield line(name, width, by_name[name], by_name.get(f"grad.act.{name}"))
    yield ""
    for name in parameters:
        yield line(name, width, None, by_name[f"grad.param.{name}"])


def line(name, width, *pair):
    shape = "x".join(map(str, next(row for row in pair if row).shape)) or "scalar"
    errors = "  ".join(f"{row.numpy:8.1e}  {row.torch:8.1e}" if row else " " * 18 for row in pair)
    differs = "" if all(row.agrees for row in pair if row) else "  DIFFERS"
    return f"{name:{width}}  {shape:13}  {errors}{differs}".rstrip()


def summary(rows, draws=1):
    """Yield the rule and the result in words"""
    wrong = disagreements(rows)
    largest = max(row.difference for row in rows)
    median = f": the median of {draws} draws" if draws > 1 else ""
    yield f"An error is ||x - truth|| / ||truth|| with x in float32 and the truth in float64{median}."
    yield "The gradient of c_attn.b.k is 0 in exact arithmetic: its error is relative to the gradient of c_attn.b.q."
    yield f"Rule for float32: neither error exceeds twice the other + {FEW_ULP:.1e}."
    yield f"Rule for float64: the two sides differ by at most {FLOAT64:.0e}. The largest difference is {largest:.1e}."
    yield f"{len(rows) - len(wrong)} of {len(rows)} tensors agree."
    if wrong:
        yield f"The first that differs, in the order of the run: {wrong[0].name}"
