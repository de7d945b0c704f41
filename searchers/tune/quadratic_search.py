"""`QuadraticSearch`: a Ray Tune searcher for the learning rate. An adapter: what to try is decided in `_policy`, by
`_posterior`."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from raylr.analysis.curves.curve import Curve
from raylr.analysis.optimum.posterior import ShapePrior
from raylr.searchers._config import LRDomain, check_range, flatten, log_lr_of, lookup, merge, nest, number
from raylr.searchers.policies.cell_search import CellSearch, Recommendation, Run
from raylr.searchers.policies.cells import Cell, Known, cell_of, in_order_of_cost, prior_from
from raylr.searchers.policies.priors import prior_for
from raylr.searchers.tune.inner import InnerSearch
from raylr.searchers.tune.results import DECISION, LOSS, LOSS_STDERR, take_curve, take_result, take_value
from raylr.searchers.tune.space import lr_domain, other_domains

logger = logging.getLogger(__name__)

__all__ = ["DECISION", "LOSS", "LOSS_STDERR", "QuadraticSearch"]


class QuadraticSearch(Searcher):
    """Finds the learning rate of least loss in as few trials as the data allow, and says how well it is known.

    The loss is modelled as a skewed quadratic in ln lr (Eq. 2 of Zhou et al., 2026, arXiv 2601.05049); each trial is
    placed where it says most about the optimum; the search ends (`FINISHED`) when the optimum is known within
    `tolerance`. The sequence of suggestions of a cell depends on its results and the seed only: not on timing,
    concurrency or the order in which results come.

    A result that is NaN, infinite or None, and a trial that raised, count as diverged: the best lr is lower than
    theirs. A result without the metric says nothing about its lr and is logged with the keys that did come.

    Args:
        metric: Key of the loss in the reports; None takes TuneConfig's.
        mode: "min" or "max"; None takes TuneConfig's.
        lr_key: Key of the learning rate in the config, `a/b` (or `a.b`) for {"a": {"b": ...}}.
        time_attr: Key in the reports that only grows: tokens, steps, epochs.
        lr_range: (low, high), where `param_space` holds no range.
        cells: Model sizes and budgets to be searched in one run: a suggestion is the cell's config with its lr. Cells
            are searched
            `wave` at a time, cheapest first; each wave starts from what the finished ones say about curvature and
            optimum.
        points_to_evaluate: Configs to begin with, each with the lr at `lr_key`.
        evaluated_rewards: Their losses, where they are known: those are not run again.
        tolerance: Expected regret, relative to the loss, at which a cell is finished (0.001: 0.1 %).
        lr_tolerance: And the factor within which the 90 % interval must hold the best lr, to either side.
        max_trials: Most trials of a cell.
        prior: What is known beforehand: an `LRLaw`, the name of a preset, a `ShapePrior`, or earlier results (rows
            with lr, loss
            and, if they vary, params and tokens).
        extend: Whether lrs beyond the range may be tried when the optimum seems to lie there.
        batch: Trials of one cell that run at once after its first two.
        wave: Cells that are searched side by side.
        inner: The searcher for whatever else `param_space` leaves open, copied for each cell after the first; None
            takes OptunaSearch, False refuses such a space. The effect of its values on the loss counts as noise here.
        seed: 0 places the first lrs symmetrically; others shift them.

    Raises:
        ValueError: for a range that is not positive, a grid or constant at `lr_key`, cells with one name, points
        without an lr.
    """

    def __init__(
        self,
        metric: str | None = None,
        mode: str | None = None,
        *,
        lr_key: str = "lr",
        time_attr: str = "tokens",
        lr_range: tuple[float, float] | None = None,
        cells: Sequence[Cell] | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        evaluated_rewards: Sequence[float] | None = None,
        tolerance: float = 1e-3,
        lr_tolerance: float = 2.0,
        max_trials: int = 8,
        prior: Any = None,
        extend: bool = False,
        batch: int = 1,
        wave: int = 3,
        seed: int = 0,
        inner: Searcher | bool | None = None,
    ):
        if mode is not None and mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", not {mode!r}')
        super().__init__(metric=metric, mode=mode)
        self._metric: str | None = metric
        self._mode: str | None = mode
        for name, value, least in (("max_trials", max_trials, 1), ("batch", batch, 1), ("wave", wave, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        if not tolerance > 0 or not lr_tolerance > 1:
            raise ValueError(
                f"tolerance must be above 0 and lr_tolerance above 1, not {tolerance!r} and {lr_tolerance!r}"
            )
        self.lr_key = lr_key.replace(".", "/")
        self.time_attr = time_attr
        self.cells = in_order_of_cost(cells) if cells else [Cell("")]
        names = [c.name for c in self.cells]
        if len(set(names)) < len(names):
            raise ValueError(f"two cells have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}")
        self._settings: dict[str, Any] = {
            "tolerance": tolerance,
            "lr_factor": lr_tolerance,
            "max_trials": max_trials,
            "extend": extend,
            "batch": batch,
        }
        self._wave, self._seed = wave, seed
        self._base = [prior_for(prior, c) for c in self.cells]
        self._domain: LRDomain | None = None
        self._searches: dict[str, CellSearch] = {}
        self._trials: dict[str, tuple[str, int]] = {}
        self._inner_searcher: Any = inner
        self._inner: InnerSearch | None = None
        self._target = {c.name: c.tokens for c in self.cells}
        self._curves: dict[str, Curve] = {}
        self._live: set[str] = set()
        self._paused: set[str] = set()
        self._memory: dict[str, list[tuple[float, Mapping[str, Any] | None]]] = {}
        self._max_concurrent = 0
        self._points: list[tuple[dict[str, Any], float | None]] = [(dict(p), None) for p in points_to_evaluate or ()]
        if evaluated_rewards is not None:
            if len(evaluated_rewards) != len(self._points):
                raise ValueError(
                    f"{len(self._points)} points_to_evaluate but {len(evaluated_rewards)} evaluated_rewards"
                )
            self._points = [(p, r) for (p, _), r in zip(self._points, evaluated_rewards, strict=True)]
        self._cell_of_points = [cell_of(p, self.cells) for p, _ in self._points]
        if lr_range is not None:
            check_range(float(lr_range[0]), float(lr_range[1]), self.lr_key)
            self._set_domain(LRDomain(float(lr_range[0]), float(lr_range[1])))

    # --- what Tune calls ---

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric, mode and the range from the Tuner. ValueError for a space that cannot be searched."""
        if metric and self._metric and metric != self._metric:
            return False
        if mode is not None and mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", not {mode!r}')
        flat = flatten(config)
        if self._domain is None or isinstance(flat.get(self.lr_key), Domain):
            domain = lr_domain(config, self.lr_key)
            if self._domain is not None and domain.signature != self._domain.signature:
                raise ValueError(
                    f"this searcher has worked in [{self._domain.low:g}, {self._domain.high:g}] and is now given "
                    f"[{domain.low:g}, {domain.high:g}] for {self.lr_key!r}: start a new one, or give the old range."
                )
            if self._domain is None:
                self._set_domain(domain)
        self._metric, self._mode = self._metric or metric, self._mode or mode
        self._set_inner(other_domains(config, self.lr_key))
        return True

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Run at most this many trials at once; the suggestions stay the same."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Config of the next trial; None while all cells wait for results; `Searcher.FINISHED` when all are done."""
        if self._domain is None:
            raise ValueError(
                f"no range to search: give param_space={{{self.lr_key!r}: tune.loguniform(low, high)}} or lr_range=."
            )
        if self._max_concurrent and len(self._live - self._paused) >= self._max_concurrent:
            return None
        search = self._next_cell()
        if search is None:
            return Searcher.FINISHED if self.finished else None
        cell, state = search
        more: Any = {}
        if self._inner is not None:
            more = self._inner.suggest(cell.name, trial_id, len(state.runs), state.planned)
            if not isinstance(more, dict):
                return None if more is None else Searcher.FINISHED
        run = state.start()
        value = self._domain.value(run.log_lr)
        run.log_lr = math.log(value)
        self._trials[trial_id] = (cell.name, len(state.runs) - 1)
        self._live.add(trial_id)
        return merge(merge(more, dict(cell.config)), nest(self.lr_key, value))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the curve: should another scheduler cut the trial short, its loss at the cell's tokens is
        extrapolated."""
        tokens, loss = lookup(result, self.time_attr), lookup(result, str(self._metric))
        if trial_id in self._live and number(tokens) and number(loss):
            self._curves.setdefault(trial_id, Curve()).add(float(tokens), self._sign * float(loss))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take in the loss of an ended trial; never raises."""
        self._paused.discard(trial_id)
        where = self._trials.get(trial_id)
        if where is None:
            logger.debug("trial %s is not one of this searcher's", trial_id)
            return
        run = self._searches[where[0]].runs[where[1]]
        if self._inner is not None:
            self._inner.complete(trial_id, result, error)
        if run.state == "pending":
            if result is not None and not error:
                self.on_trial_result(trial_id, dict(result))
            take_result(run, result, error=error, metric=str(self._metric), sign=self._sign, trial=trial_id)
            take_curve(run, self._curves.get(trial_id), result, self._target[where[0]])
        self._curves.pop(trial_id, None)
        self._live.discard(trial_id)

    def on_pause(self, trial_id: str) -> None:
        """A paused trial takes no slot."""
        self._paused.add(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """It runs again."""
        self._paused.discard(trial_id)

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Take in a loss that was measured elsewhere; it counts as no trial. A pruned one says nothing about the
        end."""
        cell, lr = cell_of(parameters, self.cells), lookup(parameters, self.lr_key)
        self._require_space()
        if pruned:
            return
        state = self._searches[cell.name]
        run = Run(log_lr_of(lr, parameters, self.lr_key))
        take_value(run, value, failed=error, sign=self._sign)
        state.runs.append(run)
        state.given += 1
        if state.finished and state.pending() == 0 and state.tried() == 0:
            state.finished = False

    def save(self, checkpoint_path: str) -> None:
        """Write everything that the search knows."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("_max_concurrent",)}
        with Path(checkpoint_path).open("wb") as file:
            pickle.dump(state, file)

    def restore(self, checkpoint_path: str) -> None:
        """Go on from `save`'s file, in this object."""
        with Path(checkpoint_path).open("rb") as file:
            self.__dict__.update(pickle.load(file))

    # --- what people call ---

    @property
    def finished(self) -> bool:
        """Whether every cell is finished."""
        return (
            bool(self._searches)
            and len(self._searches) == len(self.cells)
            and all(s.finished for s in self._searches.values())
        )

    def recommend(self, cell: Cell | str | None = None) -> Recommendation:
        """The lr that the search would choose now for `cell`, with its interval, predicted loss and regret, and why."""
        name = cell.name if isinstance(cell, Cell) else cell
        if name is None and len(self.cells) == 1:
            name = self.cells[0].name
        if name not in {c.name for c in self.cells}:
            raise ValueError(f"which cell? One of {[c.name for c in self.cells]}, not {cell!r}")
        if name not in self._searches:
            return Recommendation(None, None, None, None, None, "too_few", "this cell has not begun", 0)
        out = self._searches[name].recommend()
        if out.loss is None or self._mode != "max":
            return out
        return Recommendation(**{**out.__dict__, "loss": -out.loss})

    def recall(self, results: Iterable[tuple[str | None, float, Mapping[str, Any] | None]]) -> int:
        """Take in trials of an earlier run of the same search: (cell name, lr, last result or None for a failed one).

        Whenever the search would suggest one of these lrs (within 1e-6) it uses the result instead of a new trial, so
        that it comes out with the same suggestions as before. Returns how many there are; results never asked for
        change nothing."""
        count = 0
        for name, lr, result in results:
            key = self.cells[0].name if name is None else name
            self._memory.setdefault(key, []).append((float(lr), result))
            count += 1
        return count

    # --- inside ---

    @property
    def _sign(self) -> float:
        return -1.0 if self._mode == "max" else 1.0

    def _require_space(self) -> None:
        if self._domain is None:
            raise ValueError(
                "the search has no range yet: give lr_range=, or add results after the Tuner has set the space"
            )

    def _set_domain(self, domain: LRDomain) -> None:
        self._domain = domain
        self._start_wave()

    def _start_wave(self) -> None:
        """Begin the next cells, each from what the finished ones say."""
        assert self._domain is not None
        begun = len(self._searches)
        done = [(c, self._searches[c.name]) for c in self.cells[:begun]]
        known = [Known(c, state.moments()) for c, state in done if state.known()]
        for i in range(begun, min(begun + self._wave, len(self.cells))):
            self._begin(i, known)

    def _begin(self, index: int, known: Sequence[Known]) -> None:
        assert self._domain is not None
        cell = self.cells[index]
        jitter = 0.0 if self._seed == 0 else float(np.random.default_rng([self._seed, index]).uniform(-0.3, 0.3))
        prior: ShapePrior = prior_from(cell, known, self.cells, self._base[index])
        state = self._new_cell(cell, prior, jitter)
        self._searches[cell.name] = state
        for (point, reward), owner in zip(self._points, self._cell_of_points, strict=True):
            if owner is cell:
                log_lr = log_lr_of(lookup(point, self.lr_key), point, self.lr_key)
                if reward is None:
                    state.put(log_lr)
                else:
                    self.add_evaluated_point(point, reward)

    def _new_cell(self, cell: Cell, prior: ShapePrior, jitter: float) -> CellSearch:
        assert self._domain is not None
        low, high = math.log(self._domain.low), math.log(self._domain.high)
        return CellSearch(low=low, high=high, prior=prior, jitter=jitter, **self._settings)

    def _next_cell(self) -> tuple[Cell, CellSearch] | None:
        """The begun cell with the fewest trials among those that want one, using up remembered results first."""
        while True:
            wanting = []
            for cell in self.cells[: len(self._searches)]:
                state = self._searches[cell.name]
                while (log_lr := state.next()) is not None and self._remembered(cell, state, log_lr):
                    pass
                if log_lr is not None:
                    wanting.append((cell, state))
            if wanting:
                return min(wanting, key=lambda pair: pair[1].tried())
            if len(self._searches) == len(self.cells) or not all(s.finished for s in self._searches.values()):
                return None
            self._start_wave()

    def _remembered(self, cell: Cell, state: CellSearch, log_lr: float) -> bool:
        """Whether an earlier run tried this lr: if so, take its result in place of a trial."""
        assert self._domain is not None
        value = math.log(self._domain.value(log_lr))
        for i, (lr, result) in enumerate(self._memory.get(cell.name, ())):
            if abs(math.log(lr) - value) < 1e-6:
                del self._memory[cell.name][i]
                run = state.start()
                run.log_lr = value
                take_result(
                    run, result, error=result is None, metric=str(self._metric), sign=self._sign, trial="(remembered)"
                )
                return True
        return False

    def _set_inner(self, space: dict[str, Any]) -> None:
        """Hand whatever else is searched to the inner searcher."""
        if not space:
            return
        if self._inner_searcher is False:
            raise ValueError(f"inner=False leaves nothing to search {', '.join(space)}: give constants.")
        if self._inner is None:
            self._inner = InnerSearch(self._inner_searcher, self._seed, space, [c.name for c in self.cells])
        self._inner.begin(self._metric, self._mode)
