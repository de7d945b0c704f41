import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import fit_annealing, fit_power_law
from raylr.analysis.curves import _floor
from raylr.errors import InputError

T = np.linspace(1e6, 1e8, 60)


def lr_of(t, kind, peak=1.0, end=1e8, decay=0.2):
    x = np.clip((t / end - (1 - decay)) / decay, 0, 1)
    shape = {"constant": 1 + 0 * t, "wsd": 1 - x, "sqrt": 1 - np.sqrt(x), "cosine": 0.5 + 0.5 * np.cos(np.pi * t / end)}
    return peak * shape[kind]


def losses(t, lr, peak=1.0, drop=0.15, gamma=0.4, noise=0.0, seed=0):
    """Progress by the area, and a floor that follows the LR with a delay, integrated on a fine grid."""
    fine = np.linspace(t[0], t[-1], 20 * t.size)
    h = np.interp(fine, t, lr)
    width = fine[1] - fine[0]
    area = t[0] * h[0] + np.cumsum(h) * width
    floor = np.empty_like(h)
    floor[0] = h[0]
    for i in range(1, h.size):
        floor[i] = h[i] + (floor[i - 1] - h[i]) * math.exp(-width * h[i] / 1e6)
    y = 2 + 0.4 * (area / (1e8 * peak)) ** -gamma + drop * floor
    return np.interp(t, fine, y) + np.random.default_rng(seed).normal(0, noise, t.size)


def test_one_decayed_run_tells_what_other_decays_give():
    t = np.concatenate([T, T])
    lr = np.concatenate([lr_of(T, "constant"), lr_of(T, "wsd")])
    y = np.concatenate([losses(T, lr[: T.size]), losses(T, lr[T.size :])])
    fit = fit_annealing(t, lr, y, run=np.repeat(["stable", "decayed"], T.size))
    assert fit.ok
    assert fit.runs == ("decayed", "stable")
    for kind, end in (("sqrt", 1e8), ("cosine", 1e8), ("wsd", 2e8)):
        path = T * end / 1e8
        truth = losses(path, lr_of(path, kind, end=end))[-1]
        loss, stderr = fit.predict(path, lr_of(path, kind, end=end))
        assert abs(loss[-1] - truth) < 2.5 * stderr[-1]
        assert stderr[-1] < 0.03


def test_a_constant_lr_is_eq_4():
    y = 2 + 0.4 * (T / 1e8) ** -0.4
    fit = fit_annealing(T, np.full(T.size, 3e-4), y)
    assert fit.status == "not_determined"
    assert "prior" in fit.message
    loss, stderr = fit.predict([1e8, 3e8], [3e-4, 3e-4])
    theirs, error = fit_power_law(T, y).predict(3e8)
    assert loss[1] == pytest.approx(theirs, abs=2 * (stderr[1] + error))
    decayed, width = fit.predict([1e8, 1.2e8], [3e-4, 0.0])
    assert decayed[1] < loss[0]
    assert width[1] > 5 * stderr[0]  # nothing was measured of what a decay gives


def test_branches_of_which_the_end_is_known_rank_the_lrs_after_a_decay():
    """The best stable LR is not the best decayed one; stable curves and one branch show it."""
    lrs, parts = (0.25, 0.5, 1.0, 2.0), []
    ends, stable = [], []
    for peak in lrs:
        level = 0.02 * (math.log(peak) - math.log(1.5)) ** 2
        y = losses(T, lr_of(T, "constant", peak), 1.0, drop=0.1) + level
        stable.append(y[-1])
        parts.append((T, lr_of(T, "constant", peak), y, [f"{peak}"] * T.size))
        ends.append(losses(T, lr_of(T, "wsd", peak), 1.0, drop=0.1)[-1] + level)
    path, known = T[-20:], np.full(20, np.nan)
    known[-1] = ends[1]
    branch = lr_of(path, "wsd", 0.5)
    parts.append((path, branch, known, ["branch"] * 20))
    t, h, y, run = (np.concatenate([part[i] for part in parts]) for i in range(4))
    fit = fit_annealing(t, h, y, run=run)
    assert fit.ok
    found = [fit.predict(T, lr_of(T, "wsd", peak)) for peak in lrs]
    for (loss, stderr), truth in zip(found, ends, strict=True):
        assert abs(loss[-1] - truth) < 3 * stderr[-1]
    assert np.argmin([loss[-1] for loss, _ in found]) == np.argmin(ends) != np.argmin(stable)


def test_the_end_of_a_cosine_from_its_first_part():
    lr = lr_of(T, "cosine")
    y = losses(T, lr, noise=2e-3)
    seen = T <= 6e7
    loss, stderr = fit_annealing(T[seen], lr[seen], y[seen]).predict(T, lr)
    assert abs(loss[-1] - y[-1]) < 2.5 * stderr[-1]
    assert abs(loss[-1] - y[-1]) < 0.5 * abs(y[seen][-1] - y[-1])


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 99), scale=st.floats(0.01, 100), shift=st.floats(-5, 5), unit=st.floats(1e-6, 1e3),
       lr_unit=st.floats(1e-6, 1e2))  # fmt: skip
def test_units_and_offsets_change_nothing(seed, scale, shift, unit, lr_unit):
    lr = lr_of(T, "wsd")
    y = losses(T, lr, noise=2e-3, seed=seed)
    ours = fit_annealing(T, lr, y).predict([1e8, 2e8], [1.0, 0.1])
    theirs = fit_annealing(T * unit, lr * lr_unit, scale * (y + shift)).predict(
        np.array([1e8, 2e8]) * unit, np.array([1.0, 0.1]) * lr_unit
    )
    assert theirs[0] / scale - shift == pytest.approx(ours[0], abs=1e-4)
    assert theirs[1] / scale == pytest.approx(ours[1], rel=1e-2)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.floats(1, 1e12), st.floats(0, 10), st.floats(0, 20) | st.floats()), max_size=20),
    st.integers(1, 3),
)
def test_any_input_gives_a_status_and_ok_means_numbers(reports, runs):
    t, lr, y = (np.array(v, float) for v in (zip(*reports, strict=True) if reports else ((), (), ())))
    if t.size and not lr.max() > 0:
        lr[0] = 1.0
    fit = fit_annealing(t, lr, y, run=np.arange(t.size) % runs)
    loss, stderr = fit.predict([1.0, 1e13], [1.0, 0.5])
    assert fit.status in {"ok", "not_determined", "too_few", "not_falling", "diverged"}
    assert np.isfinite([*loss, *stderr]).all() == (fit.posterior is not None)


def test_what_cannot_be_fitted_is_said_to_be_so():
    assert fit_annealing([], [], []).status == "too_few"
    assert fit_annealing(T, np.ones(T.size), 2 + T / 1e8).status == "not_falling"
    assert fit_annealing(T, np.ones(T.size), np.append(np.ones(T.size - 1), math.inf)).status == "diverged"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((T, -np.ones(T.size), T), "lr must be"),
        ((T, np.zeros(T.size), T), "all LRs are 0"),
        ((-T, np.ones(T.size), T), "tokens must be"),
        ((T, np.ones(3), T), "one entry"),
    ],
)
def test_bad_input_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        fit_annealing(*arguments)


def test_bad_paths_are_refused():
    fit = fit_annealing(T, np.ones(T.size), losses(T, np.ones(T.size)))
    for path, words in ((([2, 1], [1, 1]), "in order"), (([1], [-1]), "lr must be"), (([1, 2], [1]), "one entry")):
        with pytest.raises(InputError, match=words):
            fit.predict(*path)
    with pytest.raises(InputError, match="unknown run"):
        fit.predict([1.0], [1.0], run="other")
    assert pickle.loads(pickle.dumps(fit)).predict([1e8], [1.0])[0] == fit.predict([1e8], [1.0])[0]


RESPONSES = {
    "immediate": lambda steps, area, lam: np.ones(steps.size),
    "exponential": lambda steps, area, lam: 1 - np.exp(-area / lam),
    "stretched": lambda steps, area, lam: 1 - np.exp(-((steps / lam) ** 0.6)),
    "power": lambda steps, area, lam: 1 - (1 + area / lam) ** -0.8,
    "two speeds": lambda steps, area, lam: 1 - 0.5 * np.exp(-steps / lam) - 0.5 * np.exp(-steps / (8 * lam)),
}
"""Tokens and LR area since a fall, and the delay -> share of the fall that is taken away. Two are on the fit's grid."""


def made_up(response, p, alpha, b, lam):
    """A law of a run with a gain of 0.1 nats in an e-fold of tokens at 1e8: (end, decay) -> tokens, LRs, losses."""

    def run(end, kind, decay):
        t = np.linspace(0.0, end, 801)[1:]
        h, width = lr_of(t, kind, end=end, decay=decay), t[0]
        progress, area, taken = np.cumsum(h**p) * width / 1e8, np.cumsum(h) * width, np.zeros(t.size)
        for at in np.flatnonzero(np.diff(h) < 0):
            fall = h[at] - h[at + 1]
            taken[at:] += fall * RESPONSES[response](t[at:] - t[at], area[at:] - area[at], lam)
        return t, h, 2 + 0.1 / alpha * progress**-alpha - 0.1 * b * taken

    return run


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3])
def test_errors_of_what_other_decays_give_are_honest_however_little_the_losses_scatter(noise):
    """A law that is none of the fit's: with little noise it is what the law misses that an error comes from."""
    z = []
    for number, response in enumerate(RESPONSES):
        rng = np.random.default_rng([7, number])
        for p in (0.0, 1.0):
            law = made_up(response, p, rng.uniform(0.25, 0.5), rng.uniform(0.5, 6), 1e8 * rng.uniform(0.01, 0.1))
            decay = rng.uniform(0.15, 0.5)
            t, h, y = (one[7::8] for one in law(1e8, "wsd", decay))
            fit = fit_annealing(t, h, y + rng.normal(0, noise, y.size))
            for end, kind, fraction in ((2e8, "wsd", decay), (1e8, "sqrt", 0.3), (1e8, "constant", decay)):
                path, lrs, truth = law(end, kind, fraction)
                loss, stderr = fit.predict(path[19::20], lrs[19::20])
                z.append((loss[-1] - truth[-1]) / stderr[-1])
    assert np.sqrt(np.mean(np.square(z))) < 1.1
    assert np.abs(z).max() < 3


@settings(deadline=None, max_examples=5)
@given(end=st.floats(1.2, 3), decay=st.floats(0.1, 0.5), drop=st.floats(0.05, 0.4), points=st.integers(3, 30))
def test_how_many_points_a_path_has_changes_nothing(end, decay, drop, points):
    """Not even whether it is the fitted run's own: between the points of a short path nothing else is assumed."""
    lr = lr_of(T, "wsd")
    fit = fit_annealing(T, lr, losses(T, lr, drop=drop, noise=1e-3))
    few = np.append(1e6, np.linspace(1e8 * end * (1 - decay), 1e8 * end, points))
    many = np.union1d(few, np.linspace(1e6, 1e8 * end, 150))
    ends = [[one[-1] for one in fit.predict(path, lr_of(path, "wsd", end=1e8 * end, decay=decay))]
            for path in (few, many)]  # fmt: skip
    assert ends[0][0] == pytest.approx(ends[1][0], abs=0.1 * ends[1][1])
    assert ends[0][1] == pytest.approx(ends[1][1], rel=0.05)


def test_the_floor_follows_the_lr_with_a_delay():
    path = _floor.Path(tokens=np.array([1.0, 50.0, 50.001, 60.0]), lr=np.array([1.0, 1.0, 0.5, 0.5]))
    exponential, lam = math.inf, 10.0
    responses = np.array([[1, 0, 1, lam, exponential], [0.5, 0, 1, 1e-3, exponential], [1, 0, 1, lam, 0.5]], float)
    progress, floor = _floor.integrate(path, responses)
    assert progress[-1] == pytest.approx([1, 50, 50.001, 55.0], rel=1e-4)  # p = 1: the area
    assert floor[0] == pytest.approx([1, 1, 1, 0.5 + 0.5 * math.exp(-0.5)], rel=1e-3)
    assert floor[1, -1] == pytest.approx(math.sqrt(0.5))
    assert floor[2] == pytest.approx([1, 1, 1, 0.5 + 0.5 * (1 + 0.5) ** -0.5], rel=0.01)  # 5 of LR times tokens, lam 10


@settings(deadline=None, max_examples=6)
@given(drop=st.floats(0.0, 0.4), gamma=st.floats(0.25, 0.6), seed=st.integers(0, 99))
def test_a_cosine_alone_does_not_claim_to_know_a_constant_lr(drop, gamma, seed):
    """Progress and decay fall together there: the error lies inside the interval, and the status says so."""
    lr = lr_of(T, "cosine")
    fit = fit_annealing(T, lr, losses(T, lr, drop=drop, gamma=gamma, noise=1e-3, seed=seed))
    assert fit.status == "not_determined"
    flat = lr_of(T, "constant")
    truth = losses(T, flat, drop=drop, gamma=gamma)
    loss, stderr = fit.predict(T, flat)
    assert (np.abs(loss - truth)[0.2 * T[-1] <= T] < 3 * stderr[0.2 * T[-1] <= T]).all()


def test_a_constant_run_beside_a_cosine_tells_the_two_apart():
    flat, lr = lr_of(T, "constant"), lr_of(T, "cosine")
    y = np.concatenate([losses(T, flat), losses(T, lr)])
    fit = fit_annealing(np.tile(T, 2), np.concatenate([flat, lr]), y, run=np.repeat(["flat", "cosine"], T.size))
    assert fit.ok
    # The end of a run, along its own path, is as sure as it was measured.
    assert fit.predict(T, lr, run="cosine")[1][-1] < 0.01
