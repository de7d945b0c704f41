"""A search looks into every wide stretch of its range before it says that nothing changes the loss."""

import math
import random

import pytest

from raylr.analysis.runs import RunEnd
from raylr.analysis.status import Status
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.axes_search import AxesSearch
from raylr.searchers.policies.gaps import HIDDEN, widest
from raylr.searchers.policies.quadratic import QuadraticPolicy


def search(loss, low, high, trials=12, batch=1):
    policy = QuadraticPolicy(lr_range=(low, high), max_trials=trials, batch=batch)
    while not policy.finished and (one := policy.ask()) is not None:
        policy.tell(one.run, RunEnd.COMPLETED, loss(one.lr))
    return policy.recommend()


def search_axes(loss, domains, trials=20):
    found = AxesSearch(domains=domains, tolerance=None, max_trials=trials, extend=False, batch=1)
    while found.next() is not None:
        run = found.start()
        run.end, run.loss = RunEnd.COMPLETED, loss(found._place(run))
    return found


def saturated(optimum, low, high, cap):
    """A parabola where the ln of the LR lies between two values, the same loss elsewhere."""
    return lambda lr: 3 + 0.05 * (math.log(lr) - optimum) ** 2 if low < math.log(lr) < high else cap


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_a_stretch_of_a_factor_of_ten_that_trains_is_found(seed, batch):
    rng = random.Random(seed)
    low = rng.uniform(-13, -8)
    high = low + rng.uniform(4, 10)
    start = rng.uniform(low, high - HIDDEN)
    stop = start + HIDDEN + 0.01
    loss = saturated(rng.uniform(start, stop), start, stop, cap=rng.choice([10.0, 4.2]))
    found = search(loss, math.exp(low), math.exp(high), batch=batch)
    assert found.status is not Status.FLAT
    assert start < math.log(found.lr) < stop
    assert loss(found.lr) < 4.2


@pytest.mark.parametrize("seed", range(6))
def test_a_stretch_that_trains_is_found_along_the_lr_of_several_axes(seed):
    rng = random.Random(seed)
    domains = {
        "lr": LRDomain(1e-5, 1e-1),
        "wd": LRDomain(1e-3, 1.0),
        "batch": LRDomain(16, 1024, step=16, integer=True),
    }
    start = rng.uniform(math.log(1e-5), math.log(1e-1) - HIDDEN)
    alone = saturated(start + 1, start, start + HIDDEN + 0.01, cap=10.0)
    found = search_axes(
        lambda place: alone(place["lr"]) + 0.01 * math.log(place["wd"]) ** 2 * (alone(place["lr"]) < 10), domains
    )
    assert found.recommend().status is not Status.FLAT
    assert min(run.loss for run in found.runs) < 10


@pytest.mark.parametrize("decades", [0.5, 2, 4, 6])
def test_a_constant_loss_is_found_flat_after_few_runs(decades):
    found = search(lambda lr: 10.0, 1e-7, 1e-7 * 10**decades)
    assert found.status is Status.FLAT
    assert 4 <= found.trials <= 4 + decades
    assert "check that the LR reaches the optimizer" in found.reason


def test_a_constant_loss_over_few_allowed_values_ends():
    domains = {"lr": LRDomain(1e-4, 1e-1), "layers": LRDomain(1, 64, step=63, integer=True)}
    found = search_axes(lambda place: 10.0, domains)
    assert found.recommend().status is Status.FLAT
    assert len(found.runs) < 20


def test_what_lies_above_a_diverged_run_is_not_looked_into():
    policy = QuadraticPolicy(lr_range=(1e-5, 1.0), max_trials=12)
    tried = []
    while not policy.finished and (one := policy.ask()) is not None:
        tried.append(one.lr)
        if one.lr > 1e-3:
            policy.tell(one.run, RunEnd.DIVERGED, math.nan)
        else:
            policy.tell(one.run, RunEnd.COMPLETED, 4.0)
    assert policy.recommend().status is Status.FLAT
    lowest = min(lr for lr in tried if lr > 1e-3)
    assert not [lr for lr in tried[tried.index(lowest) + 1 :] if lr > lowest]


def test_the_widest_stretch_is_bounded_by_the_range():
    assert widest([], 0.0, 2.0) == (1.0, 2.0)
    assert widest([5.0, -3.0], 0.0, 2.0) == (1.0, 2.0)
    assert widest([1.9], 0.0, 2.0) == (0.95, 1.9)
    assert widest([1.0], 1.0, 1.0) == (1.0, 0.0)
