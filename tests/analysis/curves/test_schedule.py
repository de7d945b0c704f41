import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis import Decay, Schedule, Status, fit_power_law, fit_surface, recognise_schedule
from raylr.analysis.curves.schedule import SHAPES, effective_tokens
from raylr.errors import InputError

TOKENS = 1000.0


def lr_of(tokens, kind, warmup=100.0, decay_start=700.0):
    """LR over its peak of the usual schedules."""
    start = warmup if kind in ("cosine", "linear") else decay_start
    x = np.clip((tokens - start) / (TOKENS - start), 0, 1)
    shape = {"constant": np.ones_like(x), "wsd": 1 - 0.9 * x, "linear": 1 - x, "cosine": 0.5 + 0.5 * np.cos(np.pi * x)}
    return np.minimum(tokens / warmup, 1.0) * shape[kind]


def losses(tokens, kind, lr=1.0):
    """Losses of a run whose noise floor follows its LR: they fall faster in the decay than the power law says."""
    return 2 + (tokens / TOKENS) ** -0.5 * (1 + 0.1 * math.log(lr) ** 2) + 0.3 * lr_of(tokens, kind)


@given(
    st.sampled_from(["constant", "wsd", "cosine", "linear"]),
    st.integers(20, 400),
    st.floats(0.05, 1.0),
    st.floats(1e-6, 10.0),
    st.booleans(),
)
def test_schedules_are_recognised_from_any_part_of_them(kind, reports, seen, peak, rounded):
    t = np.linspace(TOKENS / reports, TOKENS, reports)
    lr = peak * lr_of(t, kind)
    if rounded:
        lr = np.array([float(f"{value:.4g}") for value in lr])
    t, lr = t[t <= seen * TOKENS], lr[t <= seen * TOKENS]
    found = recognise_schedule(t, lr)
    if t.size == 0:
        assert found is None
        return
    assert found is not None
    falls = lr[-1] < 0.995 * lr.max()
    assert falls <= (not found.constant)  # a fall is always seen
    if kind == "constant":
        assert found.constant
    if kind == "wsd" and falls:
        assert found.decay_start <= 720
        assert not found.changing
        assert found.decay_start >= 700 - TOKENS / reports
    if kind in ("cosine", "linear") and t.size and t[-1] > 500:
        assert found.changing
    order = np.random.default_rng(reports).permutation(t.size)
    assert recognise_schedule(t[order], lr[order]) == found


def test_missing_and_useless_reports():
    assert recognise_schedule([], []) is None
    assert recognise_schedule([1, 2], [math.nan, math.nan]) is None
    assert recognise_schedule([1, 2], [0.0, 0.0]) is None
    assert recognise_schedule([1, 2, 3, 4], [1.0, math.nan, 1.0, math.inf]) == Schedule()
    assert recognise_schedule(range(9), [1, 0.5, 0.1, 1, 0.5, 0.1, 1, 0.5, 0.1]).changing  # restarts
    with pytest.raises(InputError, match="one length"):
        recognise_schedule([1, 2], [1.0])


@pytest.mark.parametrize(
    "arguments", [{"name": ""}, {"warmup": -1}, {"warmup": math.nan}, {"decay_start": math.nan}, {"warmup": math.inf}]
)
def test_bad_schedules(arguments):
    with pytest.raises(InputError):
        Schedule(**arguments)


def test_named_schedules():
    assert Schedule.named("constant", warmup=5).constant_until(1e30)
    assert Schedule.named("cosine", warmup=5).changing
    assert Schedule.named("wsd").changing  # it is not known from where on
    wsd = Schedule.named("wsd", tokens=1000, warmup=100, decay=0.2)
    assert (wsd.decay_start, wsd.constant_until(800), wsd.constant_until(801)) == (800, True, False)
    assert list(wsd.stable([50, 500, 900])) == [True, True, False]
    assert Schedule.of("linear") == Schedule(name="linear", decay_start=0)
    with pytest.raises(InputError, match="schedule must be"):
        Schedule.of(3)  # type: ignore[arg-type]


def test_half_of_a_linear_warmup_counts():
    t = np.linspace(0, 10, 1001)
    lr = np.minimum(t / 4, 1)
    want = np.concatenate([[0], np.cumsum(0.5 * (lr[1:] + lr[:-1])) * 0.01])
    assert effective_tokens(t, 4) == pytest.approx(want, abs=1e-4)
    assert list(effective_tokens([1.0, 2.0], 0)) == [1.0, 2.0]


def test_a_power_law_of_effective_tokens():
    t = np.linspace(120, 500, 40)
    y = 2 + 3 * (t - 50) ** -0.4
    fit = fit_power_law(t, y, burn_in=120, warmup_tokens=100)
    assert fit.gamma == pytest.approx(0.4, abs=1e-4)
    assert fit.predict(1000.0)[0] == pytest.approx(2 + 3 * 950**-0.4, abs=1e-5)
    with pytest.raises(InputError, match="warmup_tokens"):
        fit_power_law(t, y, warmup_tokens=-1)


@pytest.mark.parametrize("name", ["constant", "wsd"])
def test_a_known_warmup_counts_by_half_unless_refused(name):
    t = np.linspace(10, 1000, 100)
    y = 2 + 3 * effective_tokens(t, 100) ** -0.4
    seen = fit_power_law(t, y, current_lr=lr_of(t, name))
    assert seen.warmup == pytest.approx(100)
    given_ = fit_power_law(t, y, schedule=Schedule.named(name, tokens=1000, warmup=seen.warmup, decay=0.3))
    assert given_.predict(2000.0) == pytest.approx(seen.predict(2000.0), rel=1e-3)
    assert seen.predict(2000.0)[0] == pytest.approx(2 + 3 * 1950**-0.4, rel=1e-3)
    assert fit_power_law(t, y, current_lr=lr_of(t, name), warmup_tokens=0).warmup == 0


def test_the_power_law_is_fitted_to_the_stable_part_alone():
    t = np.linspace(10, 1000, 100)
    y = losses(t, "wsd")
    fit = fit_power_law(t, y, current_lr=lr_of(t, "wsd"), warmup_tokens=0)
    stable = fit_power_law(t[t <= 700], y[t <= 700])
    assert (fit.status, fit.gamma, fit.tokens_last) == (stable.status, stable.gamma, 700)
    for given_ in ({"current_lr": lr_of(t, "cosine")}, {"schedule": "cosine"}):
        none = fit_power_law(t, losses(t, "cosine"), **given_)
        assert none.status is Status.NOT_CONSTANT
        assert "changes throughout" in none.message
        assert math.isnan(none.predict(2000.0)[0])


@pytest.mark.parametrize("share", [0.25, 0.4, 0.7, 1.0])
def test_a_surface_of_cosines_is_refused(share):
    t = np.linspace(20, 1000, 50)
    t = t[t <= share * 1000]
    lrs = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    arrays = [np.repeat(lrs, t.size), np.tile(t, lrs.size), np.concatenate([losses(t, "cosine", lr) for lr in lrs])]
    assert fit_surface(*arrays).posterior is not None  # without the LRs nothing shows it
    surface = fit_surface(*arrays, current_lr=np.concatenate([lr * lr_of(t, "cosine") for lr in lrs]))
    assert surface.status is Status.NOT_CONSTANT
    assert math.isnan(surface.lr_opt(1000.0))
    assert fit_surface(*arrays, schedule="cosine").status is Status.NOT_CONSTANT


def test_a_surface_of_wsd_runs_is_that_of_their_stable_part():
    t = np.linspace(20, 1000, 50)
    lrs = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    lr, tokens = np.repeat(lrs, t.size), np.tile(t, lrs.size)
    loss = np.concatenate([losses(t, "wsd", one) for one in lrs])
    surface = fit_surface(lr, tokens, loss, current_lr=np.tile(lr_of(t, "wsd"), lrs.size))
    stable = tokens <= 700
    same = fit_surface(lr[stable], tokens[stable], loss[stable])
    assert surface.lr_opt(700.0) == same.lr_opt(700.0)
    assert "stable phase" in surface.message


def test_a_decay_falls_over_its_fraction_to_its_final_ratio():
    for shape in SHAPES:
        decay = Decay(shape=shape, fraction=0.25, final_lr_ratio=0.1)
        assert decay.start(800) == 600
        factor = decay.factor([1, 599, 600, 700, 800], 800)
        assert factor[[0, 1, 2, 4]].tolist() == pytest.approx([1, 1, 1, 0.1])
        assert 0.1 < factor[3] < 1
        tokens, lr = decay.path(2.0, 800)
        assert (np.diff(tokens) > 0).all()
        assert lr == pytest.approx(2 * decay.factor(tokens, 800))
        assert tokens[-1] == 800


@pytest.mark.parametrize(
    "wrong", [{"shape": "exponential"}, {"fraction": 0.0}, {"fraction": 1.5}, {"final_lr_ratio": 2}]
)
def test_decays_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="decay"):
        Decay(**wrong)
