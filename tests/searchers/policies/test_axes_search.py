"""State of a search over several axes in one setting."""

import math

from raylr.analysis.runs import RunEnd
from raylr.analysis.status import Status
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.axes_search import AxesSearch, default_trials
from raylr.searchers.policies.types import RunState


def search(**options) -> AxesSearch:
    domains = {"lr": LRDomain(1e-4, 1e-1), "wd": LRDomain(1e-2, 1.0)}
    return AxesSearch(domains=domains, **{"tolerance": None, "max_trials": 9, "extend": False, "batch": 1, **options})


def test_default_trials_are_a_quadratics_parameters_and_three() -> None:
    assert [default_trials(d) for d in (2, 3, 4)] == [9, 13, 18]


def test_the_first_round_has_two_runs_and_waits_for_both() -> None:
    found = search()
    assert found.next() is not None
    assert len(found.queue) == 2
    first, second = found.start(), found.start()
    assert found.next() is None
    assert found.pending() == 2
    first.end, first.loss = RunEnd.COMPLETED, 3.0
    assert found.next() is None
    second.end, second.loss = RunEnd.COMPLETED, 2.9
    assert found.next() is not None


def test_a_sampler_that_cannot_wait_gets_places_apart() -> None:
    found, places = search(), []
    for i in range(6):
        place = found.ask()
        places.append(place)
        run = RunState(math.log(place["lr"]), others=(math.log(place["wd"]),))
        if i < 3:
            run.end, run.loss = RunEnd.COMPLETED, 3 + 0.1 * math.log(place["lr"] / 3e-3) ** 2
        found.runs.append(run)
    assert len({(round(math.log(p["lr"]), 2), round(math.log(p["wd"]), 2)) for p in places}) == 6


def test_runs_without_a_metric_say_so() -> None:
    found = search()
    found.next()
    run = found.start()
    assert found.recommend().status is Status.TOO_FEW
    run.end = RunEnd.NO_REPORT
    assert "none of 1 trials reported" in found.recommend().reason
