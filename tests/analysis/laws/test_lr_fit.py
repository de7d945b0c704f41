"""Laws with a batch, priors and other sizes: made-up cells whose law is known."""

import math

import numpy as np
import pytest

from raylr.analysis import Conditions, LRLaw, fit_lr_law
from raylr.analysis.laws._fitting import DRIFT, SCATTER, SCATTER_DOF
from raylr.analysis.laws.lr_fit import ExponentPriors, fit_batch_law, fit_weight_decay_law
from raylr.errors import InputError

SIZES, BUDGETS = np.array([1e8, 2e8, 4e8]), np.array([1e9, 4e9, 1.6e10])
N, D = (v.ravel() for v in np.meshgrid(SIZES, BUDGETS, indexing="ij"))
PRIORS = ExponentPriors()


def made_up(rng: np.random.Generator, n, d, b, *, bend=0.0, exponents=None):
    """Cells whose exponents come from the priors, and whose scatter is that of the scatter's prior.

    Gives their ln lr_opt, the exponents, and a function for ln lr_opt of another cell, its own scatter included."""
    alpha, beta, delta = exponents or (rng.normal(*PRIORS.alpha), rng.normal(*PRIORS.beta), rng.normal(*PRIORS.delta))
    scatter = SCATTER * math.sqrt(SCATTER_DOF / rng.chisquare(SCATTER_DOF))

    def optimum(n, d, b):
        z = -7 - alpha * np.log(n / 1e8) - beta * np.log(d / 1e9) + delta * np.log(b / 1e5)
        return z + bend * np.log(d / 4e9) ** 2 + rng.normal(0, scatter, np.shape(n))

    return optimum(n, d, b), (alpha, beta, delta), optimum


def batches(rng, n, d):
    """Batches that grow with scale, as they do in practice, each half to twice the rule."""
    return 1e5 * np.sqrt(d / 1e9) * np.exp2(rng.uniform(-1, 1, n.size))


@pytest.mark.parametrize(
    ("kind", "exponents"), [("prior", None), ("fit", (0.35, 0.15, -0.36)), (0.5, (0.35, 0.15, 0.5))]
)
def test_a_known_batch_exponent_is_recovered(kind, exponents):
    rng = np.random.default_rng(0)
    inside, predicted = [], []
    for _ in range(200):
        b = batches(rng, N, D)
        z, (_, _, delta), optimum = made_up(rng, N, D, b, exponents=exponents)
        law = fit_lr_law(N, D, np.exp(z), batch=b, batch_exponent=kind)
        low, high = law.interval(0.9)["delta"]
        inside.append(low <= delta <= high)
        found = law.predict(4e8, 1.6e10, batch=1e6)
        predicted.append(found.lr_low <= math.exp(optimum(4e8, 1.6e10, 1e6)) <= found.lr_high)
    if isinstance(kind, str):
        assert 0.85 <= np.mean(inside) <= 0.97
    else:
        assert law.delta == low == high == 0.5
        assert law.fitted == ("c", "alpha", "beta")
    assert 0.85 <= np.mean(predicted) <= 0.97


def test_a_law_that_does_not_know_the_batch_takes_it_for_tokens():
    b = 1e5 * np.sqrt(D / 1e9)
    z = -7 - 0.35 * np.log(N / 1e8) - 0.4 * np.log(D / 1e9) + 0.5 * np.log(b / 1e5)
    blind = fit_lr_law(N, D, np.exp(z), priors=None)
    knows = fit_lr_law(N, D, np.exp(z), batch=b, batch_exponent=0.5, priors=None)
    assert (blind.beta, knows.beta) == pytest.approx((0.15, 0.4))
    assert knows.lr(N, D, b) == pytest.approx(np.exp(z))


def test_few_cells_give_finite_covering_intervals():
    """2 x 2 cells a factor of 4 apart in N: least squares against exponents under their prior."""
    rng, n, d = np.random.default_rng(1), np.repeat([1e8, 4e8], 2), np.tile([1e9, 4e9], 2)
    inside, errors = [], []
    for _ in range(200):
        z, _, optimum = made_up(rng, n, d, np.full(4, 1e5))
        one_batch = Conditions(batch_tokens=1e5)
        truth = float(optimum(1.6e9, 1.6e10, 1e5))
        drifted = truth + rng.normal(0, DRIFT * math.hypot(math.log(4), math.log(4)))
        laws = [fit_lr_law(n, d, np.exp(z), priors=priors, conditions=one_batch) for priors in (PRIORS, None)]
        found = laws[0].predict(1.6e9, 1.6e10)
        assert math.isfinite(found.lr_high / found.lr_low)
        inside.append(found.lr_low <= math.exp(drifted) <= found.lr_high)
        errors.append([math.log(law.predict(1.6e9, 1.6e10).lr) - truth for law in laws])
    assert 0.85 <= np.mean(inside) <= 0.97
    ours, plain = np.nanmedian(np.abs(errors), 0)  # least squares finds no law at all in a few draws
    assert ours < 0.9 * plain


def test_data_overrule_the_priors():
    n, d = (np.repeat(v, 20) for v in (N, D))
    z = -7 - 1.1 * np.log(n / 1e8) + 0.6 * np.log(d / 1e9) + np.random.default_rng(0).normal(0, 0.02, n.size)
    law = fit_lr_law(n, d, np.exp(z), stderr=0.02)
    assert (law.alpha, law.beta) == pytest.approx((1.1, -0.6), abs=0.03)


@pytest.mark.parametrize(
    ("n", "d", "status"),
    [(np.full(3, 1e8), BUDGETS, "one_size"), (SIZES, np.full(3, 1e9), "one_budget"),
     (SIZES[:1], BUDGETS[:1], "one_cell"), (SIZES, 20 * SIZES, "collinear")],
)  # fmt: skip
def test_what_the_cells_do_not_determine_is_the_priors_and_said(n, d, status):
    law = fit_lr_law(n, d, np.full(n.size, 1e-3), stderr=0.1)
    assert law.status == status
    assert "prior" in law.message
    found = law.predict(1e9, 9e9)
    assert 0 < found.lr_low < found.lr_high < math.inf
    assert found.status == (status if status != "collinear" else "ok")
    assert LRLaw.from_json(law.to_json()).to_json() == law.to_json()


@pytest.mark.parametrize("bend", [0.0, 0.1])
def test_a_known_bend_is_recovered_and_its_power_is_as_stated(bend):
    rng = np.random.default_rng(2)
    n, d = (v.ravel() for v in np.meshgrid(SIZES, np.geomspace(1e9, 6.4e10, 5), indexing="ij"))
    inside, seen, power = [], [], []
    for _ in range(200):
        z, *_ = made_up(rng, n, d, np.full(n.size, 1e5), bend=bend)
        for law in (fit_lr_law(n, d, np.exp(z)),):
            test = next(one for one in law.bends if one.axis == "tokens")
            half = 1.75 * test.stderr  # Student's t with about 14 degrees of freedom
            inside.append(abs(test.curvature - bend) <= half)
            seen.append(test.seen)
            power.append(test.detectable)
    assert 0.85 <= np.mean(inside) <= 0.97
    if bend == 0:
        assert np.mean(seen) <= 0.09
    else:
        assert np.mean(seen) > 0.3
        stated = np.mean(np.array(power)[np.array(seen)] < bend)
        assert stated > 0.5


def test_the_power_of_the_test_for_a_bend():
    """Cells that bend by what the test calls detectable are found bent four times in five."""
    rng = np.random.default_rng(3)
    n, d = (v.ravel() for v in np.meshgrid(SIZES, np.geomspace(1e9, 6.4e10, 5), indexing="ij"))
    q, seen = (np.log(d) - np.log(d).mean()) ** 2, []
    plain = -7 - 0.35 * np.log(n / 1e8) - 0.15 * np.log(d / 1e9)
    size = np.median([
        fit_lr_law(n, d, np.exp(plain + rng.normal(0, 0.2, n.size))).bends[1].detectable for _ in range(30)
    ])  # fmt: skip
    for _ in range(200):
        seen.append(fit_lr_law(n, d, np.exp(plain + size * q + rng.normal(0, 0.2, n.size))).bends[1].seen)
    assert 0.7 <= np.mean(seen) <= 0.9


def test_a_bend_that_is_seen_widens_the_interval_and_is_said():
    d = np.geomspace(1e9, 6.4e10, 7)
    n = np.full(7, 1e8) * np.array([1, 2, 1, 2, 1, 2, 1])
    q = np.log(d / 8e9) ** 2
    straight, bent = (fit_lr_law(n, d, np.exp(-7 + k * q), stderr=0.01, priors=None) for k in (0.0, 0.3))
    assert not any(one.seen for one in straight.bends)
    a, b = (law.predict(1e8, 2e11) for law in (straight, bent))
    assert "bend in ln tokens" in b.message
    assert "with the bend the prediction is" in b.message
    assert b.lr_high / b.lr_low > 2 * a.lr_high / a.lr_low


def test_a_law_over_the_width_needs_the_width():
    width = np.sqrt(N / 1e2)
    law = fit_lr_law(None, D, 1e-2 * width**-0.4 * (D / 1e9) ** -0.2, width=width, priors=None)
    assert (law.params_kind, law.alpha) == ("width", pytest.approx(0.4))
    assert law.predict(None, 1e10, width=1500).lr == pytest.approx(1e-2 * 1500**-0.4 * 10**-0.2)
    with pytest.raises(InputError, match="hidden size"):
        law.predict(1e9, 1e10)
    with pytest.raises(InputError, match="give the target's params"):
        fit_lr_law(N, D, np.full(9, 1e-3), params_kind="active").predict(None, 1e10)


def test_a_target_needs_the_batch_where_the_law_has_several():
    b = batches(np.random.default_rng(0), N, D)
    law = fit_lr_law(N, D, np.full(9, 1e-3), batch=b)
    with pytest.raises(InputError, match="give the target's batch"):
        law.predict(1e9, 1e10)
    assert law.predict(1e9, 1e10, conditions=Conditions(batch_tokens=1e6)).batch == 1e6
    assert "batch" not in law.predict(4e8, 4e9, batch=float(b[0]), conditions=Conditions(batch_tokens=2e6)).message
    far = law.predict(4e8, 4e9, batch=1e9)
    assert far.status == "extrapolated"
    assert far.batch_beyond > 100
    one = fit_lr_law(N, D, np.full(9, 1e-3), batch=1e5)
    assert one.predict(4e8, 4e9).batch == pytest.approx(1e5)
    assert one.predict(4e8, 4e9, batch=4e5).lr == pytest.approx(2 * one.predict(4e8, 4e9).lr)
    assert one.conditions.batch_tokens == 1e5


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"conditions": [Conditions(batch_tokens=b) for b in (1e5, 2e5)]}, "give batch="),
        ({"conditions": [Conditions()]}, "one a cell"),
        (
            {"params": [0.5, 1e9]},
            "params are in two units: 0.5 at position 0 and 1e.09 at position 1 are a factor 2e.09",
        ),
        ({"tokens": [1e9, 2.0]}, "tokens are in two units"),
        ({"batch_exponent": 0.5}, "needs the batch"),
        ({"batch": 1e5, "batch_exponent": "half"}, "batch_exponent must be"),
        ({"batch": 1e5, "batch_exponent": "fit"}, "one batch"),
        ({"batch": [1e5, 2e5, 3e5]}, "batch"),
        ({"params_kind": "all"}, "kind of size"),
        ({"width": [1, 2]}, "either"),
    ],
)
def test_bad_cells_are_refused_by_name(kwargs, words):
    arguments = {"params": [1e8, 2e8], "tokens": [1e9, 2e9], "lr_opt": [1e-3, 1e-3]} | kwargs
    with pytest.raises(InputError, match=words):
        fit_lr_law(arguments.pop("params"), arguments.pop("tokens"), arguments.pop("lr_opt"), **arguments)


def test_cells_with_several_batches_and_their_batch_are_a_law():
    conditions = [Conditions(batch_tokens=b, optimizer="adamw") for b in (1e5, 2e5)]
    law = fit_lr_law([1e8, 2e8], [1e9, 2e9], [1e-3, 1e-3], batch=[1e5, 2e5], conditions=conditions)
    assert law.conditions == Conditions(optimizer="adamw")


def test_laws_of_batch_and_weight_decay():
    batch = fit_batch_law(D, 0.58 * D**0.571, stderr=0.01)
    assert -batch.beta == pytest.approx(0.571, abs=0.05)
    found = batch.estimate(1e9, 1e11)
    assert found.low < 0.58 * 1e11**0.571 < found.high
    decay = fit_weight_decay_law(D, 0.1 * np.sqrt(1e5 * D / 1e9) / (D / 1e9), batch=1e5 * D / 1e9, stderr=0.01)
    assert decay.value(1e9, 1e10, 1e6) == pytest.approx(0.1 * 1e3 / 10, rel=0.1)
    assert type(batch).from_json(batch.to_json()) == batch
    with pytest.raises(ValueError, match="another kind"):
        LRLaw.from_json(batch.to_json())


def test_a_bend_in_the_batch_is_seen():
    """The optimum rises with the batch up to a critical one and stays."""
    n, d, b = (v.ravel() for v in np.meshgrid(SIZES, BUDGETS, np.geomspace(1e5, 1.6e6, 5), indexing="ij"))
    z = -7 - 0.3 * np.log(n / 1e8) + np.minimum(0.7 * np.log(b / 1e5), 1.0)
    law = fit_lr_law(n, d, np.exp(z + np.random.default_rng(0).normal(0, 0.05, n.size)), batch=b)
    bend = next(one for one in law.bends if one.axis == "batch")
    assert bend.seen
    assert bend.curvature < 0
    far = law.predict(4e8, 1.6e10, batch=6.4e6)
    assert far.lr_low < math.exp(-7 - 0.3 * math.log(4) + 1.0) < far.lr_high
    assert "bend in ln batch" in far.message
