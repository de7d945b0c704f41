import math
from itertools import pairwise

import numpy as np
import pytest

from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.optimum.acquisition import APART
from raylr.analysis.runs import RunEnd
from raylr.searchers.policies.cell_search import CONFIRMED, CellSearch, readable


def cell(**kwargs):
    options = {
        "low": math.log(1e-4), "high": math.log(1e-1), "prior": OptimumPrior(), "tolerance": 1e-3, "lr_factor": 1.5,
        "max_trials": 8, "extend": False, "batch": 1,
    }  # fmt: skip
    return CellSearch(**(options | kwargs))


def loss(x):
    return 2.5 * (1 + 0.012 * (x - math.log(2e-3)) ** 2)


def end(run, value=None):
    run.loss = loss(run.log_lr) if value is None else value
    run.end = RunEnd.COMPLETED if math.isfinite(run.loss) else RunEnd.DIVERGED


def test_rounds_wait_for_all_of_their_trials():
    search = cell()
    first = []
    while search.next() is not None:
        first.append(search.start())
    assert len(first) == 2
    end(first[0])
    assert search.next() is None
    end(first[1])
    assert search.next() is not None


def test_a_batch_is_spread_out():
    search = cell(batch=3, tolerance=1e-9)
    while search.next() is not None:
        end(search.start())
        if len(search.runs) == 5:
            break
    lrs = sorted(r.log_lr for r in search.runs)
    assert min(b - a for a, b in pairwise(lrs)) >= APART / 2


def test_rounds_grow_when_there_are_many():
    search = cell(max_trials=400, tolerance=1e-12)
    sizes = []
    while search.next() is not None:
        sizes.append(len(search.queue))
        while search.queue:
            run = search.start()
            end(run, loss(run.log_lr) + 0.05 * math.sin(2e4 * run.log_lr))  # never known exactly, and not flat
    assert sum(sizes) == 400
    assert len(sizes) < 100
    assert search.finished


def test_after_diverged_trials_the_next_are_lower():
    search = cell()
    for _ in range(2):
        while search.next() is not None:
            search.start()
        tried = [r.log_lr for r in search.runs]
        for r in search.runs:
            end(r, math.nan)
        assert search.next() < min(tried) + 1e-9 or search.finished


def test_points_beyond_the_range_only_if_allowed():
    for extend in (False, True):
        search = cell(high=math.log(1e-3), extend=extend, tolerance=1e-9)
        while search.next() is not None:
            end(search.start())
        beyond = [r for r in search.runs if r.log_lr > math.log(1e-3) + 1e-9]
        assert bool(beyond) == extend


def test_asking_never_waits():
    search = cell()
    for _ in range(6):
        search.queue = [search.ask()]
        search.start()
    assert len({round(r.log_lr, 3) for r in search.runs[:2]}) == 2
    for r in search.runs:
        end(r)
    assert min(abs(search.ask() - r.log_lr) for r in search.runs) > APART / 2


def test_lrs_can_be_written_down():
    assert math.exp(readable(math.log(0.00123456))) == pytest.approx(0.001235, rel=1e-12)


@pytest.mark.parametrize("most", [3, 5, 6, 8])
def test_the_last_run_tries_an_answer_that_was_not_tried(most):
    rng = np.random.default_rng(most)
    for _ in range(4):
        at, skew = rng.uniform(-8, -4), rng.uniform(0, 1)
        search = cell(max_trials=most, tolerance=1e-12)
        answer = math.nan
        while search.next() is not None:
            if search.runs:
                answer = math.log(search.recommend().lr)
            run = search.start()
            u = run.log_lr - at
            end(run, 2.0 + 0.3 * u**2 + 0.1 * skew * u**3 / (1 + abs(u)))
        assert len(search.runs) == most
        assert min(abs(run.log_lr - answer) for run in search.runs) <= CONFIRMED


@pytest.mark.parametrize("seed", [8, 12, 16, 20])
def test_on_a_curve_with_kinks_the_answer_is_no_worse_than_the_best_lr_tried(seed):
    """Straight lines between scattered points of a parabola with a kink, beside a cliff: a sweep of a small network."""
    rng = np.random.default_rng(seed)
    at, steep = rng.uniform(math.log(1e-3), math.log(3e-2)), rng.uniform(1, 6)
    knots = np.linspace(math.log(1e-4), math.log(1e-1), 25) + rng.uniform(-0.1, 0.1)
    u = knots - knots[np.argmin(np.abs(knots - at))]
    heights = np.where(u < 0, 0.5 * u * u - 0.3 * u, 0.5 * steep * u) * np.exp(0.1 * rng.standard_normal(25))
    heights += 0.003 + np.where(u > 0.9, 3.0, 0.0)
    search = cell(tolerance=None, lr_factor=2.0)
    while search.next() is not None:
        run = search.start()
        end(run, float(np.interp(run.log_lr, knots, heights)))
    lowest = min(run.loss for run in search.runs)
    assert np.interp(math.log(search.recommend().lr), knots, heights) <= lowest + 0.01
