import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("runs", [2, 3])
def test_equal_settings_with_the_same_seeds_are_rarely_called_different(rho, runs):
    rng, better, inside = np.random.default_rng(0), [], []
    for _ in range(250):
        seed = math.sqrt(rho) * rng.standard_normal(runs)
        a, b = (3 + 0.01 * (seed + math.sqrt(1 - rho) * rng.standard_normal(runs)) for _ in range(2))
        result = compare_runs(a, b, seeds=(range(runs), range(runs)))
        better.append(result.better is not None)
        inside.append(result.low <= 0 <= result.high)
    assert np.mean(better) <= 0.1
    assert np.mean(inside) >= 0.83  # of the 90 % intervals: worst at rho = 0, which the runs cannot exclude


def test_seeds_that_move_both_settings_alike_make_a_small_difference_visible():
    rng, alone, paired = np.random.default_rng(0), [], []
    for _ in range(60):
        seed = rng.standard_normal(8)
        a, b = (seed + shift + 0.1 * rng.standard_normal(8) for shift in (0.0, 0.3))
        alone.append(compare_runs(a, b).better == "a")
        results = compare_runs(a, b, seeds=(range(8), range(8)))
        paired.append(results.better == "a")
        assert results.correlation > 0.5
    assert np.mean(alone) < 0.1
    assert np.mean(paired) > 0.9


RUNS = st.lists(
    st.tuples(st.floats(2, 4).map(lambda x: round(x, 4)), st.one_of(st.none(), st.integers(0, 4))),
    min_size=1,
    max_size=5,
)


@given(
    a=RUNS, b=RUNS, known=st.sampled_from([{}, {"seed_sd": 0.1}, {"seed_sd": 0.1, "seed_sd_dof": 3}]), data=st.data()
)
def test_pairing_depends_on_which_seeds_are_equal_alone(a, b, known, data):
    def compared(a, b):
        (x, first), (y, second) = zip(*a, strict=True), zip(*b, strict=True)
        return compare_runs(x, y, seeds=(first, second), **known)

    found = compared(a, b)
    again = compared(data.draw(st.permutations(a)), data.draw(st.permutations(b)))
    turned = compared(b, a).turned()
    named = compared(*([(loss, None if seed is None else seed + 7) for loss, seed in side] for side in (a, b)))
    for other in (again, turned, named):
        for key in ("difference", "low", "high", "probability", "correlation"):
            assert getattr(other, key) == pytest.approx(getattr(found, key), abs=1e-6, nan_ok=True)
    if found.better is not None:  # never against the means
        assert (found.better == "a") == (np.mean([x for x, _ in a]) < np.mean([y for y, _ in b]))
    assert 0 <= found.correlation < 1


@pytest.mark.parametrize(
    "seeds", [None, ([None] * 4, [None] * 4), ([0, 0, 1, 1], [0, 0, 1, 1]), (range(4), range(3, 7))]
)
def test_fewer_than_two_seeds_in_common_are_no_pairs(seeds):
    a, b = [3.0, 3.1, 3.05, 3.02], [3.02, 3.11, 3.07, 3.05]
    assert compare_runs(a, b, seeds=seeds) == compare_runs(a, b)


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


NAN = math.nan


def test_divergence_decides_where_it_is_no_accident():
    assert compare_runs([NAN] * 3, [3.5, 3.6, 3.4]).better == "b"
    assert compare_runs([3.5, 3.6, 3.4], [NAN] * 3).better == "a"
    once = compare_runs([3.0, NAN, 3.0], [3.5, 3.6, 3.5])
    assert (once.better, once.status) == (None, "not_determined")
    assert once.probability == pytest.approx(0.15416, abs=1e-4)  # the integral of the two posteriors, by scipy's quad
    assert "1 of 3 runs of a diverged, 0 of 3 of b" in once.message
    assert compare_runs([math.inf], [NAN]).status == "diverged"
    both = compare_runs([3.0, NAN], [NAN, 3.0])
    assert (both.better, both.probability) == (None, pytest.approx(0.5, abs=1e-3))


def test_runs_that_diverge_by_chance_are_rarely_called_different():
    rng, found = np.random.default_rng(1), []
    for _ in range(300):
        a, b = (np.where(rng.random(4) < 0.4, NAN, rng.normal(3, 0.01, 4)) for _ in "ab")
        found.append(compare_runs(a, b).better is not None)
    assert np.mean(found) <= 0.1


def test_copies_say_nothing_about_the_noise():
    assert compare_runs([3.0, 3.0, 3.0], [3.1, 3.1, 3.1]).status == "too_few"
    assert compare_runs([3.0, 3.0], [3.0, 3.0]).status == "too_few"
    assert compare_runs([3.0, 3.0], [3.1, 3.1], seed_sd=0.01).better == "a"


def test_a_stricter_probability_decides_less():
    a, b = [3.00, 3.01, 3.02], [3.04, 3.05, 3.02]
    sure = compare_runs(a, b).probability
    assert compare_runs(a, b, decided=sure - 1e-3).better == "a"
    assert compare_runs(a, b, decided=sure + 1e-3).better is None


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [(([], [3.0]), {}, "no runs"), (([3.0], [3.0]), {"seed_sd": -1}, "seed_sd"),
     (([3.0], [3.0]), {"level": 2}, "level"), (([3.0], [3.0]), {"decided": 0.5}, "decided"),
     (([3.0], [3.0]), {"seed_sd": 1, "seed_sd_dof": 0}, "dof"),
     (([3.0], [3.0]), {"seeds": ([0], [0, 1])}, "1 and 2 entries for 1 and 1 runs")],
)  # fmt: skip
def test_bad_input_is_refused(arguments, options, words):
    with pytest.raises(InputError, match=words):
        compare_runs(*arguments, **options)
