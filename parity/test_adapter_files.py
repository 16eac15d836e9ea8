"""Do numpy_gpt and PEFT read the same adapters from one directory, and merge them into the same weights?

All logits and weights are compared in float64.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import numpy_gpt
from numpy_gpt import named
from numpy_gpt.checkpoint import adapter
from numpy_gpt.checkpoint.adapter import LoraAdapters
from numpy_gpt.classifier import classifier
from numpy_gpt.lora import TARGETS, new_adapters
from numpy_gpt.params import Head, tree_map

from .compare import FLOAT64, error
from .inputs import TINY, random_batch, random_model

peft = pytest.importorskip("peft", reason="PEFT isn't installed: pip install peft")
# PEFT calls a function of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MODEL = random_model(TINY, dtype=np.float64)
DEEP = replace(TINY, n_embd=12, n_layer=12)  # numbers of blocks of one and two digits
CLASSES = 3


@pytest.fixture
def saved(tmp_path):
    """Return the directory of MODEL"""
    numpy_gpt.save(MODEL, tmp_path / "model")
    return tmp_path / "model"


def transformers_model(directory, kind=AutoModelForCausalLM, **options):
    return kind.from_pretrained(directory, dtype=torch.float64, **options).eval()


def random_adapters(config, targets=TARGETS, rank=4, dtype=np.float64, **fields):
    """Return random adapters of {number of a block: names of its matrices}, or of these matrices of all blocks"""
    rng = np.random.default_rng(0)
    by_block = targets if isinstance(targets, dict) else dict.fromkeys(range(config.n_layer), targets)
    blocks = [new_adapters(config, rank, by_block.get(i, ()))[i] for i in range(config.n_layer)]
    return LoraAdapters(tree_map(lambda a: rng.standard_normal(a.shape).astype(dtype), blocks), rank, 2.5, **fields)


def assert_close(found, expected, name="logits"):
    assert error(name, {name: found}, {name: expected}) <= FLOAT64, name


def logits_of(model, config):
    tokens, _ = random_batch(config, 2, config.n_ctx)
    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


def assert_merged_logits(m, lora, model):
    """Compare the logits of the merged model with those of PEFT, and check that the adapters change them"""
    tokens, _ = random_batch(m.config, 2, m.config.n_ctx)
    found, plain = (numpy_gpt.forward(merged, tokens) for merged in (adapter.merge(m, lora), m))
    assert np.linalg.norm(found - plain) > 0.1 * np.linalg.norm(plain)
    assert_close(found, logits_of(model, m.config))


def adapted(model):
    """Return the names of the adapted matrices of PEFT's model"""
    names = {name.split("transformer.")[1] for name, _ in model.named_parameters() if ".lora_" in name}
    return {name.split(".lora_")[0] for name in names}


WRITTEN = {
    "all matrices": (TINY, TARGETS),
    "one of the two c_proj": (TINY, ["attn.c_proj"]),
    "the other one in the last block": (TINY, {1: ["mlp.c_proj"]}),
    "blocks 1 and 11": (DEEP, {1: TARGETS[:2], 11: TARGETS[:2]}),
    "different matrices": (TINY, {0: ["attn.c_attn"], 1: ["attn.c_proj", "mlp.c_fc"]}),
    "different matrices of many blocks": (DEEP, {i: TARGETS[i % 3 :] for i in range(1, 12)}),  # PEFT shortens the list
}


@pytest.mark.parametrize("case", WRITTEN)
def test_peft_computes_the_logits_of_the_merged_model(case, tmp_path):
    config, targets = WRITTEN[case]
    m, lora = random_model(config, dtype=np.float64), random_adapters(config, targets)
    numpy_gpt.save(m, tmp_path / "model")
    adapter.write(tmp_path / "adapter", lora, config)
    model = peft.PeftModel.from_pretrained(transformers_model(tmp_path / "model"), tmp_path / "adapter")
    assert adapted(model) == {name.removesuffix(".a") for name, _ in named(lora.adapters, "h") if name.endswith(".a")}
    assert_merged_logits(m, lora, model)


def test_peft_finds_the_base_model_of_written_adapters(saved, tmp_path):
    lora = random_adapters(TINY, base=str(saved))
    adapter.write(tmp_path / "adapter", lora, TINY)
    assert_merged_logits(MODEL, lora, transformers_model(tmp_path / "adapter", peft.AutoPeftModelForCausalLM))


def randomize(model):
    """Set the factors of all adapters to random numbers: PEFT starts with lora_B = 0"""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.normal_()
    return model


def peft_model(base, **options):
    """Return PEFT's model with random adapters of a model of transformers"""
    options = {"r": 4, "lora_alpha": 3, "fan_in_fan_out": True, "task_type": "CAUSAL_LM", **options}
    return randomize(peft.get_peft_model(base, peft.LoraConfig(**options))).eval()


READ = {
    "PEFT's default": {},
    "names that occur twice": {"target_modules": ["c_attn", "c_proj"]},
    "one of them": {"target_modules": ["mlp.c_proj"]},
    "a regular expression": {"target_modules": r".*\.h\.1\.(attn|mlp)\.c_(attn|fc)"},
    "all matrices": {"target_modules": "all-linear", "bias": "none", "lora_dropout": 0.1},
    "one block": {"target_modules": ["c_fc"], "layers_to_transform": 1},
    "rslora": {"target_modules": ["c_attn"], "use_rslora": True},
    "rank 1": {"r": 1, "lora_alpha": 0.3, "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("case", READ)
def test_merge_of_adapters_saved_by_peft_equals_pefts_merge(case, saved, tmp_path):
    model = peft_model(transformers_model(saved), **READ[case])
    model.save_pretrained(tmp_path / "adapter")
    lora = adapter.read(tmp_path / "adapter", TINY)
    assert (lora.head, lora.base) == (None, str(saved))
    assert {name.rsplit(".", 1)[0] for name, _ in named(lora.adapters, "h")} == adapted(model)
    assert_merged_logits(MODEL, lora, model)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    theirs = dict(named(numpy_gpt.load(tmp_path / "merged").params))
    for name, ours in named(adapter.merge(MODEL, lora).params):
        assert_close(ours, theirs[name], name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_adapters_saved_by_peft_in_lower_precision_keep_every_bit(dtype, saved, tmp_path):
    model = peft_model(transformers_model(saved), target_modules=["c_attn", "c_fc"]).to(dtype)
    model.save_pretrained(tmp_path / "adapter")
    lora = adapter.read(tmp_path / "adapter", TINY)
    factors = {name: p for name, p in model.named_parameters() if ".lora_" in name}
    found = dict(named(lora.adapters, "base_model.model.transformer.h"))
    assert len(found) == len(factors) == 8
    for name, a in found.items():
        matrix, letter = name.rsplit(".", 1)
        expected = factors[f"{matrix}.lora_{letter.upper()}.default.weight"].detach().float().numpy()
        np.testing.assert_array_equal(a, expected.T, err_msg=name, strict=True)
    wide = peft.PeftModel.from_pretrained(transformers_model(saved), tmp_path / "adapter")
    assert_merged_logits(MODEL, lora, wide)


def class_logits(m, lora, tokens):
    """Return the logits of the classes at the last token of each text"""
    merged, T = adapter.merge(m, lora).params, tokens.shape[1]
    x = merged.wte[tokens] + merged.wpe[:T]
    z, _ = classifier(x, np.full(len(tokens), T - 1), merged.h, merged.ln_f, Head(lora.head), m.config)
    return z


def their_class_logits(model, tokens):
    """Return the logits of PEFT's classifier, text by text, since a batch needs a padding token"""
    with torch.no_grad():
        return np.concatenate([model(torch.from_numpy(text[None])).logits.numpy() for text in tokens])


def test_a_classifier_saved_by_peft_has_its_head(saved, tmp_path):
    base = transformers_model(saved, AutoModelForSequenceClassification, num_labels=CLASSES)
    model = peft_model(base, task_type="SEQ_CLS", target_modules=["c_attn"])
    model.save_pretrained(tmp_path / "adapter")
    lora = adapter.read(tmp_path / "adapter", TINY)
    head = model.base_model.model.score.modules_to_save["default"].weight
    np.testing.assert_array_equal(lora.head, head.detach().numpy(), strict=True)
    tokens, _ = random_batch(TINY, 2, TINY.n_ctx)
    assert_close(class_logits(MODEL, lora, tokens), their_class_logits(model, tokens))


def test_peft_reads_a_written_classifier(saved, tmp_path):
    head = np.random.default_rng(1).standard_normal((CLASSES, TINY.n_embd))
    lora = random_adapters(TINY, head=head)
    adapter.write(tmp_path / "adapter", lora, TINY)
    base = transformers_model(saved, AutoModelForSequenceClassification, num_labels=CLASSES)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    tokens, _ = random_batch(TINY, 2, TINY.n_ctx)
    assert_close(class_logits(MODEL, lora, tokens), their_class_logits(model, tokens))


REFUSED = {
    "DoRA": ({"use_dora": True}, "has use_dora True"),
    "biases": ({"bias": "lora_only"}, "has bias 'lora_only'"),
    "ranks": ({"rank_pattern": {"h.0.attn.c_attn": 2}}, "has rank_pattern"),
    "alphas": ({"alpha_pattern": {"h.0.attn.c_attn": 2}}, "has alpha_pattern"),
    "an embedding": ({"target_modules": ["c_attn", "wte"]}, r"tensor \S+wte\.\S+, which isn't supported"),
    "a trained LayerNorm": ({"modules_to_save": ["ln_f"]}, r"tensor \S+ln_f\.\S+, which isn't supported"),
    "some tokens": ({"trainable_token_indices": [0, 5]}, "has trainable_token_indices"),
    "OLoRA": ({"init_lora_weights": "olora"}, "has init_lora_weights 'olora'"),
}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("case", REFUSED)
def test_adapters_of_another_kind_saved_by_peft_are_refused(case, saved, tmp_path):
    options, message = REFUSED[case]
    base = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    peft_model(base, **options).save_pretrained(tmp_path / "adapter")
    with pytest.raises(numpy_gpt.CheckpointError, match=message):
        adapter.read(tmp_path / "adapter", TINY)
