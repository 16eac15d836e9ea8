"""Do the three formats contain the same model, compatible with the programs that they come from?"""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from numpy_gpt import RELEASED, CheckpointError, GPTError, init, load, named, save
from numpy_gpt.params import tree_map
from parity.inputs import TINY, VARIANTS, random_model

PLACES = {"openai": "openai", "huggingface": "huggingface", "safetensors": "m.safetensors"}
PLACES |= {"llmc-v3": "v3.bin", "llmc-v1": "v1.bin"}


def assert_same(a, b):
    assert a.config == b.config
    for (name, x), (same, y) in zip(named(a.params), named(b.params), strict=True):
        assert name == same
        np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32), err_msg=name)  # the bits, -0.0 and NaN too


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("format", PLACES)
def test_load_after_save_is_bit_identical(format, variant, tmp_path):
    m = random_model(VARIANTS[variant])
    m.params.wte[0, :3] = [-0.0, np.nan, np.inf]
    if format.startswith("llmc"):
        m = m._replace(config=replace(m.config, dropout=0.0))  # which the file doesn't contain
        if not (m.config.tied and m.config.qkv_bias):
            with pytest.raises(GPTError, match=r"llm\.c's format doesn't support"):
                save(m, tmp_path / PLACES[format])
            return
    save(m, tmp_path / PLACES[format], None if format == "safetensors" else format)
    assert_same(load(tmp_path / PLACES[format]), m)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", pytest.param("124M", marks=pytest.mark.full)])
def test_save_through_all_formats_and_back_changes_no_byte(size, tmp_path):
    m = random_model(TINY) if size == "tiny" else init(RELEASED["124M"])
    save(m, tmp_path / "openai", "openai")
    save(load(tmp_path / "openai"), tmp_path / "huggingface", "huggingface")
    save(load(tmp_path / "huggingface"), tmp_path / "m.bin")
    save(load(tmp_path / "m.bin"), tmp_path / "back", "openai")
    files = sorted(file.name for file in (tmp_path / "openai").iterdir())
    assert files == ["checkpoint", "hparams.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    for file in files:
        assert (tmp_path / "back" / file).read_bytes() == (tmp_path / "openai" / file).read_bytes()
    if size == "124M":
        assert (tmp_path / "openai" / "model.ckpt.data-00000-of-00001").stat().st_size == 497_759_232
        assert (tmp_path / "m.bin").stat().st_size == 497_904_640


def test_saved_hparams_and_pointer_equal_the_released_files(data, tmp_path):
    save(init(replace(RELEASED["124M"], n_layer=1)), tmp_path, "openai")
    assert (tmp_path / "checkpoint").read_bytes() == (data / "openai-124M" / "checkpoint").read_bytes()
    released = (data / "openai-124M" / "hparams.json").read_bytes()
    assert (tmp_path / "hparams.json").read_bytes() == released.replace(b'"n_layer": 12', b'"n_layer": 1')


@pytest.mark.parametrize("size", RELEASED)
def test_load_of_every_released_shape(size, tmp_path):
    """Use a sparse data file, which is enough to check the place of every tensor"""
    from numpy_gpt.checkpoint import bundle, openai

    save(init(TINY), tmp_path, "openai")
    config = RELEASED[size]
    (tmp_path / "hparams.json").write_text(json.dumps(openai.hparams(config)))
    entries = openai.entries(config)
    (tmp_path / "model.ckpt.index").write_bytes(bundle.write_index(entries))
    with open(tmp_path / "model.ckpt.data-00000-of-00001", "wb") as f:
        f.truncate(4 * config.num_parameters())
        f.seek(entries["model/wte"].offset + entries["model/wte"].size - 4)
        f.write(np.float32(7).tobytes())
    m = load(tmp_path)
    assert m.config == config
    assert sum(a.size for _, a in named(m.params)) == config.num_parameters()
    assert m.params.wte[-1, -1] == 7


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_load_of_tensorflows_checkpoint(dtype, tf, tmp_path):
    # Half precision becomes float32; double precision stays
    m = random_model(TINY)
    save(m, tmp_path, "openai")
    reader = tf.train.load_checkpoint(str(tmp_path))
    names = reader.get_variable_to_shape_map()
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.Variable(tf.cast(reader.get_tensor(name), dtype)) for name in names}
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(tmp_path / "model-1000"))
    loaded = load(tmp_path)
    assert loaded.params.wte.dtype == (np.float64 if dtype == "float64" else np.float32)
    for (name, x), (_, y) in zip(named(loaded.params), named(m.params), strict=True):
        rounded = tf.cast(tf.cast(np.ascontiguousarray(y), dtype), x.dtype).numpy()
        np.testing.assert_array_equal(x, rounded, err_msg=name, strict=True)


def test_tensorflow_reads_a_saved_checkpoint(tf, tmp_path):
    m = random_model(VARIANTS["untied"])
    save(m, tmp_path, "openai")
    reader = tf.train.load_checkpoint(str(tmp_path))
    np.testing.assert_array_equal(reader.get_tensor("model/h1/mlp/c_fc/w"), m.params.h[1].mlp.c_fc.w[None], strict=True)
    np.testing.assert_array_equal(reader.get_tensor("model/head/w"), m.params.head.w, strict=True)
    assert len(reader.get_variable_to_shape_map()) == len(dict(named(m.params)))


def safetensors(m, prefix="", dtype=np.float32):
    """Return the parameters by Hugging Face's names, independently of the package"""
    names = {
        "wte": "wte.weight",
        "wpe": "wpe.weight",
        "ln_f.g": "ln_f.weight",
        "ln_f.b": "ln_f.bias",
        "head.w": "lm_head.weight",
    }
    leaves = {"w": "weight", "g": "weight", "b": "bias"}
    for name, _ in named(m.params):
        if name.startswith("h."):
            stem, _, leaf = name.rpartition(".")
            names[name] = f"{stem}.{leaves[leaf]}"
    own = ("head.w",)
    return {(names[n] if n in own else prefix + names[n]): np.ascontiguousarray(a, dtype) for n, a in named(m.params)}


def write_config(directory, config, **changed):
    keys = {"vocab_size": config.n_vocab, "n_positions": config.n_ctx, "n_embd": config.n_embd}
    keys |= {"n_head": config.n_head, "n_layer": config.n_layer, "tie_word_embeddings": config.tied} | changed
    (directory / "config.json").write_text(json.dumps(keys))


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("variant", ["as released", "untied"])
def test_load_of_the_safetensors_librarys_file(st, prefix, variant, tmp_path):
    m = random_model(VARIANTS[variant])
    masks = {f"{prefix}h.{i}.attn.bias": np.tri(11, dtype=bool)[None, None] for i in range(2)}
    masks |= {f"{prefix}h.{i}.attn.masked_bias": np.float32([-1e4]) for i in range(2)}
    st.save_file(safetensors(m, prefix) | masks, tmp_path / "model.safetensors")
    write_config(tmp_path, m.config)
    assert_same(load(tmp_path), m)
    assert_same(load(tmp_path / "model.safetensors"), m)


def test_safetensors_library_reads_a_saved_file(st, tmp_path):
    for variant, prefix in (("as released", ""), ("untied", "transformer.")):
        m = random_model(VARIANTS[variant])
        save(m, tmp_path / "m.safetensors")
        found, expected = st.load_file(tmp_path / "m.safetensors"), safetensors(m, prefix)
        assert found.keys() == expected.keys()
        for name, a in expected.items():
            np.testing.assert_array_equal(found[name], a, strict=True)


def test_load_ties_a_head_only_if_it_is_equal_to_wte(st, tmp_path):
    config = replace(TINY, n_vocab=2100)  # more rows than are compared at once
    m = random_model(config)
    write_config(tmp_path, config)
    head = m.params.wte.copy()
    st.save_file(safetensors(m) | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    assert_same(load(tmp_path), m)
    head[-1, -1] += 1
    st.save_file(safetensors(m) | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    untied = load(tmp_path)
    assert not untied.config.tied
    np.testing.assert_array_equal(untied.params.head.w, head)
    write_config(tmp_path, config, tie_word_embeddings=False)
    st.save_file(safetensors(m) | {"lm_head.weight": m.params.wte}, tmp_path / "model.safetensors")
    assert not load(tmp_path).config.tied  # the two only start equal


@pytest.mark.parametrize("place", ["directory", "m.safetensors"])
@pytest.mark.parametrize("variant", [name for name, config in VARIANTS.items() if not config.qkv_bias])
def test_model_without_qkv_bias_is_written_with_zeros(st, variant, place, tmp_path):
    m = random_model(VARIANTS[variant])
    save(m, tmp_path / place)
    file = tmp_path / "directory" / "model.safetensors" if place == "directory" else tmp_path / place
    found = st.load_file(file)
    biases = {name: a for name, a in found.items() if name.endswith("attn.c_attn.bias")}
    assert len(biases) == m.config.n_layer
    for name, a in biases.items():
        np.testing.assert_array_equal(a, np.zeros(3 * m.config.n_embd, np.float32), err_msg=name, strict=True)
    assert_same(load(tmp_path / place), m)


def test_load_keeps_qkv_biases_that_are_no_longer_zero(st, tmp_path):
    # Other programs can train the biases
    m = random_model(replace(TINY, qkv_bias=False))
    save(m, tmp_path)
    found = st.load_file(tmp_path / "model.safetensors")
    found["h.1.attn.c_attn.bias"][7] = 1
    st.save_file(found, tmp_path / "model.safetensors")
    loaded = load(tmp_path)
    assert loaded.config == TINY
    assert not loaded.params.h[0].attn.c_attn.b.any()
    assert np.flatnonzero(loaded.params.h[1].attn.c_attn.b).tolist() == [7]


def test_load_of_a_model_without_qkv_biases_in_the_file(st, tmp_path):
    # Version 0.1.0 wrote no zeros
    m = random_model(replace(TINY, qkv_bias=False))
    st.save_file(safetensors(m), tmp_path / "model.safetensors")
    write_config(tmp_path, m.config, qkv_bias=False)
    assert_same(load(tmp_path), m)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_load_of_safetensors_in_another_precision(st, dtype, tmp_path):
    m = random_model(TINY)
    st.save_file(safetensors(m, dtype=dtype), tmp_path / "model.safetensors")
    write_config(tmp_path, TINY)
    loaded = load(tmp_path)
    for (name, x), (_, y) in zip(named(loaded.params), named(m.params), strict=True):
        kept = np.float64 if dtype == "float64" else np.float32
        np.testing.assert_array_equal(x, y.astype(dtype).astype(kept), err_msg=name, strict=True)


def test_load_of_safetensors_in_bfloat16(tmp_path):
    m = random_model(TINY)
    header, body = {}, b""
    for name, a in safetensors(m).items():
        upper = (a.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        header[name] = {"dtype": "BF16", "shape": a.shape, "data_offsets": [len(body), len(body) + len(upper)]}
        body += upper
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    write_config(tmp_path, TINY)
    for (name, x), (_, y) in zip(named(load(tmp_path).params), named(m.params), strict=True):
        np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32) & 0xFFFF0000, err_msg=name)


def test_load_of_several_safetensors_files(st, tmp_path):
    m = random_model(TINY)
    tensors = list(safetensors(m).items())
    places = {}
    for i in range(3):
        file = f"model-{i + 1:05}-of-00003.safetensors"
        st.save_file(dict(tensors[i::3]), tmp_path / file)
        places |= {name: file for name, _ in tensors[i::3]}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    write_config(tmp_path, TINY)
    assert_same(load(tmp_path), m)
    index.write_text(json.dumps({"weight_map": places | {"wte.weight": file.replace("3", "2", 1)}}))
    with pytest.raises(CheckpointError, match=r"lacks the tensor wte.weight"):
        load(tmp_path)
    for wrong in (None, {"wte.weight": "../model.safetensors"}, {"wte.weight": 3}):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(CheckpointError, match=r"index.json has no weight_map from tensors to files beside it"):
            load(tmp_path)


def test_load_without_a_config_requires_n_head(st, tmp_path):
    m = random_model(TINY)
    file = tmp_path / "m.safetensors"
    st.save_file(safetensors(m), file)
    with pytest.raises(CheckpointError, match=r"m.safetensors doesn't contain the number of heads: .* give n_head"):
        load(file)
    assert_same(load(file, n_head=3), m)
    with pytest.raises(CheckpointError, match=r"m\.safetensors: n_embd 48 is not divisible by n_head 5"):
        load(file, n_head=5)


@pytest.mark.parametrize("name", ["m", "m.safetensors", "m.bin"])
def test_load_refuses_another_n_head_than_the_checkpoints(name, tmp_path):
    m = random_model(TINY)
    save(m, tmp_path / name)
    assert_same(load(tmp_path / name, n_head=3), m)
    with pytest.raises(GPTError, match=r"m.* has 3 heads, and n_head is 6: leave n_head out."):
        load(tmp_path / name, n_head=6)


NOT_GPT2 = {
    "model_type": "gpt_neo",
    "activation_function": "gelu",
    "layer_norm_epsilon": 1e-6,
    "scale_attn_weights": False,
    "scale_attn_by_inverse_layer_idx": True,
    "add_cross_attention": True,
    "n_inner": 100,
}


@pytest.mark.parametrize("key", NOT_GPT2)
def test_load_refuses_a_config_of_other_arithmetic(st, key, tmp_path):
    st.save_file(safetensors(random_model(TINY)), tmp_path / "model.safetensors")
    write_config(tmp_path, TINY, **{key: NOT_GPT2[key]})
    with pytest.raises(CheckpointError, match=f"config.json has {key} {NOT_GPT2[key]!r}, and GPT-2"):
        load(tmp_path)
    write_config(tmp_path, TINY, n_inner=4 * TINY.n_embd, layer_norm_epsilon=1e-05, activation_function="gelu_new")
    load(tmp_path)


def llmc(m, version, padded):
    """Return the file that llm.c's train_gpt2.py writes, independently of the package"""
    c, p = m.config, m.params
    header = [20240326, version, c.n_ctx, c.n_vocab, c.n_layer, c.n_head, c.n_embd] + [padded] * (version != 1)
    parts = [np.concatenate([p.wte, np.zeros((padded - c.n_vocab, c.n_embd), np.float32)]), p.wpe]
    parts += [np.stack([h.ln_1.g for h in p.h]), np.stack([h.ln_1.b for h in p.h])]
    for linear in (lambda h: h.attn.c_attn, lambda h: h.attn.c_proj):
        parts += [np.stack([linear(h).w.T for h in p.h]), np.stack([linear(h).b for h in p.h])]
    parts += [np.stack([h.ln_2.g for h in p.h]), np.stack([h.ln_2.b for h in p.h])]
    for linear in (lambda h: h.mlp.c_fc, lambda h: h.mlp.c_proj):
        parts += [np.stack([linear(h).w.T for h in p.h]), np.stack([linear(h).b for h in p.h])]
    parts += [p.ln_f.g, p.ln_f.b]
    floats = np.concatenate([part.ravel() for part in parts])
    body = (floats.view(np.uint32) >> 16).astype(np.uint16) if version == 5 else floats
    return struct.pack("<256i", *header, *[0] * (256 - len(header))) + body.tobytes()


@pytest.mark.parametrize(("version", "padded"), [(1, 61), (3, 128), (5, 128)])
def test_load_of_llmc_files(version, padded, tmp_path):
    m = random_model(TINY)
    if version == 5:
        m = m._replace(params=tree_map(lambda a: (a.view(np.uint32) & 0xFFFF0000).view(np.float32), m.params))
    (tmp_path / "m.bin").write_bytes(llmc(m, version, padded))
    assert_same(load(tmp_path / "m.bin"), m)


def test_save_writes_llmc_files_byte_for_byte(tmp_path):
    m = random_model(TINY)
    save(m, tmp_path / "m.bin")
    assert (tmp_path / "m.bin").read_bytes() == llmc(m, 3, 128)
    save(m, tmp_path / "m.bin", "llmc-v1")
    assert (tmp_path / "m.bin").read_bytes() == llmc(m, 1, 61)


def test_half_precision_on_disk_loads_as_float32(tmp_path):
    m = random_model(TINY)
    for place, format in (("openai", "openai"), ("huggingface", None), ("m.safetensors", None)):
        save(m, tmp_path / place, format, dtype=np.float16)
        loaded = load(tmp_path / place)
        for (name, x), (_, y) in zip(named(loaded.params), named(m.params), strict=True):
            np.testing.assert_array_equal(x, y.astype(np.float16).astype(np.float32), err_msg=name, strict=True)
    assert (tmp_path / "openai" / "model.ckpt.data-00000-of-00001").stat().st_size == 2 * TINY.num_parameters()
    m.params.ln_f.g[0] = 70000
    for place, name in (("openai", "model/ln_f/g"), ("huggingface", "ln_f.weight")):
        with pytest.raises(GPTError, match=f"{name} has values that overflow float16"):
            save(m, tmp_path / place, dtype=np.float16)
    for dtype in ("float16", "float64"):
        with pytest.raises(GPTError, match="format supports only float32: give dtype float32"):
            save(m, tmp_path / "m.bin", dtype=dtype)


def test_double_precision_is_kept_unless_dtype_is_given(tmp_path):
    m = random_model(TINY, dtype=np.float64)
    m.params.wte[0, 0] = 1 + 2**-50
    save(m, tmp_path)
    assert load(tmp_path).params.wte[0, 0] == 1 + 2**-50
    assert load(tmp_path, dtype=np.float32).params.wte.dtype == np.float32
    save(m, tmp_path, dtype="float32")
    assert load(tmp_path).params.wte.dtype == np.float32
    assert load(tmp_path, dtype="float64").params.wte.dtype == np.float64
