"""A conformance suite for Ray Tune searchers and trial schedulers: what must hold for any of them, checked without a
cluster.

    check_searcher(lambda: MySearch(seed=0))
    check_scheduler(lambda: MyScheduler())

Each takes a factory that makes a fresh object (metric and mode are set through `set_search_properties`), runs all
checks or those named, and raises `ConformanceError`, which lists every failure. `SEARCHER_CHECKS` and
`SCHEDULER_CHECKS` hold them by name, so that a test can be made of each:

    @pytest.mark.parametrize("check", SEARCHER_CHECKS.values(), ids=SEARCHER_CHECKS)
    def test_my_search(check, tmp_path):
        check(lambda: MySearch(seed=0), tmp_path)
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from raylr.errors import InputError, nearest
from raylr.fake_trials import FakeController, FakeTrial

Factory = Callable[[], Any]
Check = Callable[[Factory, Path], None]

METRIC = "loss"
LOW, HIGH = 1e-4, 1e-1


class ConformanceError(AssertionError):
    """What a searcher or scheduler does not do."""


def space() -> dict[str, Any]:
    """The search space of all checks."""
    return {"lr": tune.loguniform(LOW, HIGH), "constant": 7}


def loss_at(lr: float) -> float:
    """The objective of all checks: lowest at 3e-3."""
    return 2.5 + 0.03 * math.log(lr / 3e-3) ** 2


def begin(factory: Factory) -> Any:
    """A searcher that knows metric, mode and space."""
    search = factory()
    search.set_search_properties(METRIC, "min", space())
    return search


def report(value: Any, step: int = 1) -> dict[str, Any]:
    """A result as Tune delivers it."""
    return {METRIC: value, "tokens": 1000.0 * step, "training_iteration": step, "done": False}


def drive(
    search: Any, trials: int, *, slots: int = 1, seed: int = 0, value: Callable[[float], Any] = loss_at
) -> list[float]:
    """Run a searcher on trials that end in random order.

    Args:
        search: The searcher, with metric, mode and space.
        trials: Most trials.
        slots: Trials at once.
        seed: Seed of the order in which they end.
        value: Returns what a trial of an lr reports.

    Returns:
        The lr of each trial.
    """
    order, waited = random.Random(seed), 0
    running: list[tuple[str, float]] = []
    lrs: list[float] = []
    while True:
        config = search.suggest(f"{len(lrs):05d}") if len(running) < slots and len(lrs) < trials else None
        if isinstance(config, dict):
            lrs.append(float(config["lr"]))
            running.append((f"{len(lrs) - 1:05d}", lrs[-1]))
            waited = 0
            if len(running) < slots:
                continue
        elif config is not None:
            require(config == Searcher.FINISHED, f"suggest returned {config!r}: not a dict, None or FINISHED")
        if not running:
            waited += 1
            if config == Searcher.FINISHED or len(lrs) >= trials:
                return lrs
            require(waited < 10, "suggest returns None while no trial is running: Tune would wait forever")
            continue
        trial, lr = running.pop(order.randrange(len(running)))
        search.on_trial_result(trial, report(value(lr)))
        search.on_trial_complete(trial_id=trial, result=report(value(lr)), error=False)


def require(condition: bool, message: str) -> None:
    """Raise `ConformanceError(message)` unless `condition`."""
    if not condition:
        raise ConformanceError(message)


# --- searchers ---


def suggests_inside_the_domain(factory: Factory, folder: Path) -> None:
    """Every suggested lr lies in its domain."""
    lrs = drive(begin(factory), 20)
    require(len(lrs) > 0, "no suggestion")
    require(all(LOW * (1 - 1e-9) <= lr <= HIGH * (1 + 1e-9) for lr in lrs), f"lrs outside [{LOW}, {HIGH}]: {lrs}")


def runs_at_any_concurrency(factory: Factory, folder: Path) -> None:
    """1, 2, 8 or 64 trials at once come to an end, in any order in which they finish."""
    for slots in (1, 2, 8, 64):
        drive(begin(factory), 80, slots=slots, seed=slots)


def survives_bad_values(factory: Factory, folder: Path) -> None:
    """NaN, infinite and None losses raise nothing, also when all are."""
    for bad in (math.nan, math.inf, -math.inf, None):
        drive(begin(factory), 6, value=partial(_bad_above, bad=bad, lr=0.0))
        drive(begin(factory), 6, value=partial(_bad_above, bad=bad, lr=3e-3))


def _bad_above(value: float, *, bad: float | None, lr: float) -> float | None:
    return bad if value > lr else loss_at(value)


def survives_failed_trials(factory: Factory, folder: Path) -> None:
    """A trial that raised, or was stopped before its first report, raises nothing."""
    search = begin(factory)
    for i, error in enumerate((True, False)):
        if isinstance(search.suggest(f"f{i}"), dict):
            search.on_trial_complete(trial_id=f"f{i}", result=None, error=error)
    drive(search, 4)


def survives_a_missing_metric(factory: Factory, folder: Path) -> None:
    """An ended trial whose last result lacks the metric raises nothing."""
    search = begin(factory)
    if isinstance(search.suggest("m"), dict):
        search.on_trial_complete(trial_id="m", result={"tokens": 1.0, "training_iteration": 1}, error=False)
    drive(search, 4)


def repeats_under_its_seed(factory: Factory, folder: Path) -> None:
    """Two searches that were made in the same way suggest the same."""
    first, second = drive(begin(factory), 8), drive(begin(factory), 8)
    require(first == second, f"two runs differ: {first} and {second}")


def ignores_the_order_of_results(factory: Factory, folder: Path) -> None:
    """The suggestions do not depend on the order in which running trials end."""
    runs = [sorted(drive(begin(factory), 8, slots=3, seed=s)) for s in range(4)]
    require(all(r == runs[0] for r in runs), f"orders of completion change the suggestions: {runs}")


def goes_on_after_restore(factory: Factory, folder: Path) -> None:
    """save, then restore into a fresh object: the same trials follow, running ones included."""
    path = str(Path(folder) / "searcher.pkl")
    search = begin(factory)
    started = {t: search.suggest(t) for t in ("a", "b")}
    search.on_trial_complete(trial_id="a", result=report(loss_at(started["a"]["lr"])), error=False)
    search.save(path)
    again = factory()
    again.restore(path)
    left = [t for t in ("b",) if isinstance(started[t], dict)]
    ends = []
    for one in (search, again):
        for trial in left:
            one.on_trial_complete(trial_id=trial, result=report(loss_at(started[trial]["lr"])), error=False)
        ends.append(drive(one, 4))
    require(ends[0] == ends[1], f"the restored search goes on with {ends[1]}, the saved one with {ends[0]}")


def refuses_a_grid(factory: Factory, folder: Path) -> None:
    """`tune.grid_search` in the space is a ValueError before anything runs."""
    search = factory()
    try:
        search.set_search_properties(METRIC, "min", {"lr": tune.grid_search([1e-3, 1e-2])})
    except ValueError:
        return
    raise ConformanceError("a grid_search was accepted silently")


def refuses_no_metric(factory: Factory, folder: Path) -> None:
    """Without a metric, the space or the first suggestion raises: the search could learn nothing."""
    search = factory()
    try:
        search.set_search_properties(None, None, space())
        search.suggest("a")
    except (ValueError, RuntimeError):
        return
    raise ConformanceError("a search without a metric suggests trials, and learns nothing from them")


def takes_any_number(factory: Factory, folder: Path) -> None:
    """Losses that are NumPy scalars, arrays without dimensions, or Decimals raise nothing."""
    for kind in (np.float32, np.array, _decimal):
        drive(begin(factory), 6, value=partial(_loss_as, kind=kind))


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _loss_as(value: float, *, kind: Callable[[float], Any]) -> Any:
    return kind(loss_at(value))


def maximises(factory: Factory, folder: Path) -> None:
    """mode="max" suggests at least as good lrs late as early."""
    search = factory()
    search.set_search_properties(METRIC, "max", space())
    lrs = drive(search, 24, value=lambda lr: -loss_at(lr))
    require(min(map(loss_at, lrs[2:] or lrs)) <= min(map(loss_at, lrs[:2])), f"later lrs are worse: {lrs}")


SEARCHER_CHECKS: dict[str, Check] = {
    f.__name__: f
    for f in (
        suggests_inside_the_domain, runs_at_any_concurrency, survives_bad_values, survives_failed_trials,
        survives_a_missing_metric, repeats_under_its_seed, ignores_the_order_of_results, goes_on_after_restore,
        refuses_a_grid, refuses_no_metric, takes_any_number, maximises,
    )
}  # fmt: skip


# --- schedulers ---


def curve(lr: float, tokens: float) -> float:
    """Losses of the scheduler checks: a power law in tokens over a quadratic in ln lr."""
    return loss_at(lr) + 0.4 * math.exp(-0.4 * math.log(tokens / 1000.0))


def run_scheduler(
    factory: Factory, lrs: Iterable[float], value: Callable[[float, float], Any] = curve, steps: int = 100
) -> tuple[list[FakeTrial], dict[str, str]]:
    """Run trials under a scheduler, each in turn by one report.

    Args:
        factory: Makes the scheduler.
        lrs: The lr of each trial.
        value: Returns the loss of an lr at a number of tokens.
        steps: Reports of a trial that is not stopped.

    Returns:
        The trials, and by their ids the last decision about each.
    """
    scheduler, controller = factory(), FakeController()
    scheduler.set_search_properties(METRIC, "min")
    decisions: dict[str, str] = {}
    for i, lr in enumerate(lrs):
        trial = FakeTrial(f"t{i}", lr)
        controller.trials.append(trial)
        scheduler.on_trial_add(controller, trial)
        trial.status = Trial.RUNNING
    for step in range(1, steps + 1):
        for trial in [t for t in controller.trials if t.status == Trial.RUNNING]:
            result = report(value(trial.config["lr"], 1000.0 * step), step)
            trial.last_result = result
            decision = scheduler.on_trial_result(controller, trial, result)
            known = (TrialScheduler.CONTINUE, TrialScheduler.PAUSE, TrialScheduler.STOP, TrialScheduler.NOOP)
            require(decision in known, f"on_trial_result returned {decision!r}")
            decisions[trial.trial_id] = decision
            if decision == TrialScheduler.PAUSE:
                trial.status = Trial.PAUSED
            if decision == TrialScheduler.STOP or step == steps:
                scheduler.on_trial_complete(controller, trial, trial.last_result)
                trial.status = Trial.TERMINATED
    chosen = scheduler.choose_trial_to_run(controller)
    require(
        chosen is None or chosen.status in (Trial.PENDING, Trial.PAUSED),
        f"chose a trial that is {chosen and chosen.status}",
    )
    require(isinstance(scheduler.debug_string(), str), "debug_string is not a string")
    return controller.trials, decisions


def lets_good_trials_be(factory: Factory, folder: Path) -> None:
    """Every call returns a legal decision, and not all trials are stopped at their first report."""
    trials, _ = run_scheduler(factory, (3e-4, 3e-3, 3e-2))
    require(any(t.last_result["training_iteration"] > 1 for t in trials), "every trial was stopped at once")


def survives_bad_reports(factory: Factory, folder: Path) -> None:
    """NaN and infinite metrics raise nothing."""
    for bad in (math.nan, math.inf):
        run_scheduler(factory, (3e-3, 1e-1), value=partial(_bad_curve, bad=bad, tokens=0.0))


def _bad_curve(lr: float, at: float, *, bad: float, tokens: float) -> float:
    return bad if lr > 1e-2 and at > tokens else curve(lr, at)


def stops_diverged_trials(factory: Factory, folder: Path) -> None:
    """A trial whose loss is NaN does not run to its end."""
    trials, _ = run_scheduler(factory, (3e-3, 1e-1), value=partial(_bad_curve, bad=math.nan, tokens=5e3))
    require(trials[1].last_result["training_iteration"] < 100, "a NaN trial ran to its end")


def chooses_pending_trials(factory: Factory, folder: Path) -> None:
    """choose_trial_to_run picks a pending trial, changes nothing, and returns None without one."""
    scheduler, controller = factory(), FakeController()
    scheduler.set_search_properties(METRIC, "min")
    require(scheduler.choose_trial_to_run(controller) is None, "chose a trial when there is none")
    trial = FakeTrial("a")
    controller.trials.append(trial)
    scheduler.on_trial_add(controller, trial)
    first, second = scheduler.choose_trial_to_run(controller), scheduler.choose_trial_to_run(controller)
    require(first is trial and second is trial, "a pending trial is not chosen, or only once")


def survives_errors_and_removal(factory: Factory, folder: Path) -> None:
    """A trial may fail and be added again (a retry), and be removed while pending."""
    scheduler, controller = factory(), FakeController()
    scheduler.set_search_properties(METRIC, "min")
    trial = FakeTrial("a")
    controller.trials.append(trial)
    for _ in range(2):
        scheduler.on_trial_add(controller, trial)
        trial.status = Trial.RUNNING
        scheduler.on_trial_result(controller, trial, report(2.0))
        scheduler.on_trial_error(controller, trial)
    scheduler.on_trial_remove(controller, trial)


SCHEDULER_CHECKS: dict[str, Check] = {
    f.__name__: f
    for f in (
        lets_good_trials_be, survives_bad_reports, stops_diverged_trials, chooses_pending_trials,
        survives_errors_and_removal,
    )
}  # fmt: skip


def check_searcher(factory: Factory, only: Iterable[str] | None = None) -> None:
    """Run the searcher checks (all, or those named) and raise `ConformanceError` with every failure."""
    _run(SEARCHER_CHECKS, factory, only)


def check_scheduler(factory: Factory, only: Iterable[str] | None = None) -> None:
    """Run the scheduler checks (all, or those named) and raise `ConformanceError` with every failure."""
    _run(SCHEDULER_CHECKS, factory, only)


def _run(checks: dict[str, Check], factory: Factory, only: Iterable[str] | None) -> None:
    failures = []
    for name in only or checks:
        if name not in checks:
            raise InputError(f"no check {name!r}{nearest(name, checks)}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                checks[name](factory, Path(folder))
            except Exception as failure:  # any exception is a finding
                failures.append(f"{name}: {type(failure).__name__}: {failure}")
    if failures:
        raise ConformanceError(f"{len(failures)} checks failed:\n" + "\n".join(failures))
