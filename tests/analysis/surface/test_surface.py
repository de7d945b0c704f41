import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import DATA

from raylr.analysis import fit_optimum, fit_surface

T = np.arange(1, 61) * 1e6
LRS = np.geomspace(1e-4, 8e-3, 6)
CLOSE = np.geomspace(1e-4, 8e-3, 8)
"""Close enough that the optimum is known within tolerance."""
STATUSES = {
    "ok", "uncertain", "plateau", "two_minima", "contradicted", "not_converging", "edge_low", "edge_high", "flat",
    "too_few", "too_short", "not_falling", "diverged",
}  # fmt: skip

DRIFT = 0.45 / 0.9


def loss(lr, t):
    """Progress and noise floor; the optimum is 1e-3 at 3e7 tokens and falls as tokens^-DRIFT."""
    z = np.log(lr / 1e-3)
    return 3 + 0.2 * np.exp(-0.3 * z) * (t / 3e7) ** -0.45 + 0.1 * np.exp(0.6 * z)


def lr_opt(t):
    return 1e-3 * (t / 3e7) ** -DRIFT


def runs(lrs=LRS, lengths=None, noise=1e-3, seed=0, early=0.5):
    rng = np.random.default_rng(seed)
    lengths = [T.size] * len(lrs) if lengths is None else lengths
    lr = np.concatenate([np.full(n, one) for one, n in zip(lrs, lengths, strict=True)])
    t = np.concatenate([T[:n] for n in lengths])
    return lr, t, loss(lr, t) + early * np.exp(-t / 4e6 * (lr / 1e-3) ** 0.5) + rng.normal(0, noise, t.size)


def test_the_path_of_the_optimum_is_extrapolated():
    fit = fit_surface(*runs(lrs=CLOSE))
    assert fit.ok
    for ahead in (1, 4, 10):
        at = float(fit.lr_opt(ahead * T[-1]))
        assert abs(math.log(at / lr_opt(ahead * T[-1]))) < 0.2
        low, high = fit.lr_interval(ahead * T[-1])
        assert low < lr_opt(ahead * T[-1]) < high
    paths = fit.lr_opt(np.array([T[-1], 10 * T[-1]]))
    assert paths[1] < paths[0] / 2


def test_losses_are_predicted_with_honest_errors():
    fit = fit_surface(*runs())
    at = np.array([3e-4, 1e-3, 3e-3])
    for t in (0.5 * T[-1], T[-1], 4 * T[-1]):
        mean, stderr = fit.loss(at, t)
        assert np.abs(mean - loss(at, t)).max() < 0.03
        assert (np.abs(mean - loss(at, t)) < 3 * stderr).all()
    assert (fit.loss(at, 4 * T[-1])[1] > fit.loss(at, T[-1])[1]).all()
    assert fit.loss(at[:, None], np.array([[1e8, 2e8]]))[0].shape == (3, 2)
    assert isinstance(fit.loss(1e-3, 1e8)[0], float)


def test_intervals_widen_with_the_distance():
    fit = fit_surface(*runs())
    widths = [np.log(np.divide(*fit.lr_interval(k * T[-1])[::-1])) for k in (1, 2, 4)]
    assert widths == sorted(widths)
    low, high = fit.lr_interval(2 * T[-1], 0.5)
    wide = fit.lr_interval(2 * T[-1], 0.95)
    assert wide[0] < low < high < wide[1]


def test_runs_of_unequal_length_and_seeds_are_welcome():
    fit = fit_surface(*runs(lengths=[12, 60, 60, 40, 15, 6]))
    assert abs(math.log(float(fit.lr_opt(2 * T[-1])) / lr_opt(2 * T[-1]))) < 0.3
    parts = [np.concatenate(pair) for pair in zip(runs(seed=1), runs(seed=2), strict=True)]
    assert abs(math.log(float(fit_surface(*parts).lr_opt(2 * T[-1])) / lr_opt(2 * T[-1]))) < 0.2


def test_a_diverged_run_bounds_the_optimum_from_above():
    lr, t, y = runs()
    y[(lr == LRS[-1]) & (t > 2e7)] = math.nan
    fit = fit_surface(lr, t, y)
    assert fit.upper_bound == pytest.approx(LRS[-1])
    assert fit.lrs.size == LRS.size - 1
    assert fit.lr_interval(4 * T[-1], 0.999)[1] <= LRS[-1] * (1 + 1e-12)
    y[:] = math.inf
    assert fit_surface(lr, t, y).status == "diverged"


@pytest.mark.parametrize(("lrs", "status"), [(LRS[:3] / 4, "edge_high"), (LRS[3:] * 2, "edge_low")])
def test_an_optimum_outside_the_runs_is_said_to_be_so(lrs, status):
    fit = fit_surface(*runs(lrs))
    assert fit.status == status
    low, high = fit.lr_interval(T[-1])
    assert low == 0 or high == math.inf or (low < lr_opt(T[-1]) < high)


def test_too_little_is_said_to_be_so():
    assert fit_surface([], [], []).status == "too_few"
    assert fit_surface(*runs(LRS[:2])).status == "too_few"
    short = fit_surface(*runs(lengths=[2] * 6))
    assert short.status == "too_short"
    assert math.isnan(short.lr_opt(1e9))
    assert short.lr_interval(1e9) == (0, math.inf)
    assert math.isinf(short.loss(1e-3, 1e9)[1])
    lr, t, _ = runs()
    assert fit_surface(lr, t, np.full(t.size, 3.0)).status == "not_falling"


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        fit_surface([-1, 1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="one entry a measurement"):
        fit_surface([1, 1], [1, 1], [1])
    with pytest.raises(ValueError, match="level"):
        fit_surface(*runs()).lr_interval(1e8, 1.5)


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 99), lr_unit=st.floats(0.01, 100), t_unit=st.floats(1e-6, 1e3),
    loss_unit=st.floats(0.1, 10), shift=st.floats(-1, 1),
)  # fmt: skip
def test_other_units_order_and_offsets_change_nothing(seed, lr_unit, t_unit, loss_unit, shift):
    lr, t, y = runs(seed=seed)
    order = np.random.default_rng(seed).permutation(t.size)
    base, other = (
        fit_surface(lr, t, y),
        fit_surface(lr[order] * lr_unit, t[order] * t_unit, (y[order] + shift) * loss_unit),
    )
    at = 3 * T[-1]
    assert other.status == base.status
    assert other.lr_opt(at * t_unit) / lr_unit == pytest.approx(base.lr_opt(at), rel=1e-4)
    assert np.array(other.lr_interval(at * t_unit)) / lr_unit == pytest.approx(np.array(base.lr_interval(at)), rel=0.02)
    assert other.loss(1e-3 * lr_unit, at * t_unit)[0] / loss_unit - shift == pytest.approx(
        base.loss(1e-3, at)[0], rel=1e-5
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), log_scale=st.integers(-200, 200), offset=st.floats(0, 10))
def test_any_input_gives_a_status_and_ok_means_numbers(seed, n, log_scale, offset):
    rng = np.random.default_rng(seed)
    lr, t, y = rng.choice(LRS, n), rng.choice(T, n), (offset + rng.normal(0, 1, n)) * 10.0**log_scale
    y[rng.random(n) < 0.1] = math.nan
    y[rng.random(n) < 0.02] = 1e300
    fit = fit_surface(lr, t, y)
    assert fit.status in STATUSES
    low, high = fit.lr_interval(1e9)
    assert low <= high
    if fit.posterior is not None:
        assert np.isfinite(fit.optima(1e9)).all()
        assert low * (1 - 1e-9) <= fit.lr_opt(1e9) <= high * (1 + 1e-9)
    if fit.ok:
        assert np.isfinite([fit.lr_opt(1e9), *fit.loss(1e-3, 1e9)]).all()


@pytest.mark.skipif(not (DATA / "wsd124m_stable.csv").exists(), reason=f"no {DATA}/wsd124m_stable.csv: set RAYLR_DATA")
def test_the_optimum_of_a_real_model_from_a_quarter_of_its_tokens():
    lr, t, y = np.genfromtxt(DATA / "wsd124m_stable.csv", delimiter=",", skip_header=1, usecols=(0, 3, 2)).T
    end = fit_surface(lr, t, y)
    part = t <= 0.25 * t.max()
    fit = fit_surface(lr[part], t[part], y[part])
    assert abs(math.log(float(fit.lr_opt(t.max())) / float(end.lr_opt(t.max())))) < 0.25
    low, high = fit.lr_interval(t.max())
    assert low < float(end.lr_opt(t.max())) < high
    stopped = float(fit.lr_opt(t[part].max()))
    assert math.log(stopped / float(end.lr_opt(t.max()))) > 0.5


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_few_lrs_inside_the_window_tell_no_more_than_their_distance(share):
    """Steep curves, four LRs a factor two apart, 16 evaluations: as a study of a few hundred steps has them."""
    t = np.arange(1, 17) / 16
    lrs = np.array([2.7e-3, 5e-3, 9e-3, 1.6e-2])
    hits, places, widths = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        best = 5e-3 * math.exp(rng.uniform(-0.3, 0.3))
        z = np.log(lrs / best)[:, None]
        y = 4 + 0.9 * np.exp(-0.3 * z) * (t**-0.5 - 1) + 0.25 * (np.exp(z) - 1 - z) + rng.normal(0, 0.005, (4, 16))
        axis = np.linspace(-1.5, 1.5, 601)
        true = 0.9 * np.exp(-0.3 * axis) * (share**-0.5 - 1) + 0.25 * (np.exp(axis) - 1 - axis)
        fit = fit_surface(np.repeat(lrs, 16), np.tile(t, 4), y.ravel())
        low, high = fit.lr_interval(share)
        at = math.log(fit.lr_opt(share))
        hits.append(low <= best * math.exp(axis[true.argmin()]) <= high)
        widths.append(math.log(high / low))
        places.append((at - math.log(low)) / widths[-1])
    assert np.mean(hits) >= 0.8
    assert 0.2 < np.median(widths) < 1.2
    assert np.min(places) > 0.1  # the optimum is not at an end of its interval
    assert np.max(places) < 0.9


def test_an_optimum_that_stays_is_inside_the_interval():
    """A noise floor that falls as the progress does: the optimum does not move."""
    lr, t, _ = runs()
    z = np.log(lr / 1e-3)
    y = 3 + (0.2 * np.exp(-0.3 * z) + 0.1 * np.exp(0.6 * z)) * (t / 3e7) ** -0.45
    seen = t <= 0.25 * T[-1]
    fit = fit_surface(lr[seen], t[seen], y[seen] + np.random.default_rng(0).normal(0, 1e-3, seen.sum()))
    low, high = fit.lr_interval(T[-1])
    assert low < 1e-3 < high


def test_runs_whose_end_their_beginning_did_not_foresee_are_said_not_to_converge():
    lr, t, y = runs(lrs=CLOSE)
    late = 0.4 / (1 + np.exp(-8 * np.log(t / 3e7)))  # a second fast phase in the middle of the run
    first, second = fit_surface(lr, t, y), fit_surface(lr, t, y - late)
    assert first.status == "ok"
    assert second.status == "not_converging"
    assert second.usable
    assert not second.ok
    assert "too high" in second.message
    assert second.miss > 1.5 * first.miss
    assert second.loss(1e-3, 4 * T[-1])[1] > 1.5 * first.loss(1e-3, 4 * T[-1])[1]


SHAPES = {
    "parabola": lambda z: 0.1 * z**2,
    "steep": lambda z: 3 * z**2,
    "hinge": lambda z: np.where(z < 0, -0.2 * z, 2 * z),
    "cliff": lambda z: np.where(z < 0.4, 0.1 * z**2, 3.0),
    "diverges": lambda z: np.where(z < 0.4, 0.1 * z**2, np.nan),
    "plateau": lambda z: np.maximum(0.05 * (np.abs(z) - 1), 0),
    "falls": lambda z: -0.2 * z,
    "two minima": lambda z: 0.3 * (1 - np.cos(2.5 * z)) + 0.02 * z**2,
    "pit": lambda z: 3 * (1 - np.exp(-20 * z**2)),
}


@settings(deadline=None, max_examples=15)
@given(
    shape=st.sampled_from(sorted(SHAPES)), seed=st.integers(0, 10_000), count=st.integers(3, 7),
    noise=st.sampled_from([0.0, 0.01]), share=st.sampled_from([1.0, 0.5]),
)  # fmt: skip
def test_a_measured_optimum_contradicts_no_measurement(shape, seed, count, noise, share):
    """At a budget that all runs went to, the surface says what the losses there say, and no more than they allow."""
    rng = np.random.default_rng(seed)
    z = np.sort(rng.uniform(-3, 3, count)) + 1e-3 * np.arange(count)
    t = np.arange(1, 21) / 20
    y = 3 + 0.5 * (t**-0.4 - 1) + SHAPES[shape](z)[:, None] + noise * rng.standard_normal((count, 20))
    lr = np.exp(z)
    fit = fit_surface(np.repeat(lr, 20), np.tile(t, count), y.ravel())
    at = t[int(20 * share) - 1]
    last = np.where(np.isfinite(y[:, -1]), y[:, int(20 * share) - 1], math.nan)
    found = fit_optimum(lr, last)
    if not np.isfinite(last).any():
        assert math.isnan(fit.lr_opt(at))
        return
    assert fit.lr_opt(at) == pytest.approx(found.lr, rel=1e-12)
    assert fit.lr_interval(at) == pytest.approx(found.interval(), rel=1e-12)
    assert fit.status_at(at)[0] is found.status
    allowed = 3 * noise
    usable = np.isfinite(last)
    x, h = z[usable], last[usable] - np.nanmin(last)
    best = int(np.argmin(h))
    beside = h[max(best - 1, 0) : best + 2]
    loss = float(fit.loss(fit.lr_opt(at), at)[0])
    if found.status not in ("edge_low", "edge_high"):  # an edge has no neighbour on one side to say how deep it goes
        assert loss >= np.nanmin(last) - 0.5 * beside.max() - allowed
    assert loss <= np.nanmin(last) + beside.max() + allowed
    if noise == 0:  # the best LR tried, or between it and a neighbour
        low, high = x[max(best - 1, 0)], x[min(best + 1, x.size - 1)]
        assert low - 1e-9 <= math.log(fit.lr_opt(at)) <= high + 1e-9


def test_the_losses_of_runs_are_those_measured_or_predicted():
    lr, t, y = runs(lengths=[60, 60, 60, 30, 60, 60])
    fit = fit_surface(lr, t, y)
    here = (lr == LRS[1]) & (t == T[-1])
    assert fit.run_loss(LRS[1], T[-1]) == (pytest.approx(float(y[here][0])), 0.0)
    at_end, stderr = fit.run_loss(LRS[3], T[-1])
    assert abs(at_end - loss(LRS[3], T[-1])) < 3 * stderr
    assert "predicted" in fit.status_at(T[-1])[1]
    assert "predicted" not in fit.status_at(T[29])[1]


def test_too_few_reports_for_a_model_still_have_an_optimum_where_they_were_measured():
    z = np.log(LRS / 1e-3)
    t = np.array([0.5, 1.0])
    y = 3 + 0.1 * (z[:, None] + 0.4 * np.log(t)) ** 2 - 0.3 * np.log(t)
    fit = fit_surface(np.repeat(LRS, 2), np.tile(t, 6), y.ravel())
    assert fit.status == "too_short"
    assert fit.lr_opt(1.0) == pytest.approx(1e-3, rel=0.02)
    assert math.isnan(fit.lr_opt(2.0))


def test_replicates_are_losses_of_their_own():
    lr, t, y = runs()
    again = np.concatenate([y, y + 0.01])
    part = fit_surface(np.tile(lr, 2), np.tile(t, 2), again).section(T[-1])
    assert part.log_lr.size == 2 * LRS.size
    assert part.complete
