import math

import numpy as np
import pytest

from raylr.analysis import compare_runs
from raylr.errors import InputError


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [(3, 3, {}), (2, 1, {}), (1, 1, {"seed_sd": 0.01}), (1, 1, {"seed_sd_dof": 5}), (2, 2, {"seed_sd_dof": 4})],
)
def test_equal_settings_are_rarely_called_different_and_intervals_cover(a, b, options):
    rng, better, inside, sure = np.random.default_rng(0), [], [], []
    for _ in range(1000):
        known = dict(options)
        if "seed_sd_dof" in known:
            known["seed_sd"] = 0.01 * math.sqrt(rng.chisquare(known["seed_sd_dof"]) / known["seed_sd_dof"])
        result = compare_runs(3 + 0.01 * rng.standard_normal(a), 3 + 0.01 * rng.standard_normal(b), **known)
        better.append(result.better is not None)
        inside.append(result.low <= 0 <= result.high)
        sure.append(result.probability)
    assert np.mean(better) <= 0.12
    assert 0.87 <= np.mean(inside) <= 0.93
    assert np.mean(sure) == pytest.approx(0.5, abs=0.03)


def test_a_large_difference_is_seen_in_its_direction():
    result = compare_runs([3.00, 3.01], [2.90, 2.91])
    assert result.better == "b"
    assert result.difference == pytest.approx(0.1)
    assert result.probability < 0.05
    assert compare_runs([2.90, 2.91], [3.00, 3.01]).better == "a"


def test_single_runs_need_a_noise_from_elsewhere():
    assert compare_runs([3.0], [3.1]).status == "too_few"
    assert "seed_sd" in compare_runs([3.0], [3.1]).message
    assert compare_runs([3.0], [3.1], seed_sd=0.01).better == "a"
    assert compare_runs([3.0], [3.01], seed_sd=0.01).status == "not_determined"


def test_a_setting_that_diverges_loses():
    assert compare_runs([3.0, math.nan], [3.5, 3.6]).better == "b"
    assert compare_runs([math.inf], [math.nan]).status == "diverged"


def test_the_same_losses_decide_nothing():
    result = compare_runs([3.0, 3.0], [3.0, 3.0])
    assert (result.status, result.probability) == ("not_determined", 0.5)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [(([], [3.0]), {}, "no runs"), (([3.0], [3.0]), {"seed_sd": -1}, "seed_sd"),
     (([3.0], [3.0]), {"level": 2}, "level"), (([3.0], [3.0]), {"seed_sd": 1, "seed_sd_dof": 0}, "dof")],
)  # fmt: skip
def test_bad_input_is_refused(arguments, options, words):
    with pytest.raises(InputError, match=words):
        compare_runs(*arguments, **options)
