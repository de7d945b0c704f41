"""The search on losses after a decay: each LR is one trunk at a constant LR, and its decays are branches of it. No Ray.

    inner search ──LR──▶ trunk ──▶ branch at the largest budget ──loss──▶ inner search
                                    │ branches at the smaller budgets, at the end of a setting's search

The inner search (`QuadraticPolicy`) decides about LRs from losses after the decay. Nothing is stopped early because of
an extrapolated loss: a trunk's loss says little about the loss after its decay. What all trunks and the branches so far
do say is the annealing law (`analysis.curves.annealing`): a branch is not trained where the law excludes that its LR is
the best one, and at the smaller budgets only where it narrows the optimum.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from raylr.analysis.curves.annealing import AnnealingFit
from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Decay
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.surface.decayed import Branch, annealing_of, decayed_optimum
from raylr.errors import InputError
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.types import Decision, Recommendation, RunId, Suggestion

FIRST = 2
"""LRs of a setting that are decayed at a budget before the law says anything: it needs one fall, and a second one at
another LR tells how what a decay gives depends on the LR."""
SURE = 2.0
"""Standard errors by which a predicted loss must lie above the best measured one for its branch not to be trained."""

WORTH = 0.2
"""Share of the variance of an optimum from which measuring predicted losses is worth a branch, as in
`surface_cell.WORTH`."""


class Part(NamedTuple):
    """Identity of what is trained: the trunk of a run (no budget), or its branch at a budget."""

    run: RunId
    budget: float | None = None


@dataclass(frozen=True, kw_only=True)
class PartSuggestion:
    """A trunk or a branch to be trained."""

    part: Part
    of: Suggestion
    """The LR and everything else about the run."""


@dataclass
class _Run:
    """One LR of a setting."""

    of: Suggestion
    trunk: Curve = field(default_factory=Curve)
    ended: bool = False
    """Whether the trunk was trained to its end."""
    decays: dict[float, Curve] = field(default_factory=dict)
    """Budget -> reports of the branch."""
    losses: dict[float, float] = field(default_factory=dict)
    """Budget -> loss after the decay, NaN for a branch that diverged."""


class BranchPolicy:
    """Finds the LR of least loss after a decay, at several budgets, from one trunk a LR.

    Args:
        search: Decides about LRs; its settings have the largest budget as their tokens.
        budgets: Token budgets, those of the decay included.
        decay: How the LR falls; the same for all budgets.
        predict: Whether the annealing law spares branches. False: every trunk branches at every budget.

    Raises:
        InputError: Without a budget.

    Example:
        >>> from raylr.analysis import Decay
        >>> search = QuadraticPolicy([Setting(name="S", tokens=100.0)], lr_range=(1e-4, 1e-1), max_trials=3)
        >>> policy = BranchPolicy(search, [50.0, 100.0], Decay(fraction=0.2), predict=False)
        >>> first = policy.ask()
        >>> first.part.budget is None  # the trunk comes first
        True
        >>> policy.tell(first.part, RunEnd.COMPLETED, 3.0)
        >>> policy.ask().part.budget  # and is decayed at its end
        100.0
    """

    def __init__(
        self, search: QuadraticPolicy, budgets: Sequence[float], decay: Decay, *, predict: bool = True
    ) -> None:
        if not budgets:
            raise InputError("at least one budget is needed")
        self._search, self._decay, self._predict = search, decay, predict
        self._budgets = sorted(float(one) for one in budgets)
        self._runs: dict[RunId, _Run] = {}
        self._of: dict[str, list[tuple[RunId, _Run]]] = {}
        """Setting → its runs, in the order in which they were suggested, which is that of their numbers."""
        self._queue: deque[PartSuggestion] = deque()
        self._open: set[Part] = set()
        self._left: Counter[str] = Counter()
        """Setting → its parts that wait or train."""

    # -- what a study calls --

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self._search.finished and not self._queue and not self._open

    def ended(self, setting: Setting | str) -> bool:
        """Whether the search of one setting has ended, with all its branches."""
        name = setting.name if isinstance(setting, Setting) else setting
        return self._search.ended(setting) and not self._left[name]

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the LR that would be chosen now at the largest budget."""
        return self._search.recommend(setting)

    def ask(self) -> PartSuggestion | None:
        """Return what to train next; None while it waits for results, or has finished."""
        if self._queue:
            found = self._queue.popleft()
        else:
            suggestion = self._search.ask()
            if suggestion is None:
                return None
            found = PartSuggestion(part=Part(suggestion.run), of=suggestion)
            self._runs[suggestion.run] = run = _Run(of=suggestion)
            self._of.setdefault(suggestion.run.setting, []).append((suggestion.run, run))
            self._left[suggestion.run.setting] += 1
        self._open.add(found.part)
        return found

    def report(self, part: Part, tokens: float, loss: float, current_lr: float | None = None) -> Decision:
        """Take in a report, as `Policy.report`. A branch is never stopped; a trunk is stopped if it diverged."""
        run = self._runs[part.run]
        curve = run.trunk if part.budget is None else run.decays.setdefault(part.budget, Curve())
        curve.add(tokens, loss)
        if current_lr is not None:
            curve.note_lr(tokens, current_lr)
        if part.budget is not None:
            return None
        decision = self._search.report(part.run, tokens, loss, *(() if current_lr is None else (current_lr,)))
        return decision if decision is RunEnd.DIVERGED else None

    def tell(self, part: Part, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a trunk or of a branch, as `Policy.tell`."""
        if part not in self._open:
            return
        self._open.discard(part)
        self._left[part.run.setting] -= 1
        run, largest = self._runs[part.run], self._budgets[-1]
        if part.budget is None:
            if end in (RunEnd.DIVERGED, RunEnd.FAILED, RunEnd.NO_REPORT):
                self._search.tell(part.run, end)
            else:
                run.ended = True
                self._decay_at_the_end(part.run)
        elif end in (RunEnd.FAILED, RunEnd.NO_REPORT):
            if part.budget == largest:
                self._search.tell(part.run, end)
        else:
            found = math.nan if end is RunEnd.DIVERGED or loss is None else float(loss)
            run.losses[part.budget] = found
            if part.budget == largest:
                self._search.tell(part.run, RunEnd.COMPLETED if math.isfinite(found) else RunEnd.DIVERGED, found)
        self._smaller_budgets(part.run.setting)

    # -- the branches --

    def _branch(self, run: RunId, budget: float) -> None:
        self._queue.append(PartSuggestion(part=Part(run, budget), of=self._runs[run].of))
        self._left[run.setting] += 1

    def _decay_at_the_end(self, run: RunId) -> None:
        """Train the branch of a trunk at the largest budget, unless its LR is excluded as the best one.

        Only runs count that had ended when this one was planned, so that nothing depends on timing."""
        budget, own = self._budgets[-1], self._runs[run]
        before = [one for key, one in self._of[run.setting] if key.number < own.of.known]
        losses = [one.losses[budget] for one in before if math.isfinite(one.losses.get(budget, math.nan))]
        if self._predict and len(losses) >= FIRST:
            fit = _annealing([*before, own], self._decay)
            if fit.ok:
                mean, spread = fit.ends([self._decay.path(own.of.lr, budget)])
                error = math.sqrt(float(spread[0, 0]))
                if float(mean[0]) - SURE * error > min(losses):
                    self._search.tell(run, RunEnd.TRUNCATED, float(mean[0]), error)
                    return
        self._branch(run, budget)

    def _smaller_budgets(self, setting: str) -> None:
        """Once the search of a setting has ended, train the branches at smaller budgets that narrow their optima."""
        if not self.ended(setting):
            return
        for budget in self._budgets[:-1]:
            for run in self._next_at(setting, budget):
                self._branch(run, budget)

    def _next_at(self, setting: str, budget: float) -> list[RunId]:
        """Runs to be decayed next at a smaller budget; empty if its optimum is known well enough."""
        runs = {key: one for key, one in self._of[setting] if one.ended}
        waiting = [key for key, one in runs.items() if budget not in one.decays and budget not in one.losses]
        if not self._predict or not waiting:
            return waiting
        fit = _annealing(list(runs.values()), self._decay)
        if fit.posterior is None:
            return waiting
        known = [(one.of.lr, one.losses[budget]) for one in runs.values() if budget in one.losses]
        found = decayed_optimum(fit, self._decay, budget, [run.of.lr for run in runs.values()], measured=known)
        if len(known) < min(FIRST, len(runs)):
            if not math.isfinite(found.lr):
                return waiting
            near = sorted(waiting, key=lambda key: abs(math.log(runs[key].of.lr / found.lr)))
            return near[: FIRST - len(known)]
        if found.predicted_share < WORTH:
            return []
        lows = {float(lr): loss - SURE * sd for lr, loss, sd in zip(found.lrs, found.losses, found.stderr, strict=True)}
        best = min((loss for _, loss in known if math.isfinite(loss)), default=math.inf)
        open_ones = [key for key in waiting if not lows.get(runs[key].of.lr, -math.inf) > best]
        return sorted(open_ones, key=lambda key: lows.get(runs[key].of.lr, -math.inf))[:1]


def _annealing(runs: Sequence[_Run], decay: Decay) -> AnnealingFit:
    """The annealing law of trunks and of all their branches so far."""
    stable = [(run.of.lr, run.trunk.tokens, run.trunk.loss) for run in runs]
    branches = [
        Branch(lr=run.of.lr, budget=budget, tokens=np.array(curve.tokens), loss=np.array(curve.loss))
        for run in runs
        for budget, curve in run.decays.items()
    ]
    return annealing_of(stable, branches, decay)
