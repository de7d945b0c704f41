"""Losses at one place are averaged by what each is worth."""

import math

import numpy as np
import pytest

from raylr.analysis.optimum import fit_optimum, fit_response
from raylr.analysis.optimum._losses import weights
from raylr.analysis.status import Status

LRS = (1e-3, 2e-3, 4e-3, 8e-3)


def parabola(lr):
    return 3.0 + 0.05 * math.log(lr / 2.5e-3) ** 2


@pytest.mark.parametrize("seed", range(8))
def test_a_predicted_loss_beside_a_measured_one_changes_little(seed):
    rng = np.random.default_rng(seed)
    at = LRS[seed % len(LRS)]
    losses = [parabola(lr) + 1e-3 * rng.standard_normal() for lr in LRS]
    error = 0.02 * 10 ** rng.uniform(0, 1)
    guess = parabola(at) + error * rng.standard_normal()
    alone = fit_optimum(LRS, losses, stderr=[1e-3] * 4)
    both = fit_optimum([*LRS, at], [*losses, guess], stderr=[*[1e-3] * 4, error])
    assert alone.lr_low < both.lr < alone.lr_high
    assert both.lr_high / both.lr_low < 1.05 * alone.lr_high / alone.lr_low


def test_a_certain_loss_beside_a_predicted_one_shows_that_the_losses_differ():
    """Of four predicted losses one is known badly; run, it differs from the others."""
    lrs, losses = [1.0, 2.9, 1.5, 2.0], [3.2273, 3.2211, 3.2179, 3.2185]
    stderr = [0.02, 0.002, 0.002, 0.002]
    assert fit_optimum(lrs, losses, stderr=stderr, lr_range=(0.03, 30)).status is Status.FLAT
    run = fit_optimum([*lrs, 1.0], [*losses, 3.2273], stderr=[*stderr, 0.0], lr_range=(0.03, 30))
    assert run.status is not Status.FLAT


def test_equal_errors_are_averaged_equally():
    assert weights(np.full(5, 0.3)).tolist() == [1.0] * 5
    assert weights(np.zeros(3)).tolist() == [1.0] * 3
    assert weights(np.empty(0)).size == 0
    found = weights(np.array([0.0, 1.0]))
    assert 1 < found[0] / found[1] < 101


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_loss_does_not_matter(scale):
    error = np.array([0.0, 1e-3, 2e-2, 5e-3])
    assert weights(scale * error) == pytest.approx(weights(error), rel=1e-12)


def test_places_of_several_axes_are_averaged_by_their_errors():
    rng = np.random.default_rng(3)
    lr, wd = 10 ** rng.uniform(-4, -2, 12), 10 ** rng.uniform(-2, 0, 12)
    loss = 3 + 0.05 * np.log(lr / 1e-3) ** 2 + 0.02 * np.log(wd / 0.1) ** 2
    axes, ranges = {"lr": lr, "wd": wd}, {"lr": (1e-4, 1e-2), "wd": (1e-2, 1.0)}
    alone = fit_response(axes, loss, stderr=np.full(12, 1e-3), ranges=ranges)
    more = {name: np.append(values, values[:3]) for name, values in axes.items()}
    guesses = np.append(loss, loss[:3] + np.array([0.3, -0.3, 0.3]))
    both = fit_response(more, guesses, stderr=np.append(np.full(12, 1e-3), np.full(3, 0.3)), ranges=ranges)
    for name in axes:
        assert math.log(both.at[name] / alone.at[name]) == pytest.approx(0, abs=0.05)
