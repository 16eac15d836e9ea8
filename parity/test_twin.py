"""Does the twin check its input like the reference, leave state intact on errors, and save memory on request?"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import numpy_gpt
import torch_gpt
from numpy_gpt import GPTError, named
from numpy_gpt.params import tree_map
from numpy_gpt.record import record

from .inputs import TINY, VARIANTS, random_batch, random_model

GOOD = np.zeros((2, 7), int)
TREE = random_model(TINY).params


@pytest.fixture
def m(device):
    return torch_gpt.from_numpy(random_model(TINY), device)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.full((2, 7), 61), "tokens has the id 61: the model's vocabulary is 0 to 60"),
        (torch.full((2, 7), -1), "tokens has the id -1"),
        (np.zeros((1, 12), int), "tokens has 12 positions, and the model's n_ctx is 11"),
        (torch.zeros((0, 7), dtype=torch.long), "tokens is empty"),
        (torch.zeros(2, 7, requires_grad=True), "tokens has the dtype float32"),
        ([[1, 2], [3]], "tokens has rows of different lengths"),
    ],
)
def test_invalid_tokens_are_refused_with_an_explanation(tokens, message, m):
    with pytest.raises(GPTError, match=message):
        torch_gpt.forward(m, tokens)
    with pytest.raises(GPTError, match=message):
        torch_gpt.loss_and_grads(m, tokens, tokens)


def test_targets_of_another_shape_are_refused(m):
    with pytest.raises(GPTError, match=r"targets has the shape \(2, 6\) and tokens \(2, 7\)"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD[:, 1:])


def test_tokens_of_any_integer_type_and_layout_are_accepted(m, device):
    batch = random_batch(TINY, B=2, T=7)
    loss, _ = torch_gpt.loss_and_grads(m, *batch)
    for kind in (lambda a: a.tolist(), lambda a: a.astype(">u2"), lambda a: a[:, ::-1].copy()[:, ::-1]):
        assert torch_gpt.loss_and_grads(m, *map(kind, batch))[0] == loss
    assert torch_gpt.loss_and_grads(m, *(torch.tensor(a, device=device) for a in batch))[0] == loss


def test_model_of_another_kind_is_refused(m):
    with pytest.raises(GPTError, match="the model holds NumPy arrays"):
        torch_gpt.forward(random_model(TINY), GOOD)
    half = m._replace(params=tree_map(lambda a: a.half(), m.params))
    with pytest.raises(GPTError, match=r"parameter wte has the dtype torch.float16"):
        torch_gpt.loss_and_grads(half, GOOD, GOOD)
    with pytest.raises(GPTError, match="the parameters are not those of Config"):
        torch_gpt.forward(m._replace(config=replace(TINY, n_layer=3)), GOOD)
    with pytest.raises(GPTError, match=r"it must be None or a torch_gpt.Noise\(seed, step\)"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD, numpy_gpt.Noise(0, 0))
    with pytest.raises(GPTError, match="dtype is 'bfloat16'"):
        torch_gpt.init(TINY, dtype="bfloat16")


def test_model_of_tensors_is_refused_by_numpy_gpt(m):
    for call in (numpy_gpt.forward, numpy_gpt.complete_batch):
        with pytest.raises(GPTError, match=r"the model holds tensors: m._replace\(params=torch_gpt.to_numpy"):
            call(m, GOOD)


def test_parameters_on_several_devices_or_on_meta_are_refused(m):
    on_two_devices = m._replace(params=m.params._replace(wpe=m.params.wpe.to("meta")))
    on_meta = m._replace(params=tree_map(lambda a: a.to("meta"), m.params))
    for call in (torch_gpt.forward, torch_gpt.complete_batch):
        with pytest.raises(GPTError, match=r"parameter wpe is on meta and wte on .*: put all on one device"):
            call(on_two_devices, GOOD)
        with pytest.raises(GPTError, match="the parameters are on the device meta"):
            call(on_meta, GOOD)
    with pytest.raises(GPTError, match="wte is on meta, where there are no numbers"):
        torch_gpt.to_numpy(on_meta.params)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 7, device="meta"), torch.zeros(2, 7, dtype=torch.bfloat16)])
def test_tokens_that_numpy_cannot_represent_are_refused(wrong, m):
    for run in (lambda: torch_gpt.forward(m, wrong), lambda: torch_gpt.loss_and_grads(m, wrong, GOOD)):
        with pytest.raises(GPTError, match="tokens can't be made a NumPy array"):
            run()
    with pytest.raises(GPTError, match="targets can't be made a NumPy array"):
        torch_gpt.loss_and_grads(m, GOOD, wrong)
    with pytest.raises(GPTError, match="tokens can't be made a NumPy array"):
        numpy_gpt.forward(random_model(TINY), torch.zeros(2, 7, requires_grad=True))


KINDS = {
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "Fortran order": np.asfortranarray,
    "slice of a wider array": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "unaligned": lambda a: np.frombuffer(bytearray(b"x" + a.tobytes()), a.dtype, offset=1).reshape(a.shape),
    "field of a structured array": lambda a: a.astype([("a", a.dtype), ("b", "u1")])["a"],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_from_numpy_accepts_arrays_of_any_layout(kind, dtype, device):
    m = random_model(TINY, dtype=dtype)
    odd = m._replace(params=tree_map(KINDS[kind], m.params))
    before = [a.tobytes() for _, a in named(odd.params)]
    twin = torch_gpt.from_numpy(odd, device)
    logits, expected = (torch_gpt.forward(side, GOOD).cpu() for side in (twin, torch_gpt.from_numpy(m, device)))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    for (name, a), (_, b) in zip(named(m.params), named(twin.params), strict=True):
        np.testing.assert_array_equal(a, b.cpu(), err_msg=name)
        b.zero_()  # shared memory must be writable
    if kind in ("read-only", "big-endian"):
        assert [a.tobytes() for _, a in named(odd.params)] == before


def test_from_numpy_accepts_an_empty_array():
    tree = random_model(TINY)
    empty = tree._replace(params=tree.params._replace(wte=np.empty((0, 48), np.float32)))
    assert torch_gpt.from_numpy(empty).params.wte.shape == (0, 48)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (TREE._replace(wte=TREE.wte.tolist()), "parameter wte.0.0 is a float"),
        (TREE._replace(wte=TREE.wte.astype(object)), "the parameters can't be put on cpu: can't convert np.ndarray"),
        (None, "m has no Config or no tree of parameters"),
    ],
)
def test_from_numpy_refuses_parameters_that_are_not_arrays(params, message):
    with pytest.raises(GPTError, match=message):
        torch_gpt.from_numpy(numpy_gpt.Model(TINY, params))


DEVICES = {
    "nonsense": "the device nonsense can't be used: Expected one of cpu, cuda",
    "cuda:99": "the device cuda:99 can't be used: ",
    "cuda:x": "the device cuda:x can't be used: Invalid device string",
    "meta": "the device meta can't be used: Cannot copy out of meta tensor; no data",
    "hpu": "the device hpu can't be used: ",
    "": "the device  can't be used: ",
    None: "device is None: it must be a name, such as cpu or cuda:1",
    1.5: "device is 1.5: it must be a name",
    (): r"device is \(\): it must be a name",
}


@pytest.mark.parametrize("wrong", DEVICES)
def test_unusable_device_is_refused_with_an_explanation(wrong):
    calls = [
        lambda: torch_gpt.init(TINY, device=wrong),
        lambda: torch_gpt.load("nowhere", wrong),
        lambda: torch_gpt.from_numpy(random_model(TINY), wrong),
    ]
    for call in calls:
        with pytest.raises(GPTError, match=DEVICES[wrong]) as e:
            call()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("wrong", ["float32", np.float32, torch.int64, 7, np.zeros(2), TREE])
def test_dtype_other_than_pytorchs_floats_is_refused(wrong):
    calls = [
        lambda: torch_gpt.init(TINY, dtype=wrong),
        lambda: torch_gpt.load("nowhere", dtype=wrong),
        lambda: torch_gpt.from_numpy(random_model(TINY), dtype=wrong),
    ]
    for call in calls:
        with pytest.raises(GPTError, match=r"dtype is .*: it must be one of torch.float32, torch.float64"):
            call()


@pytest.mark.parametrize("wrong", ["nonsense", torch.int8, torch.bfloat16, 7, torch.zeros(2)])
def test_save_refuses_other_dtypes_and_models(wrong, m, tmp_path):
    with pytest.raises(GPTError, match=r"dtype is .*: it must be one of NumPy's float16, float32, float64"):
        torch_gpt.save(m, tmp_path / "model", dtype=wrong)
    with pytest.raises(GPTError, match="the model holds NumPy arrays"):
        torch_gpt.save(random_model(TINY), tmp_path / "model")
    with pytest.raises(GPTError, match="m is a NoneType"):
        torch_gpt.save(None, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_parameter_that_is_not_finite_is_named(m):
    m.params.h[1].mlp.c_proj.w[3, 2] = torch.nan
    for run in (lambda: torch_gpt.forward(m, GOOD), lambda: torch_gpt.loss_and_grads(m, GOOD, GOOD)):
        with pytest.raises(GPTError, match=r"the output is not finite because parameter h.1.mlp.c_proj.w isn't"):
            run()


def test_loss_that_overflows_is_an_error(device):
    m = torch_gpt.from_numpy(random_model(VARIANTS["untied"]), device)
    m.params.ln_f.g[...], m.params.ln_f.b[...] = 0, 1
    m.params.head.w[...] = 0
    m.params.head.w[0, 0], m.params.head.w[1, 0] = 3e38, -3e38
    assert torch.isfinite(torch_gpt.forward(m, GOOD)).all()
    with pytest.raises(GPTError, match="the loss is not finite though every parameter is"):
        torch_gpt.loss_and_grads(m, GOOD, GOOD + 1)


def test_full_kv_is_an_error_and_stays_unchanged(m, device):
    kv = torch_gpt.generate.kv.new_kv(TINY, B=2, device=device)
    tokens = np.zeros((2, 11), int)
    torch_gpt.generate.step.gpt2_next([tokens], m.params, TINY, [kv])
    with pytest.raises(GPTError, match="the kv has room for 11 positions, holds 11 and can't take 1 more"):
        torch_gpt.generate.step.gpt2_next([tokens[:, :1]], m.params, TINY, [kv])
    assert [layer.length for layer in kv] == [11, 11]


def test_only_loss_and_grads_computes_gradients(m):
    with torch.no_grad():
        loss, grads = torch_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7))
    assert not loss.requires_grad
    assert grads.wte.any()
    trainable = m._replace(params=tree_map(lambda a: a.clone().requires_grad_(), m.params))
    assert not torch_gpt.forward(trainable, GOOD).requires_grad
    torch_gpt.adamw.step(trainable.params, grads, torch_gpt.adamw.moments(m.params), 1, lr=1e-3)
    assert trainable.params.wte.is_leaf


def test_checkpointing_saves_less_than_a_third(m):
    def saved(checkpointing):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda a: sizes.append(a.numel()) or a, lambda a: a):
            params = tree_map(lambda a: a.detach().requires_grad_(), m.params)
            tokens = torch.zeros(2, 7, dtype=torch.long, device=m.params.wte.device)
            torch_gpt.model.gpt2(tokens, params, TINY, None, checkpointing)
        return sum(sizes)

    assert saved(checkpointing=True) < saved(checkpointing=False) / 3


@pytest.mark.parametrize("setting", [{"t": 0}, {"lr": -1.0}, {"beta1": 1.0}, {"eps": float("nan")}, {"lr": None}])
def test_step_with_invalid_arguments_updates_nothing(setting, m):
    before = [a.clone() for _, a in named(m.params)]
    state = torch_gpt.adamw.moments(m.params)
    with pytest.raises(GPTError):
        torch_gpt.adamw.step(m.params, m.params, state, **({"t": 1, "lr": 0.1} | setting))
    with pytest.raises(GPTError, match="grads doesn't fit params at wpe"):
        torch_gpt.adamw.step(m.params, m.params._replace(wpe=m.params.wpe[1:]), state, t=1, lr=0.1)
    on_meta = tree_map(lambda a: a.to("meta"), m.params)
    with pytest.raises(GPTError, match=r"grads doesn't fit params at h.0.attn.c_attn.b: both need one shape"):
        torch_gpt.adamw.step(m.params, on_meta, state, t=1, lr=0.1)
    for max_norm in (0, None):
        with pytest.raises(GPTError, match=f"max_norm is {max_norm}"):
            torch_gpt.adamw.clip(m.params, max_norm)
    assert all((a == b).all() for a, (_, b) in zip(before, named(m.params), strict=True))


def test_training_in_bfloat16_halves_the_loss(device):
    m = torch_gpt.init(TINY, dtype=torch.bfloat16, device=device)
    batch = random_batch(TINY, B=2, T=7)
    state = torch_gpt.adamw.moments(m.params)
    losses = []
    for t in range(1, 21):
        loss, grads = torch_gpt.loss_and_grads(m, *batch)
        torch_gpt.adamw.clip(grads, 1.0)
        torch_gpt.adamw.step(m.params, grads, state, t, lr=1e-2)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_init_draws_the_weights_of_the_reference(variant, device):
    ours = numpy_gpt.init(VARIANTS[variant], seed=3)
    theirs = torch_gpt.init(VARIANTS[variant], seed=3, device=device)
    for (name, a), (_, b) in zip(named(ours.params), named(theirs.params), strict=True):
        np.testing.assert_array_equal(a, b.cpu(), err_msg=name)


def test_record_of_the_twin_has_values_and_explains_where_gradients_are(m):
    with record(torch_gpt.model) as tensors:
        torch_gpt.loss_and_grads(m, *random_batch(TINY, B=2, T=7))
    assert tensors["h.1.attn.ctx"].shape == (2, 7, 48)
    with pytest.raises(GPTError, match=r"watch=torch.Tensor.retain_grad\) and read the .grad of 'h.1.attn.ctx'"):
        tensors["grad.act.h.1.attn.ctx"]
    with pytest.raises(GPTError, match=r"loss_and_grads returns .* dict\(named\(grads\)\)\['h.0.attn.c_attn.w'\]"):
        tensors["grad.param.h.0.attn.c_attn.w"]
    for unknown in ("h.9.attn.ctx", "grad.act.h.9.attn.ctx"):
        with pytest.raises(KeyError, match=unknown):
            tensors[unknown]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_retained_by_record_equal_the_references(checkpointing, m, device):
    batch = random_batch(TINY, B=2, T=7)
    with record(torch_gpt.model, watch=torch.Tensor.retain_grad) as theirs:
        torch_gpt.loss_and_grads(m, *batch, checkpointing=checkpointing)
    with record(numpy_gpt.model) as ours:
        numpy_gpt.loss_and_grads(random_model(TINY), *batch)
    assert list(theirs) == [name for name in ours if not name.startswith("grad.")]
    for name, value in theirs.items():
        np.testing.assert_allclose(value.detach().cpu(), ours[name], rtol=1e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(value.grad.cpu(), ours[f"grad.act.{name}"], rtol=1e-3, atol=1e-6, err_msg=name)


def test_tensors_on_the_cpu_share_memory_with_the_arrays():
    ours = random_model(TINY)
    theirs = torch_gpt.from_numpy(ours)
    theirs.params.wte[3, 4] = 7
    assert ours.params.wte[3, 4] == 7
    assert torch_gpt.init(TINY, dtype=torch.float64).params.wte.dtype == torch.float64
