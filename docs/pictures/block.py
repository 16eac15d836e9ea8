"""Draw block.svg: the parts of a transformer block, and the tensors that each of them saves for the backward."""

from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import groupby

import svg
from saved import Tensor, numbers_per_token, saved_tensors

OPS, MODEL = "../../numpy_gpt/ops.py", "../../numpy_gpt/model.py"
WIDTH, HEIGHT = 860, 600
STREAM = 58  # x of the residual stream
FIRST, STEP = 118, 182  # x of a row's first box, distance from one box to the next
BOX, TALL = 166, 52  # width and height of a box
CHIP = 26  # from one tensor to the next
ROWS = (("ln_1", "attn", 74, 286), ("ln_2", "mlp", 340, 506))  # the LayerNorm, the branch, y of the boxes, y of the sum
STYLE = """
    .stream, .flow { stroke: #6e7781; fill: none } .stream { stroke-width: 6 } .flow { stroke-width: 1.5 }
    .head { fill: #6e7781 } .op { fill: #ddf4ff; stroke: #54aeff } .sum { fill: #fff; stroke: #6e7781; stroke-width: 2 }
    .saved { fill: #fff3c4; stroke: #d4a72c } .weight { fill: none; stroke: #afb8c1; stroke-dasharray: 3 2 }
    .name { font-weight: 600; fill: #222 } .code { font-size: 12.5px }
    a:hover .op, a:hover .panel { stroke-width: 2.5 }"""
DARK = """
    .stream, .flow { stroke: #8b949e } .head { fill: #8b949e } .op { fill: #10304f; stroke: #388bfd }
    .sum { fill: #16181c; stroke: #8b949e } .saved { fill: #3d3211; stroke: #bb8009 } .weight { stroke: #555c64 }
    .name { fill: #eee }"""


def draw(argv: list[str]) -> str:
    ArgumentParser(prog="make.py block").parse_args(argv)
    tensors = saved_tensors()
    parts = [*stream()]
    for norm, branch, top, joined in ROWS:
        boxes = [list(of_box) for _, of_box in groupby(tensors, lambda tensor: tensor.place)]
        row = [box for box in boxes if box[0].place[0] in (norm, branch)]
        parts += [*frame(branch, len(row), top, joined), *flow(len(row), top, joined)]
        for i, box in enumerate(row):
            parts += op(FIRST + i * STEP, top, box)
    parts += legend(f"saved for the backward: {numbers_per_token(tensors)} numbers a token")
    return svg.document(
        "A transformer block and the tensors that it saves for its backward", WIDTH, HEIGHT, parts, STYLE, DARK
    )


def stream() -> Iterator[str]:
    """Yield the residual stream, from top to bottom, with the names of its three values"""
    end = ROWS[-1][3] + 34
    yield svg.text(118, 28, "A transformer block, and the tensors that it saves for its backward", "title")
    yield svg.link(MODEL, svg.text(STREAM, 24, "block", "code name", "middle"))
    yield svg.path(f"M{STREAM},34 V{end}", "stream")
    yield svg.path(f"M{STREAM - 9},{end - 2} h18 l-9,14 z", "head")
    for name, y in (("x", 60), ("mid", ROWS[0][3] + 34), ("y", end)):
        yield svg.text(STREAM - 12, y, name, "code", "end")
    yield svg.text(STREAM + 14, ROWS[0][3] + 34, "(B,T,C)", "code")


def frame(branch: str, boxes: int, top: float, joined: float) -> Iterator[str]:
    """Yield the frame around the boxes of attn or mlp"""
    x = FIRST + STEP - 8
    panel = svg.rectangle(x, top - 28, (boxes - 1) * STEP, joined - top + 10, "panel", 8)
    yield svg.link(MODEL, panel, svg.text(x + 10, top - 10, branch, "code name"))


def flow(boxes: int, top: float, joined: float) -> Iterator[str]:
    """Yield the way of a branch: out of the stream, through the boxes, and back to the sum"""
    y, right = top + TALL / 2, FIRST + (boxes - 1) * STEP + BOX
    yield svg.path(f"M{STREAM},{y} H{right + 8} q8,0 8,8 V{joined - 8} q0,8 -8,8 H{STREAM + 18}", "flow")
    yield svg.path(f"M{STREAM + 13},{joined} l9,-5 v10 z", "head")
    for i in range(boxes):
        yield svg.path(f"M{FIRST + i * STEP - 1},{y} l-8,-4.5 v9 z", "head")
    yield f'<circle cx="{STREAM}" cy="{joined}" r="12" class="sum"/>'
    yield svg.path(f"M{STREAM - 6},{joined} h12 M{STREAM},{joined - 6} v12", "flow")


def op(x: float, top: float, tensors: list[Tensor]) -> Iterator[str]:
    """Yield a box with the name of an op and its function, and below it the tensors that it saves"""
    name, function = tensors[0].place[-1], tensors[0].function
    labels = [svg.text(x + BOX / 2, top + 22, name, "code name", "middle")]
    labels += [svg.text(x + BOX / 2, top + 41, function, "code", "middle")]
    yield svg.link(OPS, svg.rectangle(x, top, BOX, TALL, "op", 6), *labels)
    for i, tensor in enumerate(tensors):
        y = top + TALL + 10 + i * CHIP
        yield svg.rectangle(x, y, BOX, CHIP - 5, "weight" if tensor.is_weight else "saved", 10)
        yield svg.text(x + 12, y + 15, tensor.name, "code")
        yield svg.text(x + BOX - 12, y + 15, tensor.shape, "code", "end")


def legend(saved: str) -> Iterator[str]:
    y = HEIGHT - 26
    for x, css, content in ((FIRST, "saved", saved), (FIRST + 420, "weight", "a weight: not copied")):
        yield svg.rectangle(x, y - 12, 26, 16, css, 8)
        yield svg.text(x + 34, y + 1, content)
    letters = "B batch, T tokens, C width, H heads, D = C/H. Without dropout, p_drop is softmax's p."
    yield svg.text(FIRST, y + 20, letters, "small")
