"""Runs raylr and its peers on problems: what was tried, what was measured, and what was answered after every run.

An earlier raylr can be measured too: what it does not have is left out."""

import math
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optimum_functions import Problem
from optimum_peers import Answer, Points, search_peers

PROCESSES = 2
"""Processes that replay searches side by side."""


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _answer(said: Any) -> Answer:
    """Of a `Recommendation` or an `OptimumFit`."""
    low, high = (_number(getattr(said, name)) for name in ("lr_low", "lr_high"))
    return Answer(_number(said.lr), str(said.status), low, high, _number(said.regret))


def _optimum() -> Points:
    from raylr.analysis.optimum import fit_optimum

    return lambda lr, loss: _answer(fit_optimum(lr, loss))


def fits() -> dict[str, Points]:
    """raylr's answers from points."""
    return {"raylr": _optimum()}


@dataclass
class Trace:
    """One search on one problem."""

    lrs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """As measured, with noise; NaN for a diverged run."""
    answers: list[Answer] = field(default_factory=list)
    """After every run."""

    def at(self, runs: int) -> Answer:
        """The answer after so many runs, or after the last."""
        return self.answers[min(runs, len(self.answers)) - 1]

    def tried(self, runs: int) -> list[float]:
        """LRs of the first runs."""
        return self.lrs[:runs]

    def best_measured(self, runs: int) -> float:
        """LR of the lowest measured loss among the first runs; NaN where all diverged."""
        losses = np.array(self.losses[:runs])
        return self.lrs[int(np.nanargmin(losses))] if np.isfinite(losses).any() else math.nan


def diverged_above(problem: Problem, trace: Trace, runs: int) -> float:
    """The lowest LR among the first runs that diverged, above the best one; inf without one."""
    best = trace.best_measured(runs)
    return min(
        (lr for lr in trace.lrs[:runs] if problem.diverges(lr) and not lr <= best),
        default=math.inf,
    )


def runs_above_divergence(problem: Problem, trace: Trace) -> int:
    """How many runs were started at or above an LR that was known to diverge then."""
    return sum(trace.lrs[i] >= diverged_above(problem, trace, i) for i in range(1, len(trace.lrs)))


def untried_beside_cliff(problem: Problem, trace: Trace, apart: float = 0.02) -> bool:
    """Whether the last answer lies right below a diverged run: above every run that did not diverge, by more than
    `apart` (ln lr)."""
    lr, runs = trace.answers[-1].lr, len(trace.lrs)
    cliff = diverged_above(problem, trace, runs)
    if not (math.isfinite(lr) and math.isfinite(cliff) and lr < cliff):
        return False
    return lr > max((one for one in trace.lrs if one < cliff), default=0.0) * math.exp(apart)


def run_raylr(problem: Problem, seed: int, most: int, **options: Any) -> Trace:
    """`QuadraticSearch` through the Searcher API, `most` runs at most."""
    from ray import tune

    from raylr.searchers import QuadraticSearch

    search = QuadraticSearch(max_trials=most, seed=seed, **options)
    search.set_search_properties("loss", "min", {"lr": tune.loguniform(problem.low, problem.high)})
    return _drive(search, problem, seed, most, lambda: _answer(search.recommend()))


def run_peer(name: str, problem: Problem, seed: int, most: int) -> Trace:
    """A peer; its answer is the best measured LR."""
    return _drive(search_peers()[name].make(problem.low, problem.high, seed, most), problem, seed, most, None)


def _drive(search: Any, problem: Problem, seed: int, most: int, answer: Callable[[], Answer] | None) -> Trace:
    trace, rng = Trace(), problem.rng(seed)
    for i in range(most):
        config = search.suggest(str(i))
        if not isinstance(config, dict):
            break
        lr = float(config["lr"])
        loss = problem.observe(lr, rng)
        trace.lrs.append(lr)
        trace.losses.append(loss)
        if math.isfinite(loss) or answer is not None:  # peers refuse NaN: to them the trial failed
            search.on_trial_complete(str(i), result={"loss": loss, "training_iteration": 1})
        else:
            search.on_trial_complete(str(i), result=None, error=True)
        trace.answers.append(answer() if answer else Answer(trace.best_measured(i + 1)))
    return trace


EXACT = {"tolerance": 1e-12}
"""Option that keeps the search going to its last run."""
_work: Callable[[Any], Any]


_jobs: list[Any]


def _one(index: int) -> Any:
    return _work(_jobs[index])


def in_parallel(work: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """`work` of every job, in order. The processes are forked after the jobs are made: neither has to be pickled."""
    global _work, _jobs
    _work, _jobs = work, list(jobs)
    if len(_jobs) < 4:
        return [work(job) for job in _jobs]
    with multiprocessing.get_context("fork").Pool(PROCESSES, _single_thread) as pool:
        return pool.map(_one, range(len(_jobs)), chunksize=max(1, min(8, len(_jobs) // 8)))


def _single_thread() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def search_all(method: str, problems: Sequence[Problem], seeds: int, most: int, **options: Any) -> list[list[Trace]]:
    """Traces of a method, one list a problem and one trace a seed."""

    def work(job: tuple[int, int]) -> Trace:
        problem = problems[job[0]]
        if method == "raylr":
            return run_raylr(problem, job[1], most, **options)
        return run_peer(method, problem, job[1], most)

    flat = in_parallel(work, [(i, s) for i in range(len(problems)) for s in range(seeds)])
    return [flat[i * seeds : (i + 1) * seeds] for i in range(len(problems))]
