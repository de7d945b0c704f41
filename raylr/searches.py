"""What a study searches, and the policy that searches it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from raylr.analysis.across import AT_ONCE
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.events import Optimum
from raylr.spec import StudySpec
from raylr.spec.modules import reaches_all, searched_axes

if TYPE_CHECKING:
    from raylr.searchers.policies.memory import Memory
    from raylr.searchers.policies.modules import ModulesPolicy
    from raylr.searchers.policies.policy import Point
    from raylr.searchers.policies.stopping import StoppingRule

TWO_SIDED = (Status.OK, Status.UNCERTAIN, Status.PLATEAU)
"""Statuses of a search whose optimum lies between losses on either side. Before, its LR is a place in the range."""

AXES_ROUNDS = 3
"""Rounds that a search over several hyperparameters has at least: its start design, the optimum that this shows, and
what that tells."""


MORE = 3
"""Settings that begin together for each that began before them, where there is room."""
LEAD = 4
"""Runs of a setting from which it says something of others: three determine a parabola, one more shows a misfit. Also
the most LRs of a round of the first settings, which have no prior."""


@dataclass(frozen=True, kw_only=True)
class Breadth:
    """How much of a search is planned at one time.

    Settings (sizes, at each of their batches) are searched in groups, cheapest first. Those of a group run side by
    side, and each of the next group begins with what those before it have shown.

    Args:
        settings: Number of settings of the first group, the second and so on; the last of all later groups.
        runs: Most LRs of a round of one of them, likewise. The round after it is planned from their losses.
        lead: Runs of each setting of a group after which the next group begins beside it; None: when all have finished.
    """

    settings: tuple[int, ...] = (AT_ONCE,)
    runs: tuple[int, ...] = (1,)
    lead: int | None = None

    def __str__(self) -> str:
        settings = ", then ".join(map(str, self.settings))
        runs = ", then ".join(map(str, dict.fromkeys(self.runs)))  # those of later groups are all alike
        return f"{settings} sizes side by side and up to {runs} new learning rates of each at a time"

    @classmethod
    def for_room(cls, room: int, settings: int, *, groups: bool = True) -> Breadth:
        """Return the breadth that uses room for so many runs.

        A search without a prior takes twice the runs of one that has it from three settings, so that not all settings
        begin at once even where there is room: first the cheapest three, with rounds of several LRs, whose runs cost
        least; after their first `LEAD` runs up to three times as many as are known, with one LR a round, and so on. A
        single group has rounds as deep as there is room (docs/cluster.md has the numbers).

        Args:
            room: Number of runs that can train side by side.
            settings: Number of settings.
            groups: Whether a few full runs of a setting say something to the search of others; otherwise as many as
                there is room for begin at once.

        Example:
            >>> Breadth.for_room(16, 12)
            Breadth(settings=(3, 9), runs=(4, 1), lead=4)
            >>> Breadth.for_room(64, 100)
            Breadth(settings=(3, 9, 36, 52), runs=(4, 1, 1, 1), lead=4)
            >>> Breadth.for_room(12, 3), Breadth.for_room(2, 12)
            (Breadth(settings=(3,), runs=(4,), lead=None), Breadth(settings=(3,), runs=(1,), lead=None))
        """
        if not groups or room <= AT_ONCE or settings <= AT_ONCE:
            beside = max(min(room, settings), AT_ONCE)
            return cls(settings=(beside,), runs=(max(1, room // min(beside, settings)),))
        sizes, known = [AT_ONCE], AT_ONCE
        while known < settings:
            sizes.append(min(MORE * known, room, settings - known))
            known += sizes[-1]
        first = max(1, min(LEAD, room // AT_ONCE))
        return cls(settings=tuple(sizes), runs=(first, *[1] * (len(sizes) - 1)), lead=LEAD)


def breadth_for(spec: StudySpec, room: int) -> Breadth:
    """Return the breadth of a study's search with room for so many runs.

    Only searches of the LR alone, on losses at the end of runs, begin with what others have shown: one over further
    hyperparameters takes no prior, and one over curves first trains a fifth of each run, which says less.
    """
    groups = spec.search.method == "quadratic" and spec.transfer is None
    return Breadth.for_room(room, len(search_settings(spec)), groups=groups)


def search_settings(spec: StudySpec) -> list[Setting]:
    """Return what a study searches: each size at each of its batches, to the largest budget."""
    params = {name: float(model.params("total")) for name, model in spec.models().items()}
    return [
        Setting(
            name=setting.name,
            params=params[setting.size],
            tokens=float(max(spec.token_budgets)),
            batch=float(setting.train.batch_tokens),
        )
        for setting in spec.settings()
    ]


def search_policy(
    spec: StudySpec, settings: Sequence[Setting], points: Sequence[Point] = (), lrs: Mapping[str, float] | None = None,
    breadth: Breadth | None = None, memory: Memory | None = None,
) -> Any:  # fmt: skip
    """Return the policy that the spec names, which searches these settings at the largest budget.

    Args:
        spec: The study's spec.
        settings: What is searched.
        points: What earlier runs of a study that grew say (`raylr.growth.earlier_points`); they count as no trials.
        lrs: Setting → global LR, in a study with `modules` that does not search it.
        breadth: How much is planned at one time; None: as little as tells most.
        memory: Keeps what the search decides. A search of modules, which knows the noise between runs besides its
            results, goes without.
    """
    from raylr.analysis.curves.schedule import Schedule
    from raylr.searchers.policies.axes import AxesPolicy
    from raylr.searchers.policies.branching import BranchPolicy
    from raylr.searchers.policies.quadratic import QuadraticPolicy
    from raylr.searchers.policies.stopping import StoppingRule
    from raylr.searchers.policies.surface import SurfacePolicy

    search, budget, breadth = spec.search, max(spec.token_budgets), breadth or Breadth()
    shared: dict[str, Any] = {
        "lr_range": (spec.lr.low, spec.lr.high),
        "tolerance": search.tolerance,
        "max_trials": search.max_trials,
        "extend": search.extend,
        "seed": spec.seed,
        "points": points,
        "settings_at_once": breadth.settings,
        "lead": breadth.lead,
        "memory": memory,
    }
    if search.method == "quadratic":
        least = search.min_fraction if search.truncate else 1.0
        rule = StoppingRule(
            min_fraction=least, tolerance=search.loss_tolerance, schedule=Schedule.named(spec.train.schedule)
        )
        if spec.modules is not None:
            return _modules_policy(spec, settings, points, lrs or {}, rule)
        if spec.transfer is not None:
            most = math.ceil(search.max_trials / AXES_ROUNDS)
            shared["batch"] = tuple(min(runs, most) for runs in breadth.runs)
            return AxesPolicy(settings, axes=spec.transfer.axes, stopping=rule, **shared)
        shared["batch"] = breadth.runs
        if spec.objective == "decayed":
            shared["points"] = ()
            only_divergence = StoppingRule(min_fraction=1.0)
            inner = QuadraticPolicy(settings, stopping=only_divergence, seeds=spec.seeds, **shared)
            return BranchPolicy(inner, spec.token_budgets, spec.decay_spec.decay, predict=spec.decay_spec.predict)
        return QuadraticPolicy(settings, stopping=rule, seeds=spec.seeds, **shared)
    measured = spec.eval_at(budget)
    stops = sorted({min(tokens for tokens in measured if tokens >= share * budget) for share in search.rungs})
    most = max(Counter(point.setting for point in points).values(), default=0)
    shared["max_trials"] += most
    return SurfacePolicy(settings, rungs=[stop / budget for stop in stops], budget=search.budget + most, **shared)


def _modules_policy(
    spec: StudySpec, settings: Sequence[Setting], points: Sequence[Point], lrs: Mapping[str, float], rule: StoppingRule
) -> ModulesPolicy:
    from raylr.searchers.policies.modules import ModulesPolicy
    from raylr.searchers.policies.modules_stages import ModuleAxis

    given, axes = spec.modules, searched_axes(spec)
    assert given is not None
    start = {axis.name: axis.start for axis in axes}
    return ModulesPolicy(
        settings,
        axes={axis.name: ModuleAxis(low=axis.low, high=axis.high, start=axis.start) for axis in axes},
        lr_range=(spec.lr.low, spec.lr.high),
        lr=lrs,
        method=given.method,
        held=given.held,
        whole=reaches_all(spec),
        axis_trials=given.max_trials,
        replicates=given.seeds,
        max_trials=spec.search.max_trials,
        tolerance=spec.search.tolerance,
        extend=spec.search.extend,
        stopping=rule,
        points=[replace(point, config={}) for point in points if point.config == start],
        seeds=spec.seeds,
        seed=spec.seed,
    )


def optimum_now(policy: Any, size: str) -> Optimum | None:
    """Return the optimum of a size as known now; None until there are losses on both sides of it."""
    found = policy.recommend(size)
    if found.status not in TWO_SIDED or found.lr is None or found.lr_low is None or found.lr_high is None:
        return None
    return Optimum(lr=found.lr, lr_low=found.lr_low, lr_high=found.lr_high)
