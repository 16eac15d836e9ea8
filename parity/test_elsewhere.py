"""Do logits and gradients agree with Hugging Face's GPT-2 in float64?"""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

import numpy_gpt
from numpy_gpt import Config, named
from numpy_gpt.classifier import classifier, classifier_backward
from numpy_gpt.ops import cross_entropy, cross_entropy_backward, embedding, embedding_backward
from numpy_gpt.params import GPT2, Head

from .inputs import random_batch, random_model

TOLERANCE = 1e-9


def hugging_face(m, attention, kind=GPT2LMHeadModel, **settings):
    """Return a model of a kind with the weights of m, and its parameters by our names"""
    c = m.config
    model = kind(
        GPT2Config(
            vocab_size=c.n_vocab,
            n_positions=c.n_ctx,
            n_embd=c.n_embd,
            n_head=c.n_head,
            n_layer=c.n_layer,
            tie_word_embeddings=c.tied,
            attn_implementation=attention,
            bos_token_id=None,
            eos_token_id=None,
            **settings,
        )
    )
    model = model.double().eval()
    theirs = {our_name(name): p for name, p in model.named_parameters()}
    ours = dict(named(m.params))
    absent = set(theirs) - set(ours)
    assert absent == (set() if c.qkv_bias else {f"h.{i}.attn.c_attn.b" for i in range(c.n_layer)})
    with torch.no_grad():
        for name, p in theirs.items():
            p.copy_(torch.zeros_like(p) if name in absent else torch.from_numpy(ours[name]))
    return model, {name: theirs[name] for name in ours}


def our_name(name):
    name = name.removeprefix("transformer.").replace("lm_head.weight", "head.w").replace("score.weight", "head.w")
    name = name.replace("wte.weight", "wte").replace("wpe.weight", "wpe")
    norm = ".ln_" in f".{name}"
    return name.replace(".weight", ".g" if norm else ".w").replace(".bias", ".b")


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(("B", "T"), [(1, 1), (3, 1), (1, 7), (3, 7), (1, 11), (2, 11)])
def test_logits_and_gradients_match_hugging_face(B, T, tied, qkv_bias, attention):
    config = Config(61, 11, 12, 3, 2, qkv_bias=qkv_bias, tied=tied)
    m = random_model(config, seed=B + T, dtype=np.float64)
    tokens, targets = random_batch(config, B, T)
    model, theirs = hugging_face(m, attention)
    logits = model(torch.from_numpy(tokens)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    our_loss, grads = numpy_gpt.loss_and_grads(m, tokens, targets)
    assert distance(numpy_gpt.forward(m, tokens), logits.detach().numpy()) < TOLERANCE
    assert abs(our_loss - loss.item()) < TOLERANCE
    for name, g in named(grads):
        assert distance(g, theirs[name].grad.numpy()) < TOLERANCE, name


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_classifier_matches_hugging_faces_on_padded_texts(qkv_bias, attention):
    config, K, pad = Config(61, 11, 12, 3, 2, qkv_bias=qkv_bias, tied=False), 4, 60
    m = random_model(config, dtype=np.float64)
    m = m._replace(params=m.params._replace(head=Head(m.params.head.w[:K])))
    tokens = np.random.default_rng(1).integers(0, pad, (3, 11))
    last, labels = np.array([10, 4, 0]), np.array([2, 0, 3])
    tokens[np.arange(11) > last[:, None]] = pad
    model, theirs = hugging_face(m, attention, GPT2ForSequenceClassification, num_labels=K, pad_token_id=pad)
    ids = torch.from_numpy(tokens)
    output = model(ids, attention_mask=ids != pad, labels=torch.from_numpy(labels))
    output.loss.backward()

    x, s_embedding = embedding(tokens, m.params.wte, m.params.wpe)
    z, s_classifier = classifier(x, last, m.params.h, m.params.ln_f, m.params.head, config)
    loss, s_cross_entropy = cross_entropy(z, labels)
    (dz,) = cross_entropy_backward(1.0, s_cross_entropy)
    dx, *grads = classifier_backward(dz, s_classifier)
    assert distance(z, output.logits.detach().numpy()) < TOLERANCE
    assert abs(loss - output.loss.item()) < TOLERANCE
    for name, g in named(GPT2(*embedding_backward(dx, s_embedding), *grads)):
        assert distance(g, theirs[name].grad.numpy()) < TOLERANCE, name
