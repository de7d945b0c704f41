"""The stages of a search around a known learning rate: axes, all axes at once, what a stage has found.

Plain data and state, no Ray. `modules` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from raylr.analysis.optimum import OptimumFit, OptimumPrior, ResponseFit
from raylr.analysis.optimum.response import AXES
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers._config import check_range
from raylr.searchers.policies.axes import AxesPolicy
from raylr.searchers.policies.axes_search import LR, AxesSearch
from raylr.searchers.policies.policy import SettingSearch
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.types import AxisAnswer, Decision, RunId, RunState, Suggestion

CENTER_SD = 1.0
"""Prior standard deviation of ln of a module's best LR around the global one: twice what Tables 4 and 9 of Zhou et al.
2026 show (0.47 over 20 modules of five sizes)."""
CURVATURE_LOG_SD = 1.5
"""The same of ln of a module's curvature around an equal share of the global one: a factor 4.5, the widest that the
model of the loss takes."""
GREEDY_TRIALS = 4
"""Most runs of one axis of a greedy search: with its starting place they determine level, curvature, optimum and
skew."""
FRESH = 1000
"""Number of the first replicate of a place: no search repeats a run so often, so that the seeds are its own."""
FIT_DOF = 2
"""Degrees of freedom that the noise of the global fit counts as: six runs less the four parameters of its curve."""
TREND = 2.0
"""Standard errors of the slope over an axis from which losses that are else called noise show a trend."""
NOTHING_FOUND = (Status.FLAT, Status.TOO_FEW, Status.DIVERGED)
"""Statuses after which an axis stays where it was."""


def joint_trials(axes: int) -> int:
    """Most runs of a joint search by default: the corners of a simplex, and as many again."""
    return 2 * (axes + 1)


@dataclass(frozen=True, kw_only=True)
class ModuleAxis:
    """A hyperparameter that is searched around its starting value."""

    low: float
    """Lowest value to try."""
    high: float
    """Highest value to try."""
    start: float = 1.0
    """Its value in the global search; 1 for a factor on the LR of a group."""


@dataclass(frozen=True, kw_only=True)
class ModuleStage:
    """What one stage of the search has found."""

    names: tuple[str, ...]
    """The axes that were searched; empty for the learning rate of all modules."""
    held: Mapping[str, float]
    """Values of all axes before the stage."""
    fit: OptimumFit | ResponseFit
    """The model of the loss, over the axis of `names`, or over all of them."""
    answers: Mapping[str, AxisAnswer]
    """Value to choose and the ends of its 90 % interval, for each of `names`; 0 or inf where open."""
    runs: tuple[int, ...]
    """Numbers of the runs of the setting that the stage began."""

    @property
    def found(self) -> bool:
        """Whether the losses say something about the axes."""
        return self.fit.status not in NOTHING_FOUND


class _WithNoise:
    """A policy whose runs are known to scatter: the model of the loss takes that as the standard error of each."""

    noise: float = 0.0
    """Standard deviation of one run's loss."""

    def _tell(self, run: RunId, end: RunEnd, loss: float | None, stderr: float) -> None:
        super()._tell(run, end, loss, stderr)  # type: ignore[misc]  # the policy's, which this class is mixed into
        found = cast(QuadraticPolicy, self).run(run)
        if found.measured:
            found.stderr = math.hypot(found.stderr, self.noise)


class GreedyPolicy(_WithNoise, QuadraticPolicy):
    """The stage over one axis."""


class JointPolicy(_WithNoise, AxesPolicy):
    """The stage over all axes at once. No axis is known to diverge at high values, and the search may end before a
    quadratic over the axes has as many runs as parameters: the runs along the diagonal and the prior say the rest."""

    def _new_search(self, setting: Setting, prior: OptimumPrior, jitter: float) -> SettingSearch:
        assert self._domain is not None
        options = {k: v for k, v in self._options.items() if k not in ("lr_factor", "seeds")} | {"batch": self._most()}
        domains = {LR: self._domain, **{name: self._axes[name] for name in self._names}}
        return cast(SettingSearch, JointSearch(domains=domains, seed=self._start, rising=None, **options))


class Replicates:
    """A stage that trains one place with several seeds. The search has not chosen these runs by their losses, so that
    they tell what the place is worth, and how much runs scatter.

    Args:
        setting: The setting.
        count: Number of runs.
        first: Number of fresh seeds of the place that others have trained before.
    """

    def __init__(self, setting: Setting, count: int, *, first: int = 0) -> None:
        self._setting, self._count, self._first = setting, count, first
        self.runs: list[RunState] = []

    @property
    def finished(self) -> bool:
        """Whether all have ended."""
        return len(self.runs) == self._count and not any(run.running for run in self.runs)

    def ask(self) -> Suggestion | None:
        """Return the next run; None after the last. Its place is that of the stage."""
        if len(self.runs) == self._count:
            return None
        self.runs.append(RunState(0.0))
        number = len(self.runs) - 1
        return Suggestion(run=RunId(self._setting.name, number), setting=self._setting, lr=1.0,
                          repeat=FRESH + self._first + number)  # fmt: skip

    def report(self, run: RunId, tokens: float, loss: float, current_lr: float | None = None) -> Decision:
        """Decide nothing, called as `Policy.report`: a run that was cut short has another loss than one that was
        not."""

    def tell(self, run: RunId, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a run, as `Policy.tell`."""
        found = self.run(run)
        finite = loss is not None and math.isfinite(loss)
        found.end = RunEnd.DIVERGED if end is RunEnd.COMPLETED and not finite else end
        found.loss = float(loss) if loss is not None and finite else math.nan

    def run(self, run: RunId) -> RunState:
        """Return what is known of a run."""
        return self.runs[run.number]

    @property
    def losses(self) -> list[float]:
        """Losses of the runs that ended with one."""
        return [run.loss for run in self.runs if run.measured]


@dataclass
class JointSearch(AxesSearch):
    """`AxesSearch` around a place that is known."""

    def settled(self) -> bool:
        """Whether the best place is known within tolerance after the corners of a simplex."""
        fit = self.fit()
        enough = self.tried() > len(self.domains)
        return fit.status is Status.FLAT or (enough and fit.status.ok) or (enough and fit.regret <= fit.allowed_regret)

    def _round(self, size: int) -> list[dict[str, float]]:
        """The corners of a simplex first, even if the diagonal was measured; then the most informative places."""
        corners = self._design()[1:]
        free = [p for p in corners if all(self._distance(p, r) > 1e-3 for r in self.runs)]
        return free[:size] if self.tried() < len(corners) and free else super()._round(size)


def require_module_axes(axes: Mapping[str, ModuleAxis], method: str) -> None:
    """InputError unless there are axes that `method` can search, each with a range around its start."""
    if not axes or LR in axes:
        raise InputError(f"the axes must be one or more hyperparameters besides {LR!r}, got {list(axes)}")
    for name, axis in axes.items():
        check_range(axis.low, axis.high, name)
        if not axis.low <= axis.start <= axis.high:
            raise InputError(f"{name}: the range {axis.low:g} to {axis.high:g} must hold its start, {axis.start:g}")
    if method == "joint" and not AXES[0] <= len(axes) <= AXES[1]:
        raise InputError(f"a joint search takes {AXES[0]} to {AXES[1]} axes, got {len(axes)}: use method greedy")


def _falls(policy: QuadraticPolicy) -> bool:
    """Whether the losses of a stage over one axis rise or fall with it by more than noise.

    All differences together may be noise where one trend through them is not: the test for that has one degree of
    freedom, where the one of `flat` has as many as there are LRs.
    """
    runs = [run for run in policy.runs_of(policy.settings[0].name) if run.measured and run.stderr > 0]
    if len(runs) < 3:
        return False
    x, y = np.log([run.lr for run in runs]), np.array([run.loss for run in runs])
    weight = np.array([run.stderr for run in runs]) ** -2
    x = x - float(weight @ x) / float(weight.sum())
    spread = float(weight @ x**2)
    return spread > 0 and abs(float(weight @ (x * y))) > TREND * math.sqrt(spread)


def ended_stage(
    policy: QuadraticPolicy, names: tuple[str, ...], held: Mapping[str, float], runs: tuple[int, ...]
) -> ModuleStage:
    """Return what the policy of an ended stage has found; an axis that makes no difference stays where it was.

    Args:
        policy: The policy of the stage.
        names: Names of its axes.
        held: What every axis was held at before.
        runs: Numbers of its runs.
    """
    fit, found = policy.fit(), policy.recommend()
    flat_all = fit.status in NOTHING_FOUND and not (fit.status is Status.FLAT and _falls(policy))
    answers = {}
    for i, name in enumerate(names):
        key = name if i else LR  # a policy over several axes calls the first one so
        flat = flat_all
        if isinstance(fit, ResponseFit):
            flat, low, high = flat or key in fit.flat, fit.low[key], fit.high[key]
        else:
            low, high = fit.lr_low, fit.lr_high
        best = found.lr if i == 0 else found.axes[name].value if name in found.axes else None
        value = held[name] if flat or best is None else float(best)
        answers[name] = AxisAnswer(value, min(low, value), max(high, value))
    return ModuleStage(names=names, held=held, fit=fit, answers=answers, runs=runs)
