import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import DATA

from raylr.analysis import Decay, decayed_optimum, fit_annealing, fit_optimum
from raylr.analysis.curves.annealing import AnnealingFit
from raylr.errors import InputError

LRS = (2.5e-4, 5e-4, 1e-3, 2e-3)
T = np.linspace(2e8, 1e10, 40)


def loss(lr, tokens, now):
    """Progress by the LR, and a floor that falls with the LR: without it a higher LR is best."""
    return 2 + 0.5 * (tokens / 1e10 * (lr / 1e-3) ** 0.7) ** -0.35 + 0.4 * (lr / 1e-3) ** 0.5 * now


@cache
def annealing(decayed=(1e-3, 5e-4), fraction=0.2):
    runs = [(T, np.full(T.size, lr), loss(lr, T, 1.0)) for lr in LRS]
    for lr in decayed:
        now = Decay(fraction=fraction).factor(T, T[-1])
        runs.append((T, lr * now, loss(lr, T, now)))
    labels = np.repeat(np.arange(len(runs)), T.size)
    return fit_annealing(*(np.concatenate([run[i] for run in runs]) for i in range(3)), run=labels)


def best(now, tokens=1e10):
    x = np.linspace(math.log(1e-4), math.log(1e-2), 2001)
    return float(np.exp(x[np.argmin(loss(np.exp(x), tokens, now))]))


def test_the_optimum_after_a_decay_is_predicted_from_stable_curves_and_two_branches():
    fit = annealing()
    assert fit.ok
    found = decayed_optimum(fit, Decay(fraction=0.2), 1e10, LRS)
    stable = fit_optimum(LRS, [loss(lr, 1e10, 1.0) for lr in LRS])
    truth = [loss(lr, 1e10, 0.0) for lr in LRS]
    assert found.lr > 1.3 * stable.lr
    assert (np.abs(found.losses - truth) < 3 * found.stderr).all()
    low, high = found.interval()
    assert low <= best(0.0) or found.status == "edge_high"
    assert high > found.lr > low
    assert not found.measured.any()
    assert "4 of 4 losses are predicted" in found.message


def test_measured_losses_are_taken_as_they_are():
    losses = [3.1, 3.0, 2.98, 3.05]
    found = decayed_optimum(annealing(), Decay(), 1e10, LRS, measured=list(zip(LRS, losses, strict=True)))
    alone = fit_optimum(LRS, losses)
    assert (found.lr, found.status, found.interval()) == (alone.lr, alone.status, alone.interval(0.9))
    assert found.stderr.tolist() == [0.0] * 4
    some = decayed_optimum(annealing(), Decay(), 1e10, LRS, measured=[(4e-3, math.nan), (1e-3, 2.9)])
    assert some.lrs.tolist() == [*LRS, 4e-3]
    assert some.losses[2] == 2.9
    assert math.isnan(some.losses[4])
    assert some.interval()[1] <= 4e-3


def test_more_branches_never_widen_the_losses_much():
    decay = Decay(fraction=0.2)
    one = decayed_optimum(annealing((1e-3,)), decay, 1e10, LRS).stderr
    two = decayed_optimum(annealing((1e-3, 2.5e-4)), decay, 1e10, LRS).stderr
    assert two.mean() < 1.05 * one.mean()


def test_without_a_branch_the_decay_is_not_determined():
    found = decayed_optimum(annealing(()), Decay(), 1e10, LRS)
    assert found.status == "not_determined"
    assert not found.ok
    assert found.interval()[0] < found.lr < found.interval()[1]


@pytest.mark.parametrize("error", [0.01, 0.05])
def test_the_interval_covers_optima_whose_losses_err_in_shape_and_not_in_tilt_alone(error):
    """The error grows with the LR, as that of a long decay does: high LRs may lose or win by far more than low ones."""
    x = np.log(LRS)
    dense = np.linspace(x[0] - 1.5, x[-1] + 1.5, 601)

    def middle(x):
        return 3 + 0.03 * (x - math.log(7e-4)) ** 2

    def shape(x):
        return np.maximum(x - math.log(3e-4), 0.0) ** 2

    covariance = error**2 * np.outer(shape(x), shape(x)) + 1e-10 * np.eye(4)
    known = SimpleNamespace(
        posterior=SimpleNamespace(gain=0.1), status="ok", message="", ends=lambda paths: (middle(x), covariance)
    )
    low, high = decayed_optimum(known, Decay(fraction=0.6), 1e10, LRS).interval()
    errors = error * np.random.default_rng(1).standard_normal(400)
    optima = np.exp([dense[np.argmin(middle(dense) + one * shape(dense))] for one in errors])
    assert np.mean((low <= optima) & (optima <= high)) >= 0.88
    assert (high == math.inf) == (np.mean(optima > 1.01 * LRS[-1]) > 0.05)


def test_without_a_fit_there_is_no_prediction():
    empty = fit_annealing([], [], [])
    found = decayed_optimum(empty, Decay(), 1e10, LRS)
    assert (found.status, found.interval()) == ("too_few", (0.0, math.inf))
    assert math.isnan(found.lr)
    assert decayed_optimum(empty, Decay(), 1e10, []).message == "no runs"
    measured = decayed_optimum(empty, Decay(), 1e10, [], measured=list(zip(LRS, (3.1, 3, 2.98, 3.1), strict=True)))
    assert measured.lr > 0


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="tokens"):
        decayed_optimum(annealing(), Decay(), 0.0, LRS)
    with pytest.raises(InputError, match="lrs"):
        decayed_optimum(annealing(), Decay(), 1e10, [-1.0])


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 0.9), st.sampled_from(["linear", "cosine", "sqrt"]), st.floats(0, 0.3))
def test_ends_agree_with_single_predictions(fraction, shape, ratio):
    fit, decay = annealing(), Decay(shape=shape, fraction=fraction, final_lr_ratio=ratio)
    paths = [decay.path(lr, 2e10) for lr in LRS]
    losses, spread = fit.ends(paths)
    for i, path in enumerate(paths):
        mean, sd = fit.predict(*path)
        assert losses[i] == pytest.approx(mean[-1], rel=1e-9)
        assert math.sqrt(spread[i, i]) == pytest.approx(sd[-1], rel=1e-6)
    assert np.linalg.eigvalsh(spread).min() > -1e-12
    difference = spread[1, 1] + spread[2, 2] - 2 * spread[1, 2]
    assert difference < spread[1, 1] + spread[2, 2]  # neighbours share most of their errors


def test_ends_without_a_fit():
    losses, spread = AnnealingFit(status=annealing().status, message="").ends([Decay().path(1e-3, 1e9)])
    assert math.isnan(losses[0])
    assert math.isinf(spread[0, 0])


@pytest.mark.skipif(not (DATA / "wsd124m_decayed.csv").exists(), reason=f"no {DATA}/wsd124m_decayed.csv")
@pytest.mark.parametrize("fraction", [0.2, 0.6])
def test_the_124m_table(fraction):
    """Two branches at 25,000 steps; the best LRs at 50,000 are 1.0e-3 and 1.6e-3, that of the stable loss 2.9e-4."""
    stable, decayed = (pd.read_csv(DATA / f"wsd124m_{name}.csv") for name in ("stable", "decayed"))
    parts = [(stable["step"], stable["lr"], stable["val_loss"], stable["lr"])]
    rows = decayed[(decayed["shape"] == "linear") & np.isclose(decayed["decay_frac"], fraction)]
    ends = rows.set_index(["total_steps", "lr"])["val_loss"]
    for lr in (5e-4, 2e-3):
        t, h = Decay(fraction=fraction).path(lr, 25000)
        parts.append((t, h, np.append(np.full(t.size - 1, np.nan), ends[25000, lr]), np.full(t.size, -lr)))
    t, h, y, run = (np.concatenate([np.asarray(part[i], float) for part in parts]) for i in range(4))
    found = decayed_optimum(fit_annealing(t, h, y, run=run), Decay(fraction=fraction), 50000, [1e-4, 5e-4, 1e-3, 2e-3])
    low, high = found.interval()
    truth = {0.2: 9.56e-4, 0.6: 1.54e-3}[fraction]
    assert low < truth < high
    assert abs(math.log(found.lr / truth)) < {0.2: 0.25, 0.6: 0.45}[fraction]
    nearest = min(ends[50000].index, key=lambda lr: abs(math.log(lr / found.lr)))
    assert ends[50000, nearest] < 1.001 * ends[50000].min()
