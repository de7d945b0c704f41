import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from raylr.analysis import PowerLawFits, fit_power_law, fit_power_laws

T = np.linspace(1e6, 6e7, 60)
STATUSES = {"ok", "too_short", "not_converging", "not_falling", "diverged"}


def curve(t=T, l0=2.5, b=0.6, gamma=0.45, noise=0.0, seed=0):
    return l0 + b * (t / 6e7) ** -gamma + np.random.default_rng(seed).normal(0, 1, len(t)) * noise


def test_a_power_law_is_recovered_exactly():
    fit = fit_power_law(T, curve(), burn_in=0)
    assert fit.ok
    assert fit.gamma == pytest.approx(0.45, rel=1e-6)
    assert fit.l0 == pytest.approx(2.5, rel=1e-6)
    assert fit.a == pytest.approx(0.6 * 6e7**0.45, rel=1e-5)
    loss, stderr = fit.predict(6e8)
    assert loss == pytest.approx(2.5 + 0.6 * 10**-0.45, rel=1e-6)
    assert stderr < 0.02
    assert fit.predict([[6e7, 6e8]])[0].shape == (1, 2)


def test_the_optimum_is_that_of_curve_fit():
    y = curve(noise=3e-3)
    fit = fit_power_law(T, y, burn_in=1e7)
    keep = T >= 1e7
    theirs, _ = curve_fit(lambda t, l0, b, g: l0 + b * t**-g, T[keep] / T[-1], y[keep], p0=(2, 0.5, 0.5))
    assert (fit.l0, fit.a * T[-1] ** -fit.gamma, fit.gamma) == pytest.approx(tuple(theirs), rel=1e-5)


@pytest.mark.parametrize("burn_in", [5e6, "auto"])
def test_many_curves_at_once_equal_one_at_a_time(burn_in):
    rng = np.random.default_rng(0)
    y = np.array([curve(gamma=g, noise=2e-3, seed=i) for i, g in enumerate(rng.uniform(0.05, 2.5, 40))])
    y[3, 7] = y[5, 7] = y[9, -1] = math.nan  # some rows miss a point, one ends in NaN
    y[11] = 3.0
    many = fit_power_laws(T, y, burn_in=burn_in)
    assert isinstance(many, PowerLawFits)
    assert {"ok", "diverged", "not_falling"} <= set(many.status)
    for i, (row, fit) in enumerate(zip(y, many, strict=True)):
        one = fit_power_law(T, row, burn_in=burn_in)
        assert fit.status == one.status == many.status[i]
        assert (fit.l0, fit.a, fit.gamma, fit.rmse) == pytest.approx(
            (one.l0, one.a, one.gamma, one.rmse), rel=1e-6, nan_ok=True
        )
        assert (many.l0[i], many.a[i], many.gamma[i], many.rmse[i]) == pytest.approx(
            (fit.l0, fit.a, fit.gamma, fit.rmse), nan_ok=True
        )
        assert fit.predict(6e8) == pytest.approx(one.predict(6e8), rel=1e-6, nan_ok=True)
    assert [f.gamma for f in many[3:5]] == [many[3].gamma, many[4].gamma]
    assert many[-1].gamma == many[39].gamma
    with pytest.raises(IndexError):
        many[40]


@pytest.mark.parametrize("burn_in", [0, "auto"])
def test_fits_can_be_sent_to_another_process(burn_in):
    fit = fit_power_law(T, curve(noise=1e-3), burn_in=burn_in)
    assert pickle.loads(pickle.dumps(fit)).predict(6e8) == fit.predict(6e8)


def test_repeated_tokens_in_any_order_are_one_fit():
    t, y = np.repeat(T, 2), np.repeat(curve(), 2) + np.random.default_rng(0).normal(0, 1e-3, 2 * T.size)
    order = np.random.default_rng(1).permutation(t.size)
    for burn_in in (0, "auto"):
        one, other = fit_power_law(t, y, burn_in=burn_in), fit_power_law(t[order], y[order], burn_in=burn_in)
        assert one.predict(6e8) == pytest.approx(other.predict(6e8), rel=1e-9)
        assert one.gamma == pytest.approx(0.45, abs=0.1)


def test_curves_that_diverge_are_told_apart_from_the_rest():
    y = np.array([curve(), curve(), curve()])
    y[1, -5:] = math.nan
    y[2, 10] = math.nan
    fits = fit_power_laws(T, y, burn_in=0)
    assert [f.status for f in fits] == ["ok", "diverged", "ok"]
    assert fits[2].gamma == pytest.approx(0.45, rel=1e-5)
    loss, stderr = fits[1].predict(1e9)
    assert math.isnan(loss)
    assert math.isinf(stderr)


def test_a_burn_in_is_discounted():
    y = curve() + 1.5 * np.exp(-T / 4e6)
    truth = 2.5 + 0.6 * 4**-0.45
    auto, whole = fit_power_law(T, y), fit_power_law(T, y, burn_in=0)
    assert 0 < auto.burn_in < T[-1]
    assert abs(auto.predict(2.4e8)[0] - truth) < 0.04
    assert abs(whole.predict(2.4e8)[0] - truth) > 0.06


def test_a_curve_that_still_falls_as_before_predicts_widely():
    y = 8 - 0.3 * np.log(T)
    fit = fit_power_law(T, y)
    assert fit.status == "not_converging"
    loss, stderr = fit.predict(2.4e8)
    straight = 8 - 0.3 * math.log(2.4e8)
    assert abs(loss - straight) < 4 * stderr
    assert stderr > 5 * fit_power_law(T, curve(), burn_in=0).predict(2.4e8)[1]


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_intervals_cover_with_correlated_residuals(correlation):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2e-3, (300, T.size))
    for j in range(1, T.size):
        noise[:, j] = correlation * noise[:, j - 1] + math.sqrt(1 - correlation**2) * noise[:, j]
    predicted = np.array([f.predict(2.4e8) for f in fit_power_laws(T, curve() + noise, burn_in=0)])
    inside = np.abs(predicted[:, 0] - 2.5 - 0.6 * 4**-0.45) < 1.645 * predicted[:, 1]
    assert 0.82 <= inside.mean() <= 0.99  # an error is the larger one of two estimates


OTHER_LAWS = {
    "power law": lambda x, a, g: a * x**-g,
    "sum of two": lambda x, a, g: a * (0.6 * x**-g + 0.4 * x ** (-0.4 * g)),
    "shifted": lambda x, a, g: a * (x + 0.05) ** -g,
    "bent": lambda x, a, g: a * np.exp(-g * np.log(x) - 0.03 * np.log(x) ** 2),
    "logarithm": lambda x, a, g: 3 * a / np.log(1e3 * x + 2),
    "burn-in": lambda x, a, g: a * x**-g + 0.5 * np.exp(-20 * x),
}


@pytest.mark.parametrize("burn_in", ["auto", 1e7])
@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3])
def test_errors_are_honest_where_the_curve_is_no_power_law_and_hardly_scatters(noise, burn_in):
    z = []
    for number in range(12):
        rng = np.random.default_rng([4, number])
        a, g, scatter = rng.uniform(0.2, 1), rng.uniform(0.25, 0.6), noise * rng.standard_normal(T.size)
        for law in OTHER_LAWS.values():
            fit = fit_power_law(T, 2 + law(T / T[-1], a, g) + scatter, burn_in=burn_in)
            loss, stderr = fit.predict(2 * T[-1])
            z.append((loss - 2 - law(2.0, a, g)) / stderr)
    assert np.sqrt(np.mean(np.square(z))) < (1.3 if burn_in == "auto" else 2)  # 5 for least squares by itself
    assert burn_in != "auto" or np.abs(z).max() < 3


def test_noise_can_be_given():
    y = curve(noise=2e-3)
    assert (
        fit_power_law(T, y, burn_in=0, loss_stderr=0.05).predict(6e8)[1]
        > fit_power_law(T, y, burn_in=0).predict(6e8)[1]
    )
    assert fit_power_law(T, y, loss_stderr=0.05).predict(6e8)[1] > fit_power_law(T, y).predict(6e8)[1]


@pytest.mark.parametrize(
    ("tokens", "loss", "status"),
    [
        ([], [], "too_short"),
        ([1e6, 2e6, 3e6], [3, 2.9, 2.8], "too_short"),
        (T, np.full(60, 3.0), "not_falling"),
        (T, np.linspace(3, 4, 60), "not_falling"),
        (T, np.full(60, math.nan), "diverged"),
    ],
)
@pytest.mark.parametrize("burn_in", ["auto", 0.0])
def test_what_cannot_be_fitted_is_said_to_be_so(tokens, loss, status, burn_in):
    assert fit_power_law(tokens, loss, burn_in=burn_in).status == status


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"burn_in": "later"}, "burn_in"),
        ({"burn_in": -1}, "burn_in"),
        ({"burn_in": None}, "burn_in"),
        ({"loss_stderr": 0}, "loss_stderr"),
        ({"loss_stderr": [1, 2]}, "loss_stderr"),
    ],
)
def test_bad_options_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        fit_power_law(T, curve(), **kwargs)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="one column a token count"):
        fit_power_laws(T, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="above zero"):
        fit_power_law([0, 1], [1, 2])


@settings(deadline=None, max_examples=60)
@given(
    points=st.lists(st.tuples(st.floats(1e-12, 1e15), st.floats(0, 20) | st.floats()), max_size=30),
    falls=st.booleans(),
    stderr=st.none() | st.floats(1e-300, 1e300),
    burn_in=st.sampled_from(["auto", 0.0, 5.0]),
)
def test_any_input_gives_a_status_and_ok_means_numbers(points, falls, stderr, burn_in):
    t, y = (np.array(v, dtype=float) for v in (zip(*points, strict=True) if points else ((), ())))
    if falls:  # or hardly any curve would have a fit
        y = np.sort(y)[::-1][np.argsort(np.argsort(t))]
    fit = fit_power_law(t, y, burn_in=burn_in, loss_stderr=stderr)
    assert fit.status in STATUSES
    if fit.ok:
        loss, stderr = fit.predict([t.max(), 10.0 * t.max()])
        assert np.isfinite([fit.l0, fit.a, fit.gamma, *loss, *stderr]).all()


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 500), scale=st.floats(0.01, 100), shift=st.floats(-5, 5), unit=st.floats(1e-9, 1e3),
    burn_in=st.sampled_from(["auto", 1e7]),
)  # fmt: skip
def test_other_units_order_and_offsets_change_nothing(seed, scale, shift, unit, burn_in):
    y = curve(noise=2e-3, seed=seed)
    order = np.random.default_rng(seed).permutation(T.size)
    base = fit_power_law(T, y, burn_in=burn_in)
    cut = burn_in if burn_in == "auto" else 1e7 * unit * (1 - 1e-9)
    other = fit_power_law(T[order] * unit, scale * (y[order] + shift), burn_in=cut)
    loss, stderr = other.predict(2.4e8 * unit)
    assert loss / scale - shift == pytest.approx(base.predict(2.4e8)[0], abs=1e-5)
    assert stderr / scale == pytest.approx(base.predict(2.4e8)[1], rel=1e-3)


DENSE = np.linspace(2e5, 6e7, 300)
KINDS = {"smooth": (T, 0.0), "noisy": (DENSE, 0.02)}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 300),
    spikes=st.lists(st.tuples(st.integers(2, 10), st.floats(-1, 10)), max_size=3, unique_by=lambda one: one[0]),
    missing=st.floats(0, 0.4),
    resumed=st.none() | st.floats(0.3, 0.9),
    repeated=st.booleans(),
)  # fmt: skip
def test_spikes_restarts_repeats_and_gaps_do_no_harm(kind, seed, spikes, missing, resumed, repeated):
    """What happens to the reports of a long run moves a prediction by no more than its own uncertainty."""
    rng = np.random.default_rng(seed)
    t, noise = KINDS[kind]
    y = curve(t, noise=noise, seed=seed)
    loss, stderr = fit_power_law(t, y).predict(2.4e8)
    t, y = t.copy(), y.copy()
    for at, height in spikes:
        y[min(at * t.size // 10, t.size - 1)] += height
    kept = rng.random(t.size) >= missing
    kept[-1] = True
    y[~kept] = math.nan if seed % 2 else y[~kept]
    t, y = (t, y) if seed % 2 else (t[kept], y[kept])
    if resumed is not None:  # what was lost in between was worse
        part = t >= resumed * t[-1]
        lost = part & (t <= 0.5 * (resumed + 1) * t[-1])
        cut = int(np.flatnonzero(part)[0])
        t, y = np.concatenate([t[:cut], t[lost], t[cut:]]), np.concatenate([y[:cut], y[lost] + 1, y[cut:]])
    if repeated:
        t, y = np.repeat(t, 2), np.repeat(y, 2)
    other, error = fit_power_law(t, y).predict(2.4e8)
    assert abs(other - loss) < 2 * math.hypot(stderr, error)
    assert error < 4 * stderr + 0.02


def test_widths_follow_the_curve():
    """Exact power laws are predicted to a fraction of what they fall; noisy ones within their noise."""
    y = np.array([curve(gamma=g) for g in (0.3, 0.45, 0.7)])
    exact = [fit.predict(2.4e8) for fit in fit_power_laws(T, y)]
    assert max(error for _, error in exact) < 0.02
    noisy = fit_power_laws(DENSE, np.array([curve(DENSE, noise=0.02, seed=i) for i in range(60)]))
    assert np.median([fit.noise for fit in noisy]) == pytest.approx(0.02, rel=0.3)
    predicted = np.array([fit.predict(2.4e8) for fit in noisy])
    z = (predicted[:, 0] - 2.5 - 0.6 * 4**-0.45) / predicted[:, 1]
    assert 0.4 < np.sqrt(np.mean(z**2)) < 1.3


def test_dense_reports_are_averaged():
    """Ten times the reports at the same noise: the error of the prediction falls, and so does its standard error."""
    truth, found = 2.5 + 0.6 * 4**-0.45, []
    for count in (60, 600):
        t = np.linspace(6e7 / count, 6e7, count)
        fits = fit_power_laws(t, np.array([curve(t, noise=0.05, seed=i) for i in range(40)]))
        predicted = np.array([fit.predict(2.4e8) for fit in fits if fit.forecast is not None])
        found.append((np.sqrt(np.mean((predicted[:, 0] - truth) ** 2)), np.median(predicted[:, 1])))
    assert found[1][0] < 0.8 * found[0][0]
    assert found[1][1] < 0.8 * found[0][1]
