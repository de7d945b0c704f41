"""The search on final losses: a few runs of each setting, each where it is most informative. No Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from raylr.analysis.across import AT_ONCE
from raylr.analysis.curves.curve import OWN, Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import InputError
from raylr.searchers._config import LRDomain
from raylr.searchers.policies.cell_search import CellSearch
from raylr.searchers.policies.memory import Memory
from raylr.searchers.policies.policy import (
    Point,
    SettingSearch,
    for_groups,
    of_group,
    require_count,
    require_tolerances,
)
from raylr.searchers.policies.settings_policy import SettingsPolicy
from raylr.searchers.policies.stopping import StoppingRule
from raylr.searchers.policies.types import Decision, RunId, RunState

MAX_TRIALS = 8
"""Most runs of a setting by default."""
UNKNOWN = 0.05
"""Relative standard error of the loss of a run that was cut short and whose curve cannot be extrapolated."""


class QuadraticPolicy(SettingsPolicy):
    """Finds the lr of least final loss of each setting in as few runs as the data allow.

    Args:
        settings: Models and budgets to be searched, cheapest first; None takes one setting.
        lr_range: (low, high) of the lr, or an `LRDomain`.
        tolerance: Expected regret, in the unit of the loss, at which a setting is finished;
            None: a tenth of what a factor e of the lr costs, which is the same for any scale of the loss.
        lr_tolerance: Factor within which the 90 % interval must hold the best lr, to either side.
        max_trials: Most runs of a setting.
        prior: An `LRLaw`, the name of a preset, an `OptimumPrior`, or earlier results (dicts with lr, loss and, where
            they vary, params and tokens).
        extend: Whether lrs beyond the range may be tried when the optimum seems to lie there.
        batch: Most runs of a round of one setting, which are suggested at once; fewer where these would show the
            optimum. The first round has two, or up to four where a round may hold so many. Several numbers: of the
            first group of settings, the second and so on.
        seeds: Most runs of one lr of a setting, which differ by their seeds (`Suggestion.repeat`): where losses scatter
            around the model of them, the most informative run can be a replicate. 1: no lr is run twice. None: as many
            as tell most. Runs that failed do not count.
        settings_at_once: Settings that are searched side by side; several numbers: of the first group, the second and
            so on, the last of all later ones. What a group shows is the prior of the next.
        lead: Runs of each setting of a group after which the next group begins; None: when they have finished.
        stopping: Rule by which `report` decides to stop runs early; None: it never does.
        points: Learning rates to begin with.
        seed: 0 places the first lrs symmetrically; others shift them.
        memory: Keeps what the search decides, so that a search with the same results need not fit its model again.

    Raises:
        InputError: For arguments that cannot work.

    Example:
        >>> import math
        >>> from raylr.searchers import RunEnd
        >>> policy = QuadraticPolicy(lr_range=(1e-4, 1e-1))
        >>> while not policy.finished:
        ...     suggestion = policy.ask()
        ...     loss = 2.5 + 0.03 * math.log(suggestion.lr / 2e-3) ** 2
        ...     policy.tell(suggestion.run, RunEnd.COMPLETED, loss)
        >>> abs(math.log(policy.recommend().lr / 2e-3)) < 0.1
        True
    """

    def __init__(
        self,
        settings: Sequence[Setting] | None = None,
        *,
        lr_range: tuple[float, float] | LRDomain | None = None,
        tolerance: float | None = None,
        lr_tolerance: float = 2.0,
        max_trials: int = MAX_TRIALS,
        prior: Any = None,
        extend: bool = False,
        batch: int | Sequence[int] = 1,
        seeds: int | None = None,
        settings_at_once: int | Sequence[int] = AT_ONCE,
        stopping: StoppingRule | None = None,
        points: Sequence[Point] = (),
        seed: int = 0,
        memory: Memory | None = None,
        lead: int | None = None,
    ) -> None:
        require_count("max_trials", max_trials)
        require_count("seeds", 1 if seeds is None else seeds)
        require_count("lead", 1 if lead is None else lead)
        self._batch = for_groups("batch", batch)
        require_tolerances(tolerance, lr_tolerance)
        self._options: dict[str, Any] = {
            "tolerance": tolerance, "lr_factor": lr_tolerance, "max_trials": max_trials, "extend": extend,
            "seeds": seeds, "memory": memory,
        }  # fmt: skip
        self.stopping = stopping
        super().__init__(
            settings, lr_range=lr_range, prior=prior, settings_at_once=settings_at_once, seed=seed, points=points,
            lead=lead,
        )  # fmt: skip

    def fit(self, setting: Setting | str | None = None) -> Any:
        """Return the model of the loss of a setting, fitted to the runs that have ended: an `OptimumFit` (a
        `ResponseFit` of an `AxesPolicy`).

        Args:
            setting: The setting or its name; None for the only one.

        Raises:
            InputError: For a setting whose search has not begun.
        """
        name = self._name(setting)
        if name not in self._searches:
            raise InputError(f"the search of {name!r} has not begun")
        return cast(Any, self._searches[name]).fit()

    def runs_of(self, setting: Setting | str | None = None) -> Sequence[RunState]:
        """Return what is known of all runs of a setting, those that were given from elsewhere first."""
        found = self._searches.get(self._name(setting))
        return [] if found is None else found.runs

    def _new_search(self, setting: Setting, prior: OptimumPrior, jitter: float) -> SettingSearch:
        assert self._domain is not None
        low, high = math.log(self._domain.low), math.log(self._domain.high)
        found = CellSearch(low=low, high=high, prior=prior, jitter=jitter, batch=self._most(), **self._options)
        return cast(SettingSearch, found)

    def _most(self) -> int:
        """Most runs of a round of one of the settings that begin now."""
        return of_group(self._batch, self._group)

    def _report(self, run: RunId, tokens: float, loss: float) -> Decision:
        curve = self.run(run).curve
        if self.stopping is not None:
            curve.given = Schedule.of(self.stopping.schedule)
        if not curve.add(tokens, loss) or self.stopping is None:
            return None
        return self.stopping.decide(curve, self.target(run))

    def _tell(self, run: RunId, end: RunEnd, loss: float | None, stderr: float) -> None:
        found, target = self.run(run), self.target(run)
        found.end = end
        if end in (RunEnd.DIVERGED, RunEnd.NO_REPORT):
            return
        if end is RunEnd.FAILED:
            found.end = RunEnd.DIVERGED if found.curve.diverged() else end
            return
        curve = found.curve
        if end in (RunEnd.TRUNCATED, RunEnd.PRUNED) and stderr == 0 and target is not None and curve.tokens:
            found.loss, found.stderr = extrapolated(curve, target)
        elif loss is not None:
            found.loss, found.stderr = loss, OWN * stderr
        elif curve.tokens:
            found.loss = curve.loss[-1]
        else:
            found.end = RunEnd.NO_REPORT
            return
        if not math.isfinite(found.loss):
            found.end, found.loss = RunEnd.DIVERGED, math.nan


def extrapolated(curve: Curve, tokens: float) -> tuple[float, float]:
    """Return the loss of a run that was stopped early at `tokens`, and its own standard error."""
    value, error = curve.extrapolate(tokens)
    return float(value), float(min(OWN * error, UNKNOWN * abs(value)))
