import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.comparison import (
    FALSE_BETTER,
    NOTHING,
    Arm,
    ArmKind,
    ArmRun,
    Spent,
    compare_arms,
    decision,
    mean_curve,
    seeds_needed,
)
from raylr.analysis.laws.compare import compare_runs
from raylr.errors import InputError


def arms_of(*losses, **options):
    return [
        Arm(name=name, runs=[ArmRun(loss=loss) for loss in each], **options)
        for name, each in zip("abcdef", losses, strict=False)
    ]


@pytest.mark.parametrize("sds", [(1, 1, 1), (1, 1, 2), (0.5, 1, 1, 2)])
def test_equal_arms_are_rarely_called_different_and_never_best(sds):
    rng, false, best = np.random.default_rng(0), [], []
    for _ in range(400):
        found = compare_arms(arms_of(*(3 + 0.01 * sd * rng.standard_normal(3) for sd in sds)))
        false.append(any(one.better for one in found.pairs))
        best.append(found.best is not None)
    assert np.mean(false) <= 1.2 * FALSE_BETTER
    assert np.mean(best) <= 0.03


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_equal_arms_with_the_same_seeds_are_rarely_called_different(rho):
    rng, false = np.random.default_rng(0), []
    for _ in range(120):
        seed = math.sqrt(rho) * rng.standard_normal(3)
        losses = 3 + 0.01 * (seed + math.sqrt(1 - rho) * rng.standard_normal((3, 3)))
        arms = [
            Arm(name=f"{k}", runs=[ArmRun(loss=x, seed=s) for s, x in enumerate(row)]) for k, row in enumerate(losses)
        ]
        false.append(any(one.better for one in compare_arms(arms).pairs))
    assert np.mean(false) <= 1.2 * FALSE_BETTER


def test_a_clear_order_is_found_with_its_probability():
    found = compare_arms(arms_of([3.95, 3.96, 3.94], [3.81, 3.80, 3.815], [3.88, 3.885, 3.89]))
    assert (found.best, found.status) == ("b", "ok")
    assert found.probability > found.decided
    assert found.message == "b is better than a and c"
    assert [one.better for one in found.pairs] == ["b", "c", "b"]
    assert found.pair("c", "b").difference == pytest.approx(found.pair("b", "c").difference * -1)
    assert found.pair("c", "b").better == "b"
    assert found.pair("a", "nowhere") is None


def test_what_is_not_told_apart_is_said():
    found = compare_arms(arms_of([3.95, 3.96, 3.94], [3.81, 3.80, 3.815], [3.812, 3.805, 3.82]))
    assert (found.best, found.status) == (None, "not_determined")
    assert found.message == "b and c cannot be distinguished; a: worse than one of them"
    assert 0.5 < found.probability < found.decided


def test_the_noise_of_other_arms_serves_an_arm_with_one_run():
    single = [[3.9], [3.8]]
    assert compare_arms(arms_of(*single)).status == "too_few"
    noisy = compare_arms(arms_of(*single, [3.7, 3.705, 3.695, 3.70, 3.702]))
    assert noisy.pair("a", "b").better == "b"
    assert noisy.pair("a", "b").seed_sd == pytest.approx(np.std([3.7, 3.705, 3.695, 3.70, 3.702], ddof=1))
    assert compare_arms(arms_of(*single), seed_sd=0.005).best == "b"


def test_an_arm_without_runs_takes_no_part_and_all_diverged_is_no_answer():
    none = compare_arms([*arms_of([3.0, 3.01]), Arm(name="empty")])
    assert (none.status, len(none.arms), none.pairs) == ("too_few", 1, [])
    assert compare_arms([]).status == "too_few"
    lost = compare_arms(arms_of([math.nan] * 2, [math.nan] * 2))
    assert (lost.status, lost.best) == ("diverged", None)
    part = compare_arms(arms_of([math.nan] * 3, [3.0, 3.1, 3.05]))
    assert part.best == "b"
    assert (part.arms[0].diverged, part.arms[0].sd) == (3, pytest.approx(math.nan, nan_ok=True))


def test_two_arms_of_one_name_are_refused():
    with pytest.raises(InputError, match="one name"):
        compare_arms([*arms_of([3.0]), *arms_of([3.1])])


def test_more_arms_are_decided_more_strictly():
    values = [decision(arms) for arms in range(1, 7)]
    assert values == sorted(values)
    for arms in range(2, 7):
        pairs = len(list(combinations(range(arms), 2)))
        assert 2 * (1 - decision(arms)) * pairs <= max(FALSE_BETTER, 0.05) + 1e-12


@given(
    losses=st.lists(
        st.lists(st.one_of(st.floats(1, 9), st.just(math.nan)), min_size=0, max_size=4), min_size=0, max_size=4
    )
)
def test_no_arm_is_better_against_its_own_measurements(losses):
    found = compare_arms(arms_of(*losses))
    means = {arm.name: arm.mean for arm in found.arms}
    lost = {arm.name: arm.diverged / len(arm.runs) for arm in found.arms}
    for one in found.pairs:
        if one.better:
            other = one.b if one.better == one.a else one.a
            assert lost[one.better] < lost[other] or means[one.better] < means[other]
    if found.best is not None:
        assert all(one.better == found.best for one in found.pairs if found.best in (one.a, one.b))
    assert found.message


def test_curves_are_averaged_where_all_runs_were_measured():
    tokens = np.array([1.0, 2.0, 3.0])
    runs = [ArmRun(loss=1.0, tokens=tokens, curve=np.array([3.0, 2.0, 1.0]) + shift) for shift in (0.0, 0.2)]
    runs.append(ArmRun(loss=math.nan, tokens=tokens, curve=np.array([3.0, math.nan, math.nan])))
    grid, mean, low, high = mean_curve(Arm(name="a", runs=runs))
    np.testing.assert_allclose(grid, tokens)
    np.testing.assert_allclose(mean, [3.1, 2.1, 1.1])
    np.testing.assert_allclose(high - low, 0.2)
    other = ArmRun(loss=1.0, tokens=np.array([1.5, 2.5]), curve=np.array([2.5, 1.5]))
    grid, mean, low, high = mean_curve(Arm(name="a", runs=[runs[0], other]))
    np.testing.assert_allclose(grid, [1.5, 2.0, 2.5])
    np.testing.assert_allclose(low, high)
    assert mean_curve(Arm(name="a"))[0].size == 0


@pytest.mark.parametrize("difference", [1.0, 2.0])
def test_the_seeds_that_are_advised_decide_in_the_share_that_is_said(difference):
    rng = np.random.default_rng(0)
    pair = replace(compare_runs([0.0, 1.0], [0.0, 1.0]), difference=difference, seed_sd=1.0)
    seeds = seeds_needed(pair, 0.975)
    runs = [
        compare_runs(rng.standard_normal(seeds), difference + rng.standard_normal(seeds)).better is not None
        for _ in range(300)
    ]
    assert 0.7 < np.mean(runs) < 0.88
    assert seeds_needed(replace(pair, difference=0.0), 0.975) is None
    assert seeds_needed(replace(pair, seed_sd=math.nan), 0.975) is None


def test_costs_add_up():
    assert Spent(tokens=1.0, flops=2.0) + NOTHING == Spent(tokens=1.0, flops=2.0)
    assert compare_arms(arms_of([3.0, 3.1], [3.2, 3.3], kind=ArmKind.SWEPT)).arm(ArmKind.SWEPT).name == "a"
    assert compare_arms([]).arm(ArmKind.FITTED) is None
