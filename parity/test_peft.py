"""Do logits and gradients of adapted models agree with PEFT's in float64?"""

import numpy as np
import pytest
import torch

from numpy_gpt import Config, named
from numpy_gpt.lora import TARGETS, adapt, adapt_backward, new_adapters
from numpy_gpt.model import gpt2, gpt2_backward
from numpy_gpt.ops import cross_entropy, cross_entropy_backward

from .inputs import random_adapters, random_batch, random_model
from .test_elsewhere import TOLERANCE, distance, hugging_face

pytestmark = [
    pytest.mark.slow,  # CI runs the slow tests with the extra ci, to which PEFT belongs
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT reads it
]
CONFIG = Config(61, 11, 12, 3, 2)


def adapted_by_peft(m, rank, alpha=1, targets=TARGETS, first=0):
    """Return a GPT2LMHeadModel with the weights of m and new adapters of PEFT, and these by our names"""
    peft = pytest.importorskip("peft", reason="PEFT isn't installed: pip install -e '.[ci]'")
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(targets),
        layers_to_transform=list(range(first, m.config.n_layer)),
        fan_in_fan_out=True,
    )
    model = peft.get_peft_model(hugging_face(m, "eager")[0], settings).double()
    return model, {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def our_name(name):
    name = name.removeprefix("base_model.model.transformer.h.").removesuffix(".default.weight")
    return name.replace("lora_A", "a").replace("lora_B", "b")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:1], ("attn.c_proj", "mlp.c_proj"), ("mlp.c_fc",)])
def test_logits_and_gradients_of_adapters_match_pefts(targets, first):
    m, rank, alpha = random_model(CONFIG, dtype=np.float64), 3, 5
    adapters = random_adapters(CONFIG, rank, dtype=np.float64, targets=targets, first=first)
    tokens, labels = random_batch(CONFIG, B=3, T=7)
    model, theirs = adapted_by_peft(m, rank, alpha, targets, first)
    assert set(theirs) == set(dict(named(adapters)))
    with torch.no_grad():
        for name, a in named(adapters):
            theirs[name].copy_(torch.from_numpy(a.mT))  # PEFT's are (R,I) and (O,R)
    logits = model(input_ids=torch.from_numpy(tokens)).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(labels).flatten()).backward()

    h, s_adapt = adapt(m.params.h, adapters, alpha / rank)
    z, s_gpt2 = gpt2(tokens, m.params._replace(h=h), CONFIG)
    _, s_cross_entropy = cross_entropy(z, labels)
    grads = gpt2_backward(*cross_entropy_backward(1.0, s_cross_entropy), s_gpt2)
    assert distance(z, logits.detach().numpy()) < TOLERANCE
    for name, g in named(adapt_backward(grads.h, s_adapt)):
        assert distance(g, theirs[name].grad.numpy().T) < TOLERANCE, name


def test_new_adapters_have_the_distribution_of_pefts():
    torch.manual_seed(0)
    _, theirs = adapted_by_peft(random_model(CONFIG, dtype=np.float64), rank=64)
    for name, a in named(new_adapters(CONFIG, rank=64)):
        other = theirs[name].detach()
        assert a.any() == other.any() == name.endswith("a")
        np.testing.assert_allclose([a.min(), a.max(), a.std()], [other.min(), other.max(), other.std()], rtol=0.05)
