"""What a search costs the driver beside its fits, counted in calls of functions and not in time."""

import cProfile
import math
import pstats

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import Decay
from raylr.searchers import QuadraticPolicy, RunEnd, Setting
from raylr.searchers.policies.branching import BranchPolicy
from raylr.searchers.policies.cell_search import CellSearch
from raylr.searchers.policies.policy import Point

RUNS = 4
"""Runs of a setting."""


@pytest.fixture
def no_fits(monkeypatch):
    """Rounds of two LRs that follow from nothing: what is left is the search for what comes next."""

    def plan(search):
        left = search.max_trials - search.tried()
        places = [search.low + 0.1 * (len(search.runs) + i) for i in range(min(2, left))]
        return left <= 0, places

    monkeypatch.setattr(CellSearch, "_round", plan)
    moments = {"center": (-6.0, 0.1), "curvature": (-3.0, 0.3), "skew": (0.0, 0.2)}
    monkeypatch.setattr(CellSearch, "moments", lambda search: moments)


def quadratic(count, **options):
    cells = [Setting(name=f"S{i:04}", params=1e6 + i, tokens=1e6, batch=2.0 ** (i % 5)) for i in range(count)]
    return QuadraticPolicy(cells, lr_range=(1e-4, 1e-1), max_trials=RUNS, **options)


def in_turn(policy):
    """A search that is restored: each run ends when it is suggested."""
    while (found := policy.ask()) is not None:
        policy.report(found.run, 1e6, 3.0)
        policy.tell(found.run, RunEnd.COMPLETED, 3.0)


def side_by_side(policy):
    """As many runs as there can be, which end in another order than they began."""
    while not policy.finished:
        going = []
        while (found := policy.ask()) is not None:
            going.append(found)
        for found in reversed(going):
            policy.tell(found.run, RunEnd.COMPLETED, 3.0)


def decayed(policy):
    policy = BranchPolicy(policy, [5e5, 1e6], Decay(fraction=0.2), predict=False)
    while not policy.finished:
        going = []
        while (found := policy.ask()) is not None:
            going.append(found)
        for found in going:
            policy.tell(found.part, RunEnd.COMPLETED, 3.0)
            policy.ended(found.part.run.setting)


def calls(work, make, count):
    """Calls of functions per setting, Python's own included."""
    with cProfile.Profile() as profile:
        work(make(count))
    return sum(stats[1] for stats in pstats.Stats(profile).stats.values()) / count


@pytest.mark.parametrize("work", [in_turn, side_by_side, decayed])
def test_the_cost_of_a_search_is_linear_in_its_settings(no_fits, work):
    few, many = (calls(work, lambda n: quadratic(n, settings_at_once=n), count) for count in (40, 320))
    assert many < 1.1 * few


@pytest.mark.parametrize("work", [in_turn, side_by_side])
def test_it_is_also_where_a_few_settings_are_searched_at_a_time(no_fits, work):
    few, many = (calls(work, quadratic, count) for count in (40, 320))
    assert many < 1.1 * few


def test_it_is_also_where_each_setting_has_points_to_begin_with(no_fits):
    def make(count):
        points = [Point(lr=1e-3 * (1 + i), setting=f"S{n:04}") for n in range(count) for i in range(3)]
        return quadratic(count, settings_at_once=count, points=points)

    few, many = (calls(in_turn, make, count) for count in (40, 320))
    assert many < 1.1 * few


@pytest.mark.parametrize(("at_once", "groups"), [((2, 5, 30), [2, 7, 37, 40]), ((9,), [9, 18, 27, 36, 40])])
def test_each_group_has_its_own_size(no_fits, at_once, groups):
    policy, begun = quadratic(40, settings_at_once=at_once), []
    while not policy.finished:
        going = []
        while (found := policy.ask()) is not None:
            going.append(found)
        begun.append(len({found.run.setting for found in going} | set(policy._searches)))
        for found in going:
            policy.tell(found.run, RunEnd.COMPLETED, 3.0)
    assert list(dict.fromkeys(begun)) == groups
    assert all(policy.ended(one) for one in policy.settings)


def test_a_group_that_leads_goes_on_beside_the_next(no_fits):
    policy = quadratic(9, settings_at_once=(3, 6), lead=2)
    first = [policy.ask() for _ in range(6)]
    assert policy.ask() is None  # three settings, a round of two
    for found in first[:-1]:
        policy.tell(found.run, RunEnd.COMPLETED, 3.0)
    assert {policy.ask().run.setting for _ in range(4)} == {"S0000", "S0001"}  # the last of the first round is awaited
    assert policy.ask() is None
    policy.tell(first[-1].run, RunEnd.COMPLETED, 3.0)
    later = [policy.ask() for _ in range(14)]
    assert {found.run.setting for found in later} == {f"S{i:04}" for i in range(2, 9)}


@pytest.mark.parametrize("lead", [None, 3])
@given(order=st.randoms(use_true_random=False))
@settings(max_examples=2)
def test_what_is_tried_follows_from_the_results_and_not_from_the_order_in_which_runs_end(lead, order):
    def tried(choose):
        cells = [Setting(name=f"S{i}", params=1e6 * 2**i, tokens=1e6) for i in range(6)]
        policy = QuadraticPolicy(
            cells, lr_range=(1e-4, 1e-1), max_trials=5, settings_at_once=(2, 4), batch=(3, 1), lead=lead
        )
        going, lrs = [], set()
        while not policy.finished:
            while (found := policy.ask()) is not None:
                going.append(found)
                lrs.add((found.run, found.lr))
            found = going.pop(choose(len(going)))
            off = math.log(found.lr / 2e-3) + 0.3 * int(found.run.setting[1:])
            policy.tell(found.run, RunEnd.COMPLETED, 3 + 0.03 * off**2 + 0.002 * math.sin(1e4 * off))
        return lrs

    assert tried(order.randrange) == tried(lambda count: 0)
