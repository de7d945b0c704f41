"""The search on whole loss curves: runs pause at rungs, and only the most informative ones are resumed. No Ray.

There is one policy for both ways of pausing. A suggestion holds `stop_at`, where its segment ends. The
caller decides whether the run is then a paused process or a checkpoint on disk: it reports `PAUSED` for a run that can
be resumed and `TRUNCATED` for one that cannot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from raylr.analysis.across import AT_ONCE
from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import InputError
from raylr.searchers._config import LRDomain, number
from raylr.searchers.policies.memory import Memory
from raylr.searchers.policies.policy import Point, SettingSearch, require_count, require_tolerances
from raylr.searchers.policies.settings_policy import SettingsPolicy
from raylr.searchers.policies.surface_cell import SurfaceCell
from raylr.searchers.policies.types import Decision, RunId, Suggestion

RUNGS = (0.2, 0.35, 0.6, 1.0)
"""Shares of the target tokens at which runs pause, by default."""

WHOLE = 100.0
"""Segments end at whole numbers of tokens or steps from here on; smaller counters may be epochs, which have parts."""


class SurfacePolicy(SettingsPolicy):
    """Finds the best lr at a token target from runs of which most see a fraction of the tokens.

    A few lrs run to the first rung. From then on the next tokens are spent where they narrow the optimum at the target
    most: on a new lr, or on resuming a paused run.

    Args:
        settings: Models and budgets to be searched; each needs `tokens`, its target.
        lr_range: (low, high) of the lr, or an `LRDomain`.
        rungs: Shares of the target tokens at which runs pause; the last is 1.
        budget: Most tokens of a setting, in runs to the target: the search ends before, where no more tokens are
            worth it.
        tolerance: Expected regret at the target, relative to the loss, at which a setting is finished (seeds of one
            setting differ by 0.1 to 0.4 %).
        lr_tolerance: Factor within which the 90 % interval must hold the best lr, to either side.
        max_trials: Most runs of a setting.
        prior: As for `QuadraticPolicy`.
        extend: Whether lrs beyond the range may be tried when the optimum seems to lie there.
        settings_at_once, lead: As for `QuadraticPolicy`.
        points: Learning rates to begin with; they hold no losses, since a final loss is no curve.
        seed: 0 places the first lrs symmetrically; others shift them.
        memory: As for `QuadraticPolicy`.

    Raises:
        InputError: For arguments that cannot work.

    Example:
        >>> policy = SurfacePolicy([Setting(tokens=1e9)], lr_range=(1e-4, 1e-1))
        >>> suggestion = policy.ask()
        >>> suggestion.stop_at
        200000000.0
        >>> policy.tell(suggestion.run, RunEnd.DIVERGED)
        >>> policy.ask().run.number
        1
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        lr_range: tuple[float, float] | LRDomain | None = None,
        rungs: Sequence[float] = RUNGS,
        budget: float = 3.0,
        tolerance: float = 4e-3,
        lr_tolerance: float = 2.5,
        max_trials: int = 8,
        prior: Any = None,
        extend: bool = False,
        settings_at_once: int | Sequence[int] = AT_ONCE,
        points: Sequence[Point] = (),
        seed: int = 0,
        memory: Memory | None = None,
        lead: int | None = None,
    ) -> None:
        require_count("max_trials", max_trials)
        require_tolerances(tolerance, lr_tolerance)
        self.rungs = tuple(float(r) for r in rungs)
        if not self.rungs or self.rungs[-1] != 1.0 or sorted(set(self.rungs)) != list(self.rungs) or self.rungs[0] <= 0:
            raise InputError(f"rungs must rise from above 0 to 1, not {tuple(rungs)}")
        if not number(budget) or budget <= 0:
            raise InputError(f"budget, the most tokens of a setting in full runs, must be above 0, not {budget!r}")
        for setting in settings:
            if not number(setting.tokens) or float(setting.tokens or 0) <= 0:
                raise InputError(f"the setting {setting.name!r} has no target: give its tokens")
        if any(p.loss is not None for p in points):
            raise InputError("a search over whole curves cannot take in final losses: leave them out of the points")
        self._options: dict[str, Any] = {
            "rungs": self.rungs, "budget": float(budget), "tolerance": tolerance, "lr_factor": lr_tolerance,
            "max_trials": max_trials, "extend": extend, "memory": memory,
        }  # fmt: skip
        super().__init__(
            settings, lr_range=lr_range, prior=prior, settings_at_once=settings_at_once, seed=seed, points=points,
            lead=lead,
        )  # fmt: skip

    def final(self, run: RunId) -> tuple[float, float] | None:
        """Return a run's loss at its target and its standard error, from the surface; None if it has none there."""
        cell = self._surface(run.setting)
        if not cell.known():
            return None
        return cell.surface().run_loss(self.run(run).lr, cell.target)

    def add(self, lr: float, loss: float, setting: Setting | str | None = None) -> None:
        """Raise InputError: a final loss is no curve."""
        raise InputError("a search over whole curves cannot take in final losses")

    def _new_search(self, setting: Setting, prior: OptimumPrior, jitter: float) -> SettingSearch:
        assert self._domain is not None
        low, high, target = math.log(self._domain.low), math.log(self._domain.high), float(setting.tokens or 0)
        return cast(
            SettingSearch, SurfaceCell(low=low, high=high, prior=prior, jitter=jitter, target=target, **self._options)
        )

    def _report(self, run: RunId, tokens: float, loss: float) -> Decision:
        return self._surface(run.setting).observe(run.number, tokens, loss)

    def _tell(self, run: RunId, end: RunEnd, loss: float | None, stderr: float) -> None:
        cell, found = self._surface(run.setting), self.run(run)
        if end is not RunEnd.DIVERGED:
            if found.curve.diverged():
                end = RunEnd.DIVERGED
            elif end is not RunEnd.FAILED and not found.curve.tokens:
                end = RunEnd.NO_REPORT
            elif end is RunEnd.PAUSED and found.rung + 1 >= len(self.rungs):
                end = RunEnd.COMPLETED  # nothing is left to resume
        cell.end(run.number, end)

    def _ask_resumed(self) -> Suggestion | None:
        for name, search in self._searches.items():
            cell = cast(SurfaceCell, search)
            if cell.resumed:
                run = RunId(name, min(cell.resumed))
                cell.resume(run.number)
                return self._suggestion(run, resumes=True)
        return None

    def stop_at(self, run: RunId) -> float | None:
        """Return the tokens at which a run pauses next."""
        end = self._surface(run.setting).end_of(run.number)
        return float(math.ceil(end * (1 - 1e-12))) if end >= WHOLE else end

    def _close(self) -> None:
        for name in self._searches:
            self._surface(name).close()

    def _surface(self, setting: str) -> SurfaceCell:
        return cast(SurfaceCell, self._searches[setting])
