"""`SurfaceSearch`: a `QuadraticSearch` whose runs can be frozen and thawed. An adapter: what to do next is in
`_surface_policy`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from raylr.analysis.optimum.posterior import ShapePrior
from raylr.searchers._config import has, lookup, number, real
from raylr.searchers.policies.cell_search import CellSearch
from raylr.searchers.policies.cells import Cell
from raylr.searchers.policies.surface_cell import SurfaceCell
from raylr.searchers.tune.quadratic_search import DECISION, QuadraticSearch

logger = logging.getLogger(__name__)


class SurfaceSearch(QuadraticSearch):
    """Finds the best learning rate at a token target from runs of which most see a fraction of the tokens.

    To be used with `PowerLawScheduler(mode="freeze")`, which shares its model: a few lrs run to the first rung, and
    from then on the next tokens go where they narrow the optimum at the target, to a new lr or to more of an old one.
    Trainables that report checkpoints are paused and go on; others end at their rung, and only new lrs follow. With
    any other scheduler every trial runs to its end. Suggestions and resumptions depend on the results only, never on
    timing.

    Args:
        rungs: Shares of the target tokens at which runs stop; the last is 1.
        budget: Most tokens of a cell, in runs to the target: the search ends before where no more tokens are worth it.
        cells: As for `QuadraticSearch`; each needs `tokens`, its target. None takes one cell, at `target`.
        target: Tokens at which the loss counts, for a search without cells.
        tolerance: Expected regret at the target, relative to the loss, at which a cell is finished (seeds of one
            setting differ by 0.1-0.4 %).
        lr_tolerance: And the factor within which the 90 % interval must hold the best lr, to either side.
        **options: As for `QuadraticSearch`.

    Raises:
        ValueError: for rungs that do not rise to 1, for cells without tokens, and for a space with other
            hyperparameters: all runs of a cell share one surface.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        rungs: Sequence[float] = (0.2, 0.35, 0.6, 1.0),
        budget: float = 3.0,
        cells: Sequence[Cell] | None = None,
        target: float | None = None,
        tolerance: float = 4e-3,
        lr_tolerance: float = 2.5,
        **options: Any,
    ):
        self.rungs = tuple(float(r) for r in rungs)
        if not self.rungs or self.rungs[-1] != 1.0 or sorted(set(self.rungs)) != list(self.rungs) or self.rungs[0] <= 0:
            raise ValueError(f"rungs must rise from above 0 to 1, not {tuple(rungs)}")
        if not budget > 0:
            raise ValueError(f"budget, the most tokens of a cell in full runs, must be above 0, not {budget!r}")
        self.budget = float(budget)
        cells = cells or [Cell("", tokens=target)]
        for cell in cells:
            if cell.tokens is None or not cell.tokens > 0:
                raise ValueError(f"cell {cell.name!r} has no target: give its tokens (without cells: target=)")
        if options.setdefault("inner", False) is not False:
            raise ValueError("the surface is that of one model: other hyperparameters cannot be searched with it")
        if options.get("evaluated_rewards") is not None:
            raise ValueError("a search over whole curves cannot take in final losses: leave out evaluated_rewards")
        super().__init__(metric, mode, cells=cells, tolerance=tolerance, lr_tolerance=lr_tolerance, **options)

    # --- what Tune calls ---

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take in a report, if the scheduler has not done so already."""
        self.observe(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """An ended trial; never raises."""
        self._paused.discard(trial_id)
        self._live.discard(trial_id)
        where = self._find(trial_id)
        if where is None:
            return
        cell, index = where
        if cell.runs[index].state == "frozen":  # stopped by the scheduler when the search had finished
            cell.end(index, "ended")
        if cell.runs[index].state != "active":
            return
        if error or (result is not None and lookup(result, DECISION) == "diverged"):
            cell.end(index, "diverged")
            return
        if result is not None:
            self.observe(trial_id, result)
        curve = cell.runs[index].curve
        cell.end(index, "diverged" if curve.diverged() else "ended" if curve.loss else "void")

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Not possible: a final loss is no curve."""
        raise ValueError("a search over whole curves cannot take in final losses")

    def recall(self, results: Iterable[tuple[str | None, float, Mapping[str, Any] | None]]) -> int:
        """Not possible: a last result is no curve; `Tuner.restore` continues such a search."""
        raise ValueError("a search over whole curves cannot take in final losses")

    # --- what the scheduler calls ---

    def observe(self, trial_id: str, result: Mapping[str, Any]) -> str | None:
        """Take in a report: "freeze", "complete", "diverged" or None. Reports that came before change nothing."""
        where = self._find(trial_id)
        tokens = lookup(result, self.time_attr)
        if where is None or not number(tokens):
            return None
        if not has(result, str(self._metric)):
            return None
        loss = lookup(result, str(self._metric))
        value = float(loss) if real(loss) else math.nan
        return where[0].observe(where[1], float(tokens), -value if self._mode == "max" else value)

    def freeze(self, trial_id: str, can_go_on: bool) -> None:
        """The trial stopped at its rung; with `can_go_on` it is paused and can be thawed."""
        where = self._find(trial_id)
        if where is not None:
            where[0].freeze(where[1], can_go_on)
            if can_go_on:
                self.on_pause(trial_id)

    def frozen(self, trial_id: str) -> bool:
        """Whether the trial is frozen, and not to go on yet."""
        where = self._find(trial_id)
        return where is not None and where[0].runs[where[1]].state == "frozen" and where[1] not in where[0].thaw

    def wants(self, trial_id: str) -> bool:
        """Whether a frozen trial is to go on now."""
        where = self._find(trial_id)
        return where is not None and where[1] in where[0].thaw

    def plan(self, no_more_trials: bool) -> None:
        """Plan the next round of cells whose runs have all stopped."""
        for state in self._surfaces.values():
            if no_more_trials:
                state.close()
            state.next()
        if no_more_trials and all(s.finished for s in self._searches.values()):
            self._closed = True

    @property
    def finished(self) -> bool:
        """Whether every cell is finished, or every begun one if no trial can be added."""
        return self._closed or super().finished

    def final(self, trial_id: str) -> tuple[float, float] | None:
        """The loss of a trial at its cell's target and its standard error, from the surface; None where it cannot
        tell."""
        where = self._find(trial_id)
        if where is None or not where[0].known():
            return None
        loss, stderr = where[0].surface().loss(math.exp(where[0].runs[where[1]].log_lr), where[0].target)
        return (-float(loss) if self._mode == "max" else float(loss)), float(stderr)

    # --- inside ---

    _closed = False

    @property
    def _surfaces(self) -> dict[str, SurfaceCell]:
        return cast(dict[str, SurfaceCell], self._searches)

    def _find(self, trial_id: str) -> tuple[SurfaceCell, int] | None:
        where = self._trials.get(trial_id)
        return None if where is None else (self._surfaces[where[0]], where[1])

    def _new_cell(self, cell: Cell, prior: ShapePrior, jitter: float) -> CellSearch:
        assert self._domain is not None
        options = {k: v for k, v in self._settings.items() if k != "batch"}
        state = SurfaceCell(
            low=math.log(self._domain.low), high=math.log(self._domain.high), prior=prior, jitter=jitter,
            target=float(cell.tokens or 0), rungs=self.rungs, budget=self.budget, **options,
        )  # fmt: skip
        return cast(CellSearch, state)
