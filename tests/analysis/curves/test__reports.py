import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from raylr.analysis.curves import _reports

T = np.linspace(1, 300, 300)
X = np.log(T / 300)


def correlated(rng, count, lag, sd):
    noise = rng.normal(0, sd, (200, count))
    for j in range(1, count):
        noise[:, j] = lag * noise[:, j - 1] + np.sqrt(1 - lag**2) * noise[:, j]
    return noise


@pytest.mark.parametrize(("lag", "averages_like"), [(0.0, 1.0), (0.5, 3.0), (0.7, 17 / 3)])
def test_noise_is_measured_as_it_counts_in_averages(lag, averages_like):
    y = 2 + (T / 300) ** -0.4 + correlated(np.random.default_rng(0), 300, lag, 0.01)
    found = np.median(_reports.noise(X, y)) / (0.01**2 * averages_like)
    assert 0.7 < found < 1.4


def test_a_smooth_curve_has_next_to_no_noise():
    gain = 0.4 * 1.0  # in an e-fold at the end
    assert np.sqrt(_reports.noise(X, (2 + (T / 300) ** -0.4)[None])[0]) < 0.003 * gain


HEIGHTS = st.floats(-5, -2) | st.floats(2, 50)


@given(st.lists(st.tuples(st.integers(20, 299), HEIGHTS), max_size=8, unique_by=lambda one: one[0] // 15))
def test_spikes_are_left_out(spikes):
    y = (2 + (T / 300) ** -0.4)[None] + np.random.default_rng(0).normal(0, 2e-3, (1, 300))
    spiked = y.copy()
    for at, height in spikes:
        spiked[0, at] += height
    assert _reports.without_spikes(X, spiked)[0, 20:] == pytest.approx(y[0, 20:], abs=0.2)


def test_a_curve_without_spikes_stays_as_it_is():
    for noise in (0.0, 1e-3, 0.05):
        y = (2 + (T / 300) ** -0.4)[None] + np.random.default_rng(0).normal(0, noise, (1, 300))
        changed = _reports.without_spikes(X, y) != y
        assert changed.mean() < 0.01


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 99))
def test_a_resumed_run_is_what_its_last_way_to_the_end_was(resumed, seed):
    """Runs that are resumed from earlier tokens: the reports are those that a run without a stop has last."""
    rng = np.random.default_rng(seed)
    tokens, value = [], []
    at = 0
    for segment in [*resumed, 50]:
        at = int(rng.integers(0, at + 1))
        for _ in range(segment):
            at += 1
            tokens.append(at)
            value.append(rng.random())
    last = dict(zip(tokens, range(len(tokens)), strict=True))
    want = [last[t] for t in sorted(last) if all(t < later for later in tokens[last[t] + 1 :])]
    t = np.array(tokens, float)
    assume((np.diff(t) != 0).all())  # two reports at one token count are averaged
    if (np.diff(t) < 0).sum() <= _reports.ORDERED * t.size:
        assert list(_reports.latest(t)) == want
        twice = _reports.latest(np.repeat(t, 2))
        assert list(twice) == [2 * i + k for i in want for k in (0, 1)]


def test_tokens_in_no_order_all_count():
    t = np.random.default_rng(0).permutation(np.repeat(T, 2))
    assert list(t[_reports.latest(t)]) == sorted(t)
    assert _reports.latest(np.repeat(T, 3)).size == 3 * T.size  # equal ones are no step back


def test_bins_are_fine_at_the_end_and_count_reports():
    x, y, count = _reports.averages(X, np.stack([X, X**2]), np.ones(300))
    assert 15 <= x.size <= 25
    assert count.sum() == 300
    assert y[0] == pytest.approx(x)
    assert np.diff(x)[-3:].max() < 0.15 < np.diff(x)[:3].min()


def test_slopes_and_smoothed_curves_of_straight_lines():
    x, y, count = _reports.averages(X, np.stack([3 - 0.5 * X, 3 + X]), np.ones(300))
    assert _reports.slope(x, y, count, 0.0) == pytest.approx([-0.5, 1.0])
    assert _reports.slope(x, y, count, -_reports.END) == pytest.approx([-0.5, 1.0])
    assert np.isnan(_reports.slope(x[-3:], y[:, -3:], count[-3:], -_reports.END)).all()
    assert _reports.smoothed(x, y, count) == pytest.approx(y, abs=1e-6)
