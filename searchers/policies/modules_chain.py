"""The stages of one setting of a search around a known learning rate, one after the other. No Ray. `modules` runs them.

replicates of the start ──▶ first axis ──▶ second axis ──▶ … (or all at once) ──▶ replicates, of what was found too

The stages know of the first `SEARCH_SEEDS` replicates of the start and of no other one: a search with more replicates
goes the same way, and one that is given more afterwards trains nothing but these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from raylr.analysis.optimum import OptimumFit, OptimumPrior
from raylr.analysis.runs import Setting
from raylr.searchers.policies.axes_search import LR
from raylr.searchers.policies.modules_stages import (
    CENTER_SD,
    CURVATURE_LOG_SD,
    FIT_DOF,
    GreedyPolicy,
    JointPolicy,
    ModuleAxis,
    ModuleStage,
    Replicates,
    ended_stage,
)
from raylr.searchers.policies.policy import Point
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.types import AxisAnswer, RunId, RunState, Suggestion

MIDDLE = (0.16, 0.5, 0.84)
"""Quantiles from which the loss at a stage's start and its standard error are taken: those of a normal distribution
within one standard deviation."""
SEARCH_SEEDS = 3
"""Replicates of the start that come before the axes. A search gets the scatter of runs from these and from the
global fit; what more of them would tell is small beside what single runs of the axes do not know."""
StagePolicy = QuadraticPolicy | Replicates


@dataclass(frozen=True, kw_only=True)
class ModulesOptions:
    """How all settings are searched; see `ModulesPolicy`."""

    axes: Mapping[str, ModuleAxis]
    method: Literal["greedy", "joint"]
    held: Literal["found", "start"]
    whole: bool
    trials: int
    replicates: int
    policy: Mapping[str, Any]
    """Arguments of the policies of all stages."""

    @property
    def start(self) -> dict[str, float]:
        """Value of every axis in the global search."""
        return {name: axis.start for name, axis in self.axes.items()}


class ModuleChain:
    """The stages of one setting.

    Args:
        setting: The setting.
        options: How it is searched.
    """

    def __init__(self, setting: Setting, options: ModulesOptions) -> None:
        self.setting, self._options = setting, options
        self.lr: float | None = None
        """The global LR, once it is known."""
        self.done: list[ModuleStage] = []
        """The stages over LR or axes that have ended."""
        self.start_seeds: list[Replicates] = []
        """Replicates of the start: those before the axes, and the others after them."""
        self.found_seeds: Replicates | None = None
        """Those of what was found."""
        self.finished = False
        self.runs: list[tuple[StagePolicy, RunId]] = []
        """What each run is called by the policy of its stage."""
        self.places: list[tuple[float, ...]] = []
        """ln of LR and axes of each run."""
        self._stage: tuple[StagePolicy, tuple[str, ...], dict[str, float], list[int]] | None = None
        self._global: Sequence[RunState] = ()

    # -- runs --

    def ask(self) -> tuple[StagePolicy, Suggestion, dict[str, float]] | None:
        """Return the next run of the stage that runs, and the values of all axes; None while it waits."""
        if self._stage is None or self.lr is None:
            return None
        policy, names, held, runs = self._stage
        found = policy.ask()
        if found is None:
            return None
        runs.append(len(self.runs))
        return policy, found, held | dict(zip(names, (found.lr, *found.axes.values()), strict=False))

    def add(self, policy: StagePolicy, found: Suggestion, lr: float, values: Mapping[str, float]) -> Suggestion:
        """Number a run of a policy, and return it as a run of the whole search.

        Args:
            policy: The policy that suggested the run.
            found: Its suggestion.
            lr: The global LR of the run.
            values: Multiplier of each group's LR.
        """
        place = tuple(math.log(value) for value in (lr, *(values[name] for name in self._options.axes)))
        same = sum(not state.says_nothing for state in self._at(place))
        run = RunId(self.setting.name, len(self.runs))
        self.runs.append((policy, found.run))
        self.places.append(place)
        axes = {name: values[name] for name in self._options.axes}
        return replace(found, run=run, setting=self.setting, lr=lr, axes=axes, repeat=max(found.repeat, same))

    def _at(self, place: tuple[float, ...]) -> list[RunState]:
        """The search's own runs of a place; replicates have seeds of their own."""
        return [
            policy.run(run)
            for other, (policy, run) in zip(self.places, self.runs, strict=True)
            if other == place and not isinstance(policy, Replicates)
        ]

    # -- stages --

    def begin(self, lr: float | None, ended: ModuleStage | None = None, runs: Sequence[RunState] = ()) -> None:
        """Take the global LR, with the stage and the runs that found it; None: there is none, and nothing to do."""
        self.lr, self._global = lr, runs
        if ended is not None:
            self.done.append(ended)
        self.finished = lr is None

    def advance(self) -> None:
        """Begin every stage that can begin."""
        while self.lr is not None and not self.finished:
            if self._stage is not None:
                policy, names, held, runs = self._stage
                if not policy.finished:
                    return
                if not isinstance(policy, Replicates):
                    self.done.append(ended_stage(policy, names, held, tuple(runs)))
            self._stage = self._next()
            self.finished = self._stage is None

    @property
    def found(self) -> dict[str, float]:
        """Value of every axis that was found so far, its start otherwise."""
        return self._options.start | {
            name: answer.value for one in self.done if one.names for name, answer in one.answers.items()
        }

    def _next(self) -> tuple[StagePolicy, tuple[str, ...], dict[str, float], list[int]] | None:
        options = self._options
        searched = sum(bool(one.names) for one in self.done)
        start, found = options.start, self.found
        if not self.start_seeds and options.replicates:
            return self._replicates_of_start(min(options.replicates, SEARCH_SEEDS))
        if searched < (1 if options.method == "joint" else len(options.axes)):
            held = found if options.held == "found" else start
            names = tuple(options.axes) if options.method == "joint" else (list(options.axes)[searched],)
            policy = self._joint() if options.method == "joint" else self._greedy(names[0], held)
            return policy, names, held, []
        if not options.replicates or self.found_seeds is not None or found == start:
            return None
        if len(self.start_seeds) == 1 and options.replicates > SEARCH_SEEDS:
            return self._replicates_of_start(options.replicates - SEARCH_SEEDS)
        self.found_seeds = Replicates(self.setting, options.replicates)
        return self.found_seeds, (), found, []

    def _replicates_of_start(self, count: int) -> tuple[StagePolicy, tuple[str, ...], dict[str, float], list[int]]:
        self.start_seeds.append(Replicates(self.setting, count, first=SEARCH_SEEDS * len(self.start_seeds)))
        return self.start_seeds[-1], (), self._options.start, []

    def _greedy(self, name: str, held: Mapping[str, float]) -> QuadraticPolicy:
        axis, options = self._options.axes[name], self._options
        prior = OptimumPrior(center=math.log(axis.start), center_sd=CENTER_SD)
        fit = self._global_fit
        if options.whole and fit is not None and fit.curvature > 0:
            share = math.exp(fit.moments()["curvature"][0]) / len(options.axes)
            prior = replace(prior, curvature=share, curvature_log_sd=CURVATURE_LOG_SD)
        policy = GreedyPolicy(
            [self.setting], lr_range=(axis.low, axis.high), prior=prior, max_trials=options.trials,
            points=[self._known(held, [name])], **options.policy,
        )  # fmt: skip
        policy.noise = self.noise
        return policy

    def _joint(self) -> JointPolicy:
        options, lr = self._options, self.lr
        assert lr is not None
        first, *others = options.axes
        start = options.start
        points = [self._known(start, list(options.axes))]
        if options.whole and (along := [state for state in self._global if state.measured or state.diverged]):
            ratios = [(state.lr / lr, state.loss, math.hypot(state.stderr, self.noise)) for state in along]
            ratios += [(1.0, loss, self.noise) for loss in self._start_losses]
            points = [
                Point(
                    lr=ratio, setting=self.setting.name, loss=loss, stderr=stderr, config=dict.fromkeys(others, ratio)
                )
                for ratio, loss, stderr in ratios
            ]
        ranges = {name: (axis.low, axis.high) for name, axis in options.axes.items()}
        shared = {key: value for key, value in options.policy.items() if key != "seeds"}
        policy = JointPolicy(
            [self.setting], lr_range=ranges.pop(first), axes=ranges, max_trials=options.trials, points=points, **shared
        )
        policy.noise = self.noise
        return policy

    # -- what is known --

    @property
    def noise(self) -> float:
        """Standard deviation of one run's loss: of the replicates, and of what the global fit says."""
        losses, fit = self._start_losses, self._global_fit
        dof = max(len(losses) - 1, 0)
        squares = dof * float(np.var(losses, ddof=1)) if dof else 0.0
        if fit is not None and math.isfinite(fit.noise):
            squares, dof = squares + FIT_DOF * fit.noise**2, dof + FIT_DOF
        return math.sqrt(squares / dof) if dof else 0.0

    @property
    def _start_losses(self) -> list[float]:
        return self.start_seeds[0].losses if self.start_seeds else []

    @property
    def _global_fit(self) -> OptimumFit | None:
        fit = self.done[0].fit if self.done and not self.done[0].names else None
        return fit if isinstance(fit, OptimumFit) else None

    def _known(self, values: Mapping[str, float], names: Sequence[str]) -> Point:
        """The starting place of a stage with its loss: what the stage before expects there, and replicates if it is the
        start of all; without either it is to be tried."""
        guesses = []
        before = next((one for one in reversed(self.done) if self._options.held == "found" or not one.names), None)
        if before is not None and isinstance(before.fit, OptimumFit) and before.answers:
            ((_, answer),) = before.answers.items()
            low, middle, high = before.fit.loss_quantiles(answer.value, MIDDLE)
            guesses.append((float(middle), 0.5 * float(high - low)))
        if self._start_losses and values == self._options.start:
            losses = self._start_losses
            guesses.append((float(np.mean(losses)), self.noise / math.sqrt(len(losses))))
        guesses = [one for one in guesses if all(map(math.isfinite, one))]
        lr, others = values[names[0]], {name: values[name] for name in names[1:]}
        if not guesses:
            return Point(lr=lr, setting=self.setting.name, config=others)
        weight = np.array([1.0 / max(stderr, 1e-12) ** 2 for _, stderr in guesses])
        mean = float(weight @ np.array([loss for loss, _ in guesses]) / weight.sum())
        return Point(lr=lr, setting=self.setting.name, loss=mean, stderr=float(weight.sum() ** -0.5), config=others)


def global_stage(policy: QuadraticPolicy, name: str, runs: int, start: Mapping[str, float]) -> ModuleStage:
    """Return what the global search of a setting has found.

    Args:
        policy: The policy of the global search.
        name: Name of the setting.
        runs: Number of its runs.
        start: What the groups' multipliers were held at.
    """
    found = policy.recommend(name)
    answers = {}
    if found.lr is not None:
        lr = float(f"{found.lr:.4g}")
        answers[LR] = AxisAnswer(lr, min(found.lr_low or 0.0, lr), max(found.lr_high or math.inf, lr))
    return ModuleStage(names=(), held=start, fit=policy.fit(name), answers=answers, runs=tuple(range(runs)))
