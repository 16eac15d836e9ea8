"""python -m parity report: the error of each side against float64, tensor by tensor, forward and backward."""

import argparse

from numpy_gpt import Config, GPTError

from .compare import FEW_ULP, FLOAT64, disagreements
from .inputs import TINY
from .trace import compare_steps, enough_draws

EXAMPLES = """examples:
  python -m parity report
  python -m parity report --n-layer 12 --n-head 12 --n-embd 768 --n-ctx 1024 --n-vocab 50257 --tokens 64 --draws 1
  python -m parity report --dropout 0.1 --untied --device cuda

exit status: 0 where all tensors agree, 1 where one differs, 2 on wrong usage
"""


def main(argv):
    args = arguments().parse_args(argv)
    shape = (args.n_vocab, args.n_ctx, args.n_embd, args.n_head, args.n_layer)
    config = Config(*shape, args.dropout, qkv_bias=not args.no_qkv_bias, tied=not args.untied)
    check_scores(args.tokens, args.dropout)
    if config.n_embd == 2:
        raise GPTError(
            "--n-embd is 2: LayerNorm makes 1 and -1 of any two numbers, so nothing can be compared: give 3 or more."
        )
    draws = args.draws or enough_draws(config, args.tokens)
    rows = compare_steps(config, args.batch_size, args.tokens, args.seed, args.device, draws, args.fused_attention)
    print("\n".join([*table(rows), "", *summary(rows, draws)]))
    return 1 if disagreements(rows) else 0


def arguments():
    parser = argparse.ArgumentParser(
        prog="python -m parity report",
        description="One training step of random weights in both packages, and the error of every tensor in it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("n_layer", "n_head", "n_embd", "n_ctx", "n_vocab"):
        default = getattr(TINY, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=f"[{default}]")
    parser.add_argument("--no-qkv-bias", action="store_true", help="c_attn without a bias")
    parser.add_argument("--untied", action="store_true", help="an output head of its own")
    parser.add_argument("--dropout", type=float, default=0.0, metavar="RATE", help="[0]")
    parser.add_argument("--batch-size", type=at_least(1), default=2, metavar="B", help="[2]")
    parser.add_argument(
        "--tokens", type=at_least(1), default=7, metavar="T", help="tokens in a sequence, 2 or more [7]"
    )
    what = "of the weights, the tokens and dropout: 0 to 2**32 - 1 [0]"
    parser.add_argument("--seed", type=at_least(0, 2**32 - 1), default=0, metavar="S", help=what)
    what = "of weights and tokens; an error is the median of all [16, for narrow models and short texts more]"
    parser.add_argument("--draws", type=at_least(1), metavar="N", help=what)
    parser.add_argument("--device", default="cpu", metavar="D", help="where PyTorch runs: cpu, cuda [cpu]")
    parser.add_argument(
        "--fused-attention", action="store_true", help="the kernel that PyTorch prefers, not the plain one"
    )
    return parser


def at_least(least, most=None):
    def whole_number(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
        if most is not None and int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most}")
        return int(text)

    return whole_number


def check_scores(T, dropout):
    """Raise GPTError if queries and keys have too few scores to get gradients from"""
    if T == 1:
        raise GPTError(
            "--tokens is 1: a position that attends to itself alone gives its query and key no gradient, so there is "
            "nothing to compare: give at least 2."
        )
    if (T - 1) * (1 - dropout) < 0.5:
        raise GPTError(
            f"--dropout {dropout} leaves {T} tokens hardly any score to compare: give more --tokens or less --dropout."
        )


def table(rows):
    """A value and its gradient share a line; parameters have gradients alone"""
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
    wrong = disagreements(rows)
    apart = max(row.apart for row in rows)
    median = f": the median of {draws} draws" if draws > 1 else ""
    yield f"An error is ||x - truth|| / ||truth|| with x in float32 and the truth in float64{median}."
    yield "Softmax doesn't feel a key bias: the error of c_attn.b.k is taken relative to the gradient of c_attn.b.q."
    yield f"Neither side's may be larger than twice the other's + {FEW_ULP:.1e}."
    yield f"In float64 the two sides are {apart:.1e} apart at most, where {FLOAT64:.0e} is allowed."
    yield f"{len(rows) - len(wrong)} of {len(rows)} tensors agree."
    if wrong:
        yield f"The first that differs, in the order of the run, is {wrong[0].name}."
