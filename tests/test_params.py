"""Does the tree have the names, the sizes and the initialisation of GPT-2, and does Config refuse invalid values?"""

import json
from dataclasses import asdict

import numpy as np
import pytest

from numpy_gpt import RELEASED, CheckpointError, Config, GPTError, init, load, named
from numpy_gpt.params import tree_map
from numpy_gpt.text import tokenizer
from parity.inputs import TINY


def test_released_sizes_have_the_published_numbers_of_parameters():
    published = {"124M": 124_439_808, "355M": 354_823_168, "774M": 774_030_080, "1558M": 1_557_611_200}
    assert {size: config.num_parameters() for size, config in RELEASED.items()} == published
    assert Config(tied=False, qkv_bias=False).num_parameters() == 163_009_536
    shapes = {size: (c.n_embd, c.n_head, c.n_layer) for size, c in RELEASED.items()}
    assert shapes == {"124M": (768, 12, 12), "355M": (1024, 16, 24), "774M": (1280, 20, 36), "1558M": (1600, 25, 48)}
    assert {(c.n_vocab, c.n_ctx, c.dropout, c.qkv_bias, c.tied) for c in RELEASED.values()} == {
        (50257, 1024, 0.0, True, True)
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_num_parameters_equals_the_size_of_the_tree(tied, qkv_bias):
    config = Config(61, 11, 12, 3, 2, qkv_bias=qkv_bias, tied=tied)
    leaves = dict(named(init(config).params))
    assert sum(a.size for a in leaves.values()) == config.num_parameters()
    assert ("head.w" in leaves) == (not tied)
    assert ("h.1.attn.c_attn.b" in leaves) == qkv_bias


def test_names_are_openais_in_the_order_of_the_forward():
    names = [name for name, _ in named(init(TINY).params)]
    assert names[:4] == ["wte", "wpe", "h.0.ln_1.g", "h.0.ln_1.b"]
    assert names[4:14] == [
        f"h.0.{name}.{leaf}"
        for name, leaves in [
            ("attn.c_attn", "wb"),
            ("attn.c_proj", "wb"),
            ("ln_2", "gb"),
            ("mlp.c_fc", "wb"),
            ("mlp.c_proj", "wb"),
        ]
        for leaf in leaves
    ]
    assert names[-2:] == ["ln_f.g", "ln_f.b"]
    assert len(names) == 2 + 12 * TINY.n_layer + 2


@pytest.mark.parametrize("tree", [5, "wte", {"wte": 1}, TINY, init(TINY)], ids=lambda tree: type(tree).__name__)
def test_named_refuses_objects_that_are_no_tree_of_parameters(tree):
    with pytest.raises(GPTError, match=r"tree is .*: it must be a tree of parameters, such as m.params"):
        named(tree)


def test_tree_map_keeps_types_and_skips_absent_leaves():
    params = init(Config(61, 11, 12, 3, 2, qkv_bias=False)).params
    doubled = tree_map(lambda a, b: a + b, params, params)
    assert type(doubled) is type(params)
    assert doubled.head is None
    assert doubled.h[1].attn.c_attn.b is None
    for (name, a), (same, b) in zip(named(params), named(doubled), strict=True):
        assert name == same
        np.testing.assert_array_equal(2 * a, b)


def test_init_has_gpt2s_standard_deviations():
    config = Config(n_vocab=500, n_ctx=64, n_embd=128, n_head=4, n_layer=8, tied=False)
    residual = 0.02 / 4  # sqrt(2 * 8 layers)
    for name, a in named(init(config, seed=1).params):
        assert a.dtype == np.float32
        if name.endswith((".b", ".g")):
            assert (a == name.endswith(".g")).all()
        else:
            std = residual if name.endswith("c_proj.w") else 0.02
            assert abs(a.std() / std - 1) < 5 / np.sqrt(2 * a.size)
            assert abs(a.mean()) < 5 * std / np.sqrt(a.size)


def test_init_is_reproducible_and_depends_on_the_seed():
    one, same, other = (init(TINY, seed).params.wte for seed in (1, 1, 2))
    assert (one == same).all()
    assert not (one == other).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_embd": 10, "n_head": 3}, "n_embd 10 is not divisible by n_head 3"),
        ({"n_layer": 0}, "n_layer is 0"),
        ({"n_vocab": 50257.0}, "n_vocab is 50257.0"),
        ({"n_ctx": True}, "n_ctx is True"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": 0.995}, "dropout is 0.995"),
        ({"dropout": 0.001}, "dropout is 0.001: it is rounded to a multiple of 1/256"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"dropout": "0.1"}, "dropout is '0.1'"),
        ({"dropout": False}, "dropout is False"),
        ({"tied": 1}, "tied is 1"),
        ({"n_ctx": np.float64(64)}, r"n_ctx is np.float64\(64.0\)"),
        ({"n_layer": np.True_}, r"n_layer is np.True_"),
    ],
)
def test_config_with_an_invalid_value_raises(values, message):
    with pytest.raises(GPTError, match=message):
        Config(**values)


def test_config_of_numpy_numbers_equals_that_of_python_numbers():
    sizes = {"n_vocab": np.int64(61), "n_ctx": np.uint8(11), "n_embd": np.int32(48), "n_head": np.int16(3)}
    config = Config(**sizes, n_layer=np.int64(2), dropout=np.float64(0.25), qkv_bias=np.True_, tied=np.bool_(False))
    expected = Config(61, 11, 48, 3, 2, dropout=0.25, qkv_bias=True, tied=False)
    assert config == expected
    assert json.dumps(asdict(config)) == json.dumps(asdict(expected))


def test_init_accepts_numpy_integers_up_to_the_largest_seed():
    for seed in (np.uint64(2**64 - 1), np.int8(3)):
        assert (init(TINY, seed).params.wte == init(TINY, int(seed)).params.wte).all()


def test_repr_of_a_model_is_a_summary_without_arrays():
    m = init(TINY)
    assert repr(m) == str(m) == f"<Model of 60,096 parameters in float32, no tokenizer: {TINY}>"
    assert "a tokenizer of 4,096 tokens" in repr(load("storyteller"))


def test_errors_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match="n_layer is 0"):
        Config(n_layer=0)
    with pytest.raises(ValueError, match="has no checkpoint") as raised:
        load(tmp_path)
    assert isinstance(raised.value, CheckpointError)


def test_model_with_an_invalid_vocabulary_can_be_printed(tmp_path):
    (tmp_path / "tokenizer.json").write_text("null")
    m = init(TINY)._replace(tokenizer=tokenizer.load(tmp_path))
    assert "float32, a tokenizer that can't be read: Config(" in repr(m)
