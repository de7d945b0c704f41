import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import fit_curvature_law, fit_loss_law
from raylr.analysis.laws.loss_law import A_PRIOR, B_PRIOR, BEST_BATCH, NOISE, NOISE_DOF
from raylr.errors import InputError

N, D = (v.ravel() for v in np.meshgrid([1e8, 2e8, 4e8, 8e8], [2e9, 4e9, 8e9, 1.6e10], indexing="ij"))


def law_of(rng):
    """A law whose exponents come from the priors; sizes and tokens cost about as much as in Hoffmann's fit."""
    a, b = A_PRIOR[0] * math.exp(A_PRIOR[1] * rng.normal()), B_PRIOR[0] * math.exp(B_PRIOR[1] * rng.normal())
    e, size, length = rng.uniform(1.5, 2), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)

    def loss(n, d):
        return e + size * (np.asarray(n) / 3e8) ** -a + length * (np.asarray(d) / 6e9) ** -b

    return loss, (e, a, b)


def test_a_known_law_is_recovered():
    rng = np.random.default_rng(0)
    hits = {name: [] for name in ("e", "alpha", "beta", "loss", "median error")}
    for _ in range(200):
        loss, truth = law_of(rng)
        noise = NOISE * 2.8 * math.sqrt(NOISE_DOF / rng.chisquare(NOISE_DOF))
        law = fit_loss_law(N, D, loss(N, D) + rng.normal(0, noise, N.size))
        for (name, (low, high)), value in zip(law.interval().items(), truth, strict=True):
            hits[name].append(low <= value <= high)
        found, true = law.predict(4e9, 1e11), float(loss(4e9, 1e11))
        hits["loss"].append(found.low <= true + rng.normal(0, noise) <= found.high)
        hits["median error"].append(abs(found.loss - true) / true)
    for name in ("e", "alpha", "beta", "loss"):
        assert 0.85 <= np.mean(hits[name]) <= 0.97, name
    assert np.median(hits["median error"]) < 0.02


def test_exact_losses_give_the_law():
    def loss(n, d):
        return 1.7 + 406 * n**-0.34 + 411 * d**-0.28

    law = fit_loss_law(N, D, loss(N, D), loss_stderr=1e-5)
    assert law.ok
    assert law.loss(N, D) == pytest.approx(loss(N, D), rel=2e-3)
    found = law.predict(1.6e9, 3.2e10)
    assert found.loss == pytest.approx(loss(1.6e9, 3.2e10), rel=3e-3)
    assert "2 times beyond the fitted parameters and 2 times beyond the fitted tokens" in found.message


@pytest.mark.parametrize(
    ("n", "d", "status"),
    [([], [], "too_few"), ([1e8, 1e8, 1e8], [1e9, 2e9, 4e9], "one_size"), ([1e8, 2e8, 4e8], [1e9] * 3, "one_budget"),
     ([1e8, 2e8, 4e8], [1e9, 2e9, 4e9], "too_few")],
)  # fmt: skip
def test_too_few_cells_are_a_status(n, d, status):
    law = fit_loss_law(n, d, np.full(len(n), 3.0))
    assert law.status == status
    assert math.isnan(law.predict(1e9, 1e10).loss)
    assert math.isnan(law.loss(1e9, 1e10))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(([1e8], [1e9, 2e9], [3.0]), "one entry"), (([-1.0], [1e9], [3.0]), "params"), (([1e8], [1e9], [-3.0]), "nats")],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        fit_loss_law(*arguments)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), shift=st.floats(0, 5), noise=st.floats(0, 1))
def test_any_losses_give_an_ordered_interval(seed, scale, shift, noise):
    rng = np.random.default_rng(seed)
    y = scale * (1 + (N / 1e8) ** -rng.uniform(-0.5, 1) + noise * rng.random(N.size)) + shift
    y[rng.random(N.size) < 0.1] = math.nan
    law = fit_loss_law(N, D, y)
    found = law.predict(1e9, 1e11)
    assert found.low <= found.loss <= found.high
    assert np.isfinite([found.low, found.high, law.e, law.alpha, law.beta]).all()


def test_what_a_wrong_lr_costs():
    law = fit_curvature_law(N, D, 0.04 * (N / 1e8) ** -0.1, stderr=0.05)
    cost = law.cost(1.6e9, 3.2e10, 2)
    assert cost.low < 0.04 * 16**-0.1 * math.log(2) ** 2 < cost.high
    assert cost.value == pytest.approx(0.04 * 16**-0.1 * math.log(2) ** 2, rel=0.2)
    assert law.cost(1.6e9, 3.2e10, 0.5).value == cost.value


def with_batch(rng, n, d, b, k=0.2):
    """Losses of a law from the priors where a batch off the best one costs tokens."""
    loss, _ = law_of(rng)
    best = BEST_BATCH[0] * d ** BEST_BATCH[1] * math.exp(0.7 * rng.normal())
    return loss(n, d * np.exp(-k * np.log(b / best) ** 2))


def test_batches_are_told_from_tokens():
    """Sizes and budgets at three batches: the loss at a larger size, budget and batch is inside the interval."""
    n, d, b = (v.ravel() for v in np.meshgrid([1e8, 2e8, 4e8], [2e9, 8e9], [1e5, 4e5, 1.6e6], indexing="ij"))
    hits, errors = [], []
    for seed in range(10):
        state = np.random.default_rng(seed)
        places = (np.append(n, 8e8), np.append(d, 1.6e10), np.append(b, 2e6))
        y = with_batch(state, *places) + state.normal(0, 0.006, n.size + 1)
        law = fit_loss_law(n, d, y[:-1], batch=b)
        found = law.predict(8e8, 1.6e10, batch=2e6)
        hits.append(found.low <= y[-1] <= found.high)
        blind = fit_loss_law(n, d, y[:-1]).predict(8e8, 1.6e10)
        errors.append([abs(found.loss - y[-1]), abs(blind.loss - y[-1])])
        best = law.predict(8e8, 1.6e10)
        assert best.loss <= found.loss + 1e-9
        assert "at the best batch" in best.message
        assert "1.25 times beyond the fitted batch" in found.message
    assert np.mean(hits) >= 0.85
    ours, without = np.median(errors, axis=0)
    assert ours < 0.7 * without


def test_one_batch_is_no_batch():
    loss, _ = law_of(np.random.default_rng(0))
    law = fit_loss_law(N, D, loss(N, D), batch=np.full(N.size, 1e6))
    assert law == fit_loss_law(N, D, loss(N, D))
    assert law.predict(1e9, 1e10, batch=4e6) == law.predict(1e9, 1e10)
    with pytest.raises(InputError, match="batch"):
        fit_loss_law(N, D, loss(N, D), batch=[1e6])
    with pytest.raises(InputError, match="batch"):
        fit_loss_law(N, D, loss(N, D), batch=-N)
