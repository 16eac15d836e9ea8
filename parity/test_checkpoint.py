"""Do both packages and Hugging Face's GPT-2 read the same weights from one file, in every format?"""

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError, named
from numpy_gpt.checkpoint import read

from .inputs import TINY, VARIANTS, random_batch, random_model

PLACES = {"openai": "directory", "huggingface": "model.safetensors", "llmc-v3": "m.bin"}


@pytest.mark.parametrize("format", PLACES)
def test_the_twin_loads_what_numpy_saves_and_the_reverse(format, device, tmp_path):
    m = random_model(TINY)
    numpy_gpt.save(m, tmp_path / PLACES[format])
    twin = torch_gpt.load(tmp_path / PLACES[format], device)
    assert twin.config == m.config
    torch_gpt.save(twin, tmp_path / "back" / PLACES[format])
    back = numpy_gpt.load(tmp_path / "back" / PLACES[format])
    for (name, a), (_, t), (_, b) in zip(named(m.params), named(twin.params), named(back.params), strict=True):
        assert t.device.type == device
        np.testing.assert_array_equal(t.cpu().numpy(), a, err_msg=name, strict=True)
        np.testing.assert_array_equal(b, a, err_msg=name, strict=True)


@pytest.mark.parametrize("format", PLACES)
def test_on_the_cpu_tensors_share_the_maps_memory_and_the_file_stays_as_it_is(format, tmp_path, monkeypatch):
    m = random_model(TINY)
    numpy_gpt.save(m, tmp_path / PLACES[format])
    mapped = numpy_gpt.load(tmp_path / PLACES[format])
    monkeypatch.setattr(numpy_gpt, "load", lambda source, n_head: mapped)
    twin = torch_gpt.load(tmp_path / PLACES[format])
    for (name, a), (_, t) in zip(named(mapped.params), named(twin.params), strict=True):
        assert t.data_ptr() == a.ctypes.data, name
        t.zero_()
        assert not a.any()
    monkeypatch.undo()
    np.testing.assert_array_equal(numpy_gpt.load(tmp_path / PLACES[format]).params.wte, m.params.wte)


def test_the_twin_loads_and_saves_in_the_precision_that_is_asked_for(device, tmp_path):
    numpy_gpt.save(random_model(TINY), tmp_path)
    m = torch_gpt.load(tmp_path, device, torch.bfloat16)
    assert {t.dtype for _, t in named(m.params)} == {torch.bfloat16}
    torch_gpt.save(m, tmp_path)  # as float32, which holds bfloat16
    np.testing.assert_array_equal(numpy_gpt.load(tmp_path).params.wte, m.params.wte.float().cpu().numpy(), strict=True)
    half = torch_gpt.load(tmp_path, device, torch.float16)
    torch_gpt.save(half, tmp_path, dtype=torch.float16)
    assert {stored.dtype for stored in read(tmp_path).tensors.values()} == {"float16"}
    np.testing.assert_array_equal(
        numpy_gpt.load(tmp_path).params.wte, half.params.wte.float().cpu().numpy(), strict=True
    )
    with pytest.raises(GPTError, match=r"dtype is torch\.int64: it must be one of torch\.float32"):
        torch_gpt.load(tmp_path, device, torch.int64)


@pytest.mark.parametrize("variant", ["as released", "untied", "no qkv bias"])
def test_transformers_computes_the_same_from_what_is_saved(variant, tmp_path):
    m = random_model(VARIANTS[variant])
    numpy_gpt.save(m, tmp_path, format="huggingface")
    model = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    tokens, _ = random_batch(m.config, 2, 11)
    theirs = model(torch.from_numpy(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(theirs, numpy_gpt.forward(m, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["as released", "untied"])
@pytest.mark.parametrize("shards", ["one file", "several"])
def test_what_transformers_saves_is_loaded(variant, shards, tmp_path):
    m = random_model(VARIANTS[variant])
    numpy_gpt.save(m, tmp_path / "ours", format="huggingface")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100GB" if shards == "one file" else "50KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > (shards == "several")
    loaded = numpy_gpt.load(tmp_path / "theirs")
    assert loaded.config == m.config
    for (name, a), (_, b) in zip(named(loaded.params), named(m.params), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
