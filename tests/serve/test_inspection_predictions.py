"""Are surprisals, candidates and the logit lens those of independent formulas?"""

import math
from dataclasses import replace

import numpy as np
import pytest
from inspecting import CONFIG, IDS, M, ask, softmax

import numpy_gpt
from numpy_gpt.generate.sampling import sample
from numpy_gpt.serve.inspection.candidates import apply_settings
from numpy_gpt.serve.inspection.numbers import log_softmax
from parity.inputs import VARIANTS, random_model

STORYTELLER = numpy_gpt.load("storyteller")


def test_mean_surprisal_is_the_loss():
    found = ask("tokens")
    assert [token["id"] for token in found["tokens"]] == IDS
    assert found["surprisal"][0] is None
    loss, _ = numpy_gpt.loss_and_grads(M, [IDS[:-1]], [IDS[1:]])
    assert math.log(2) * np.mean(found["surprisal"][1:]) == pytest.approx(loss, rel=1e-5)
    assert (found["layers"], found["heads"], found["width"], found["context"]) == (2, 3, 48, 80)


def test_tokens_have_their_text_and_bytes():
    text = "Ann 😀"
    tokens = ask("tokens", text, STORYTELLER)["tokens"]
    assert b"".join(bytes.fromhex(token["bytes"]) for token in tokens).decode() == text
    assert tokens[0]["text"] == bytes.fromhex(tokens[0]["bytes"]).decode()
    assert tokens[-1]["text"] is None  # the storyteller has no token for the whole character
    assert ask("tokens", [3])["tokens"] == [{"id": 3, "text": None, "bytes": None}]


@pytest.fixture
def padded():
    """Return the storyteller with 8 ids without text, whose logits would be the largest"""
    p = STORYTELLER.params
    wte = np.concatenate([p.wte, 5 * p.wte[:8]])
    config = replace(STORYTELLER.config, n_vocab=len(wte))
    return STORYTELLER._replace(config=config, params=p._replace(wte=wte))


def test_ids_without_text_are_never_predicted(padded):
    n, ids = STORYTELLER.config.n_vocab, [448, 457, STORYTELLER.config.n_vocab + 1, 258]
    found = ask("tokens", ids, padded)
    assert found["tokens"][2] == {"id": n + 1, "text": None, "bytes": None}
    assert found["surprisal"][2] is None
    p = softmax(numpy_gpt.forward(padded, [ids])[0, :, :n].astype(np.float64))
    assert found["surprisal"][1] == pytest.approx(-np.log2(p[0, 457]), rel=1e-5)
    candidates = ask("candidates", ids, padded, position=1)
    assert candidates["candidates"][0]["before"] == pytest.approx(p[1].max(), rel=1e-5)
    assert candidates["next"] is None
    assert sum(count["tokens"] for count in candidates["removed"].values()) + candidates["kept"] == n
    (lens,) = ask("lens", ids, padded, positions=[2])["positions"]
    assert lens["best"][-1][0]["probability"] == pytest.approx(p[2].max(), rel=1e-5)
    assert ask("backward", ids, padded, position=1)["target"]["id"] == p[1].argmax()


def expected_stages(p, temperature, top_k, top_p):
    """Return {id: (tempered, after, removed_by)} by a loop over the ids, the best first"""
    power = p ** (1 / temperature)
    tempered = power / power.sum()
    ids = sorted(range(len(p)), key=lambda i: -p[i])
    inside, whole = 0.0, sum(tempered[i] for i in ids[: top_k or len(p)])
    removed = {}
    for rank, i in enumerate(ids):
        if top_k and rank >= top_k:
            removed[i] = "top_k"
        elif rank and inside >= top_p * whole and top_p < 1:
            removed[i] = "top_p"
        else:
            removed[i] = None
            inside += tempered[i]
    return {i: (tempered[i], 0.0 if removed[i] else tempered[i] / inside, removed[i]) for i in ids}


@pytest.mark.parametrize("temperature", [0.5, 1, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 30, 1000])
@pytest.mark.parametrize("top_p", [0, 0.3, 0.95, 1])
def test_candidates_are_those_of_a_loop_over_the_ids(temperature, top_k, top_p):
    p = softmax(numpy_gpt.forward(M, [IDS])[0, 4])
    found = ask("candidates", position=4, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = expected_stages(p, temperature, top_k, top_p)
    assert [row["token"]["id"] for row in found["candidates"]] == list(expected)[:20]
    for row in [*found["candidates"], found["next"]]:
        i = row["token"]["id"]
        tempered, after, removed_by = expected[i]
        assert row["before"] == pytest.approx(p[i], rel=1e-5)
        assert row["tempered"] == pytest.approx(tempered, rel=1e-5)
        assert row["after"] == pytest.approx(after, rel=1e-5)
        assert row["removed_by"] == removed_by
    assert found["next"]["token"]["id"] == IDS[5]
    assert found["next"]["rank"] == list(expected).index(IDS[5]) + 1
    assert found["kept"] == sum(removed_by is None for _, _, removed_by in expected.values())
    for name in ("temperature", "top_k", "top_p"):
        gone = [tempered for tempered, _, removed_by in expected.values() if removed_by == name]
        assert found["removed"][name]["tokens"] == len(gone)
        assert found["removed"][name]["probability"] == pytest.approx(sum(gone), rel=1e-5, abs=1e-12)


def test_candidates_without_settings_are_those_of_the_model():
    found = ask("candidates", position=5)
    assert all(row["before"] == row["tempered"] == row["after"] for row in found["candidates"])
    assert found["kept"] == 61
    assert found["next"]["token"]["id"] == IDS[6]


def test_rank_of_a_tie_counts_the_lower_id_first():
    p = M.params
    wte = p.wte.copy()
    wte[20] = wte[40] = wte[5]  # the same logit as id 5
    m = M._replace(params=p._replace(wte=wte))
    ranks = [ask("candidates", [7, i], m, position=0)["next"]["rank"] for i in (5, 20, 40)]
    assert ranks == [ranks[0], ranks[0] + 1, ranks[0] + 2]


def test_log_softmax_of_large_logits_is_exact():
    z = np.array([[1000, 999, -1000], [3e38, 3e38, 0]], np.float32)
    expected = [[-math.log1p(math.exp(-1)), -1 - math.log1p(math.exp(-1))], [-math.log(2), -math.log(2)]]
    np.testing.assert_allclose(log_softmax(z)[:, :2], expected, rtol=1e-12)
    assert np.isfinite(log_softmax(z)).all()


def test_temperature_0_keeps_the_best_candidate_alone():
    p = softmax(numpy_gpt.forward(M, [IDS])[0, -1])
    found = ask("candidates", position=6, temperature=0, top_k=3, top_p=0.5)
    assert [row["after"] for row in found["candidates"]] == [1.0] + 19 * [0.0]
    assert [row["removed_by"] for row in found["candidates"]] == [None] + 19 * ["temperature"]
    assert found["removed"]["temperature"] == {"tokens": 60, "probability": pytest.approx(1 - p.max(), rel=1e-5)}
    assert found["removed"]["top_k"] == found["removed"]["top_p"] == {"tokens": 0, "probability": 0}
    assert found["kept"] == 1
    assert found["next"] is None


def test_tiny_temperature_keeps_the_best_candidate_alone():
    found = ask("candidates", position=6, temperature=1e-320)
    assert [row["after"] for row in found["candidates"]] == [1.0] + 19 * [0.0]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0, 0, 1), (0.7, 0, 0.8), (1.5, 5, 1), (1, 9, 0.9)])
def test_draws_have_the_probabilities_of_the_candidates(temperature, top_k, top_p):
    z, n = 2 * np.random.default_rng(0).standard_normal(13).astype(np.float32), 3000
    p = apply_settings(z, temperature, top_k, top_p).after
    drawn = [sample(z, temperature, top_k, top_p, seed=0, number=i, step=0) for i in range(n)]
    counts = np.bincount(drawn, minlength=13)
    assert p.sum() == pytest.approx(1)
    assert (counts[p == 0] == 0).all()
    assert (abs(counts - n * p) <= 4 * np.sqrt(n * p * (1 - p)) + 1).all()


def test_candidates_that_tie_have_the_lower_id_first():
    z = np.array([1.0, 2.0, 2.0, 2.0, 0.0])
    stages = apply_settings(z, 1.0, 2, 1.0)
    assert (stages.after > 0).tolist() == [False, True, True, False, False]


def truncated(m, n_layer):
    """Return the model without the blocks from n_layer on; a Config has one layer or more"""
    nothing = numpy_gpt.params.tree_map(np.zeros_like, m.params.h[:1])  # a block that adds nothing
    h = m.params.h[:n_layer] or nothing
    return m._replace(config=replace(m.config, n_layer=len(h)), params=m.params._replace(h=h))


@pytest.mark.parametrize("variant", ["as released", "all three"])
def test_lens_is_the_prediction_of_the_truncated_model(variant):
    config = replace(VARIANTS[variant], n_layer=4)
    m = random_model(config, seed=3, dtype=np.float64)
    found = ask("lens", m=m, positions=[5, 0, 2])
    assert found["layers"] == ["embedding", "0", "1", "2", "3"]
    assert [at["position"] for at in found["positions"]] == [5, 0, 2]
    rows = [softmax(numpy_gpt.forward(truncated(m, n), [IDS])[0]) for n in range(5)]
    for at in found["positions"]:
        p = [row[at["position"]] for row in rows]
        best = [row.argmax() for row in p]
        for layer in range(5):
            ids = [entry["token"]["id"] for entry in at["best"][layer]]
            assert ids == np.argsort(-p[layer])[:5].tolist()
            assert [entry["probability"] for entry in at["best"][layer]] == pytest.approx(p[layer][ids], rel=1e-5)
            assert at["of_final"][layer] == pytest.approx(p[layer][best[-1]], rel=1e-5)
        assert all(best[layer] == best[-1] for layer in range(at["settled"], 5))
        assert at["settled"] == 0 or best[at["settled"] - 1] != best[-1]


def test_lens_of_a_model_that_never_changes_its_prediction_is_settled_at_once():
    h = [numpy_gpt.params.tree_map(np.zeros_like, p) for p in M.params.h]
    m = M._replace(params=M.params._replace(h=h))
    (at,) = ask("lens", m=m, positions=[3])["positions"]
    assert at["settled"] == 0
    norm = np.linalg.norm(m.params.wte[IDS[3]] + m.params.wpe[3])
    assert at["norms"] == pytest.approx([norm] * 3, rel=1e-5)


def test_norms_are_those_of_the_residual_stream():
    x = (M.params.wte[IDS] + M.params.wpe[:7])[None]
    expected = [np.linalg.norm(x[0, 3])]
    for p in M.params.h:
        x, _ = numpy_gpt.model.block(x, p, CONFIG)
        expected.append(np.linalg.norm(x[0, 3]))
    (at,) = ask("lens", positions=[3])["positions"]
    assert at["norms"] == pytest.approx(expected, rel=1e-5)
