"""Are the images and rows of attention those of a loop over queries?"""

import math

import numpy as np
import pytest
from inspecting import IDS, M, ask, decoded, softmax

import numpy_gpt

LONG = [i * i % 61 for i in range(75)]  # more than one tile of queries, and not a multiple of a pixel's 3 positions


def attention(ids, layer, head):
    """Return p (T,T) of one head, computed row by row from the parameters"""
    p, C = M.params, M.config.n_embd
    D = C // M.config.n_head
    x = (p.wte[ids] + p.wpe[: len(ids)])[None]
    for p_i in p.h[:layer]:
        x, _ = numpy_gpt.model.block(x, p_i, M.config)
    n = x[0] - x[0].mean(-1, keepdims=True)
    n = n / np.sqrt((n * n).mean(-1, keepdims=True) + 1e-5) * p.h[layer].ln_1.g + p.h[layer].ln_1.b
    qkv = n @ p.h[layer].attn.c_attn.w + p.h[layer].attn.c_attn.b
    q, k = (qkv[:, start + head * D : start + (head + 1) * D] for start in (0, C))
    rows = np.zeros((len(ids), len(ids)))
    for t in range(len(ids)):
        rows[t, : t + 1] = softmax(k[: t + 1] @ q[t] / math.sqrt(D))
    return rows


def in_bytes(p):
    return np.round(255 * np.sqrt(p))


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("ids", [IDS, LONG], ids=["short", "long"])
def test_head_is_attention_row_by_row(layer, head, ids):
    T = len(ids)
    p = attention(ids, layer, head)
    image = np.frombuffer(ask("head", ids, layer=layer, head=head), np.uint8).reshape(T, T)
    np.testing.assert_allclose(image, in_bytes(p), atol=1)
    assert (image[np.triu_indices(T, 1)] == 0).all()
    for position in (0, 3, T - 1):
        row = ask("row", ids, layer=layer, head=head, position=position)["probabilities"]
        assert row == pytest.approx(p[position, : position + 1], rel=1e-5)


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 75), (60, 7), (74, 1)])
def test_rows_of_a_head_are_those_of_the_whole(first, count):
    whole = np.frombuffer(ask("head", LONG, layer=1, head=2), np.uint8).reshape(75, 75)
    rows = np.frombuffer(ask("head", LONG, layer=1, head=2, first=first, count=count), np.uint8)
    np.testing.assert_array_equal(rows.reshape(count, 75), whole[first : first + count])
    rest = np.frombuffer(ask("head", LONG, layer=1, head=2, first=first), np.uint8)
    np.testing.assert_array_equal(rest.reshape(-1, 75), whole[first:])


@pytest.mark.parametrize(
    ("ids", "span", "size"), [([3], 1, 1), (IDS, 1, 7), (LONG[:32], 1, 32), (LONG[:33], 2, 17), (LONG, 3, 25)]
)
def test_thumbnail_is_the_maximum_of_each_square(ids, span, size):
    found = ask("attention", ids)
    assert (found["layers"], found["heads"], found["size"], found["span"]) == (2, 3, size, span)
    images = decoded(found["thumbnails"], np.uint8).reshape(2, 3, size, size)
    for layer in range(2):
        for head in range(3):
            p = attention(ids, layer, head)
            squares = [
                [p[y : y + span, x : x + span].max() for x in range(0, len(ids), span)]
                for y in range(0, len(ids), span)
            ]
            np.testing.assert_allclose(images[layer, head], in_bytes(np.array(squares)), atol=1)
