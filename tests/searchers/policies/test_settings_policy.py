"""What a search costs the driver beside its fits, counted in calls of functions and not in time."""

import cProfile
import pstats

import pytest

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
