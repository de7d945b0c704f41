import numpy as np
import pytest

from raylr.analysis.curves import _progress

X = np.linspace(-3, 0, 31)


def points(noise=1e-3):
    rng = np.random.default_rng(0)
    runs = {}
    for z in (-1.5, -0.7, 0.0, 0.7):
        y = 3 + 0.3 * np.exp(-0.3 * z - 0.4 * X) + 0.15 * np.exp(0.6 * z)
        runs[z] = (X, y + rng.normal(0, noise, X.size), np.full(X.size, noise**2))
    return _progress.assemble(runs)


def test_bins_average_neighbours_and_measure_the_noise():
    rng = np.random.default_rng(1)
    t = np.linspace(1, 1000, 1000)
    y = 3 - 0.1 * np.log(t) + rng.normal(0, 0.01, t.size)
    x, mean, variance = _progress.binned(np.log(t / 1000), y, np.ones(t.size))
    assert x.size < 80
    assert (np.diff(x) > 0).all()
    assert mean[-1] == pytest.approx(3 - 0.1 * np.log(1000 * np.exp(x[-1])), abs=4e-3)
    assert 0.5 < variance[0] / 1e-4 < 2
    assert variance[-1] < variance[0] / 20


def test_the_slope_is_that_of_the_end():
    assert _progress.last_slope(X, 3 - 0.25 * X) == pytest.approx(0.25)
    assert _progress.last_slope(X, 3 + 0.25 * X) == 0


def test_the_discrepancy_grows_with_the_distance_from_the_end():
    amp = _progress.discrepancy(np.array([3.0, 3.1, 3.4]), 3.0, 0.1, 0.2)
    assert amp == pytest.approx(0.02 * np.array([1, 2, 5]) ** _progress.POWER)


def test_a_covariance_is_symmetric_and_positive():
    p = points()
    k = _progress.covariance(p.z, p.x, p.amp, p.z, p.x, p.amp, own=True)
    assert k == pytest.approx(k.T)
    assert np.linalg.eigvalsh(k).min() > -1e-10 * np.linalg.eigvalsh(k).max()
    assert np.diag(k) == pytest.approx(p.amp**2)


def test_the_posterior_passes_through_its_points_and_widens_ahead():
    p = points()
    post = _progress.posterior(p)
    assert post.weight.sum() == pytest.approx(1)
    assert post.lead.sum() == pytest.approx(1)
    z = np.array([-0.7, 0.0, 0.7])
    here, ahead = (_progress.curve(post, z, x, _progress.amplitude(p, z, x)) for x in (0.0, 1.5))
    at_end = np.array([p.y[(p.z == one) & (p.x == 0)][0] for one in z])
    assert here.mean == pytest.approx(at_end, abs=0.01)
    assert (ahead.stderr > here.stderr).all()
    true = 3 + 0.3 * np.exp(-0.3 * z - 0.4 * 1.5) + 0.15 * np.exp(0.6 * z)
    assert (np.abs(ahead.mean - true) < 2 * ahead.stderr).all()
    assert _progress.contrast(post, ahead, 1)[1] == pytest.approx(0, abs=1e-9)
    assert (_progress.contrast(post, ahead, 1) < 1.5 * ahead.stderr).all()


def test_draws_have_the_spread_of_the_posterior():
    p = points()
    post = _progress.posterior(p)
    z = np.linspace(-1, 1, 9)
    c = _progress.curve(post, z, 1.0, _progress.amplitude(p, z, 1.0))
    sample = _progress.draws(post, c, 4000, np.random.default_rng(0))
    assert sample.shape == (4000, 9)
    centre = post.weight @ c.node_mean
    assert sample.mean(0) == pytest.approx(centre, abs=4 * float(c.stderr.max()) / 60)
    assert np.sqrt(((sample - c.mean) ** 2).mean(0)) == pytest.approx(c.stderr, rel=0.1)


def test_a_run_that_lags_catches_up():
    p = points()
    far = np.array([-1.5])
    last = float(p.amp[(p.z == -1.5) & (p.x == 0)][0])
    assert _progress.amplitude(p, far, 0.0)[0] == pytest.approx(last)
    assert _progress.amplitude(p, far, 5.0)[0] <= last
