import logging

import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch

from raylr.searchers import PowerLawScheduler, QuadraticSearch, SegmentSearch, SurfaceSearch
from raylr.testing import (
    SCHEDULER_CHECKS,
    SEARCHER_CHECKS,
    ConformanceError,
    check_scheduler,
    check_searcher,
    suggests_inside_the_domain,
)


@pytest.mark.parametrize("check", SEARCHER_CHECKS.values(), ids=SEARCHER_CHECKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_quadratic_search(check, seed, tmp_path):
    check(lambda: QuadraticSearch(seed=seed), tmp_path)


@pytest.mark.parametrize("check", SEARCHER_CHECKS.values(), ids=SEARCHER_CHECKS)
def test_quadratic_search_in_a_limiter(check, tmp_path):
    check(lambda: ConcurrencyLimiter(QuadraticSearch(metric="loss", mode=None, batch=2), 3), tmp_path)


@pytest.mark.parametrize("name", [n for n in SEARCHER_CHECKS if n != "maximises"])  # one report is no curve to go by
@pytest.mark.parametrize("kind", [SurfaceSearch, SegmentSearch])
def test_searches_over_curves(kind, name, tmp_path):
    SEARCHER_CHECKS[name](lambda: kind(target=1000.0, seed=1), tmp_path)


@pytest.mark.parametrize("check", SCHEDULER_CHECKS.values(), ids=SCHEDULER_CHECKS)
@pytest.mark.parametrize("options", [{}, {"prune": True}, {"target": 50_000.0, "min_fraction": 0.2}])
def test_power_law_scheduler(check, options, tmp_path):
    check(lambda: PowerLawScheduler(**options), tmp_path)


# What Ray's own do not do, so that a change there, or a check that no longer bites, shows.
RAY_FAILS = {"survives_bad_values"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEARCHER_CHECKS)
def test_optuna_search(name, tmp_path):
    logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.CRITICAL)
    if name in RAY_FAILS:
        with pytest.raises((TypeError, ConformanceError)):
            SEARCHER_CHECKS[name](lambda: OptunaSearch(seed=0), tmp_path)
    else:
        SEARCHER_CHECKS[name](lambda: OptunaSearch(seed=0), tmp_path)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # ASHA averages infinite losses
@pytest.mark.parametrize("factory", [FIFOScheduler, lambda: ASHAScheduler(max_t=100)])
def test_rays_schedulers(factory):
    check_scheduler(factory, only=[n for n in SCHEDULER_CHECKS if n != "stops_diverged_trials"])
    if factory is FIFOScheduler:
        with pytest.raises(ConformanceError, match="ran to its end"):
            check_scheduler(factory, only=["stops_diverged_trials"])


class Outside(Searcher):
    def set_search_properties(self, metric, mode, config, **spec):
        return True

    def suggest(self, trial_id):
        return {"lr": 5.0}

    def on_trial_complete(self, trial_id, result=None, error=False):
        if result["loss"] is None:
            raise KeyError("loss")


def test_a_bad_searcher_is_found_out(tmp_path):
    with pytest.raises(ConformanceError, match="outside"):
        suggests_inside_the_domain(Outside, tmp_path)
    with pytest.raises(ConformanceError, match="survives_bad_values: KeyError") as found:
        check_searcher(Outside)
    for name in ("goes_on_after_restore", "refuses_a_grid", "survives_failed_trials"):
        assert name in str(found.value)


class Stuck(Outside):
    def suggest(self, trial_id):
        return None


def test_a_searcher_that_waits_for_nothing_is_found_out():
    with pytest.raises(ConformanceError, match="wait forever"):
        check_searcher(Stuck, only=["runs_at_any_concurrency"])


def test_unknown_checks():
    with pytest.raises(ValueError, match="no check 'nonsense'; known"):
        check_searcher(Outside, only=["nonsense"])
