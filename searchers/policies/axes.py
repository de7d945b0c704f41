"""The search over the learning rate and further hyperparameters at once. No Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from raylr.analysis.across import AT_ONCE
from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.optimum.response import AXES
from raylr.analysis.runs import Setting
from raylr.errors import InputError
from raylr.searchers._config import LRDomain, as_float, check_range, lookup
from raylr.searchers.policies.axes_search import LR, AxesSearch, default_trials
from raylr.searchers.policies.memory import Memory
from raylr.searchers.policies.policy import Point, SettingSearch
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.stopping import StoppingRule
from raylr.searchers.policies.types import Recommendation, RunId, RunState, Suggestion


class AxesPolicy(QuadraticPolicy):
    """Finds the lr of least final loss together with one to three further hyperparameters.

    It takes about nine runs for the lr and one further axis, in place of a grid. All axes are searched in the
    logarithm. A suggestion holds the further axes in `axes`, and so does the recommendation, with intervals and with
    the ridge: how the best lr moves with each of them.

    Args:
        settings: Models and budgets to be searched, cheapest first; None takes one setting.
        axes: Name of each further hyperparameter → (low, high) or an `LRDomain`; a list of names where `set_axes` gives
            their ranges later.
        lr_range: (low, high) of the lr, or an `LRDomain`.
        tolerance: Expected regret, in the unit of the loss, at which a setting is finished; None: a tenth of what a
            factor e of the lr costs.
        max_trials: Most runs of a setting; None: 3 more than a quadratic over the axes has parameters (9 for the lr and
            one further axis).
        extend: Whether values beyond the ranges may be tried when the best ones seem to lie there.
        batch: Runs of one setting that are suggested at once after its first two.
        settings_at_once, lead: As for `QuadraticPolicy`.
        stopping: Rule by which `report` decides to stop runs early; None: it never does.
        points: Places to begin with: their `config` holds the further axes.
        seed: 0 takes one start design; others take others.
        memory: As for `QuadraticPolicy`.

    Raises:
        InputError: For arguments that cannot work.

    Example:
        >>> import math
        >>> from raylr.searchers import RunEnd
        >>> policy = AxesPolicy(lr_range=(1e-4, 1e-1), axes={"weight_decay": (1e-2, 1)})
        >>> while not policy.finished:
        ...     suggestion = policy.ask()
        ...     lr, decay = math.log(suggestion.lr / 2e-3), math.log(suggestion.axes["weight_decay"] / 0.1)
        ...     policy.tell(suggestion.run, RunEnd.COMPLETED, 2.5 + 0.03 * (lr + 0.5 * decay) ** 2 + 0.01 * decay**2)
        >>> found = policy.recommend()
        >>> abs(math.log(found.lr / 2e-3)) < 0.1, abs(math.log(found.axes["weight_decay"].value / 0.1)) < 0.2
        (True, True)
    """

    def __init__(
        self,
        settings: Sequence[Setting] | None = None,
        *,
        axes: Sequence[str] | Mapping[str, tuple[float, float] | LRDomain],
        lr_range: tuple[float, float] | LRDomain | None = None,
        tolerance: float | None = None,
        max_trials: int | None = None,
        extend: bool = False,
        batch: int | Sequence[int] = 1,
        settings_at_once: int | Sequence[int] = AT_ONCE,
        stopping: StoppingRule | None = None,
        points: Sequence[Point] = (),
        seed: int = 0,
        memory: Memory | None = None,
        lead: int | None = None,
    ) -> None:
        names = require_axes(axes, LR)
        self._names, self._axes, self._start = tuple(names), dict[str, LRDomain](), seed
        if isinstance(axes, Mapping):
            self._axes = _domains(axes)
        most = default_trials(1 + len(names)) if max_trials is None else max_trials
        super().__init__(
            settings, tolerance=tolerance, max_trials=most, extend=extend, batch=batch,
            settings_at_once=settings_at_once, stopping=stopping, points=points, memory=memory, lead=lead,
        )  # fmt: skip
        if lr_range is not None:
            self.begin(lr_range)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the further hyperparameters."""
        return self._names

    def set_axes(self, axes: Mapping[str, Any]) -> None:
        """Take the ranges of the further axes: (low, high), an `LRDomain`, or its fields, before `begin`.

        Raises:
            InputError: For names that the policy was not made with, ranges that are not positive, or other ranges than
                before.
        """
        domains = _domains(axes)
        if not set(domains) <= set(self._names):
            raise InputError(f"the axes are {sorted(self._names)}, and ranges were given for {sorted(domains)}")
        for name, domain in domains.items():
            if self._axes.get(name, domain) != domain:
                raise InputError(f"this search has worked in another range of {name!r}: start a new one")
            if name not in self._axes:
                self.history.add("axes", {name: [domain.low, domain.high, domain.step, domain.origin, domain.integer]})
                self._axes[name] = domain

    def has_range(self, name: str) -> bool:
        """Whether the range of an axis is known."""
        return name in self._axes

    def begin(self, lr_range: tuple[float, float] | LRDomain) -> None:
        """Begin to search; the ranges of all axes are known.

        Raises:
            InputError: Where they are not, for a range that is not positive, or another one than before.
        """
        if set(self._axes) != set(self._names):
            raise InputError(f"no ranges for the axes {sorted(self._names)}: give axes={{name: (low, high)}}")
        super().begin(lr_range)

    def add(
        self, lr: float, loss: float, setting: Setting | str | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        """Take in a final loss that was measured elsewhere; it counts as no trial.

        Args:
            lr: Its learning rate.
            loss: Its loss, smaller is better; not finite: it diverged.
            setting: Its setting; None for the only one.
            config: Holds the values of the further axes.

        Raises:
            InputError: For values that are not positive, before the search has its ranges, or before its setting began.
        """
        point = Point(lr=lr, loss=float(loss), setting=self._name(setting), config=config or {})
        if point.setting not in self._searches:
            raise InputError("the search has no range yet: give lr_range=, or add results after the range is known")
        values = {name: math.exp(v) for name, v in zip(self._names, self._others(point), strict=True)}
        self.history.add("add", point.lr, point.loss, point.setting, values)
        self._add(point)
        self._plan_again(str(point.setting))

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the place that would be chosen now for a setting: the lr, and in `axes` the further axes.

        Args:
            setting: The setting or its name; None for the only one.

        Raises:
            InputError: For a setting that is not searched.
        """
        found = super().recommend(setting)
        axes = {}
        for name, answer in found.axes.items():
            domain = self._axes[name]
            value = float(domain.value(math.log(answer.value))) if domain.quantised else answer.value
            axes[name] = replace(answer, value=value, low=min(answer.low, value), high=max(answer.high, value))
        return replace(found, axes=axes)

    # --- inside ---

    def _new_search(self, setting: Setting, prior: OptimumPrior, jitter: float) -> SettingSearch:
        assert self._domain is not None
        options = {k: v for k, v in self._options.items() if k not in ("lr_factor", "seeds")} | {"batch": self._most()}
        domains = {LR: self._domain, **{name: self._axes[name] for name in self._names}}
        return cast(SettingSearch, AxesSearch(domains=domains, seed=self._start, **options))

    def _suggestion(self, run: RunId, *, resumes: bool) -> Suggestion:
        state = self.run(run)
        values = {n: self._axes[n].value(v) for n, v in zip(self._names, state.others, strict=True)}
        state.others = tuple(math.log(v) for v in values.values())
        return replace(super()._suggestion(run, resumes=resumes), axes=values)

    def _keep_apart(self, search: SettingSearch) -> None:
        """Nothing: two places that round to one value of the lr differ in other axes."""

    def _put_points(self, setting: str) -> None:
        for point in self._points[setting]:
            if point.loss is None:
                cast(AxesSearch, self._searches[setting]).put(math.log(point.lr), self._others(point))

    def _add(self, point: Point) -> None:
        super()._add(point)
        self._searches[str(point.setting)].runs[-1].others = self._others(point)

    def _plan_again(self, setting: str) -> None:
        search = self._searches[setting]
        if search.pending() == 0:
            search.finished = False
            search.queue.clear()
            self._put_points(setting)
            self._advance(setting)

    def _repeats(self, run: RunId) -> int:
        runs = self._searches[run.setting].runs
        return sum(_same(other, runs[run.number]) and not other.says_nothing for other in runs[: run.number])

    def _others(self, point: Point) -> tuple[float, ...]:
        """ln of the further axes' values of a user's point."""
        out = []
        for name in self._names:
            value = as_float(lookup(point.config, name))
            if value is None or not math.isfinite(value) or value <= 0:
                raise InputError(f"the point {dict(point.config)} has no positive number at {name!r}")
            out.append(math.log(value))
        return tuple(out)


def require_axes(axes: Sequence[str] | Mapping[str, Any], lr_key: str) -> list[str]:
    """Names of the further axes; InputError unless there are one to three that differ from each other and the lr."""
    names = list(axes)
    if isinstance(axes, str) or not 1 <= len(names) <= AXES[1] - 1 or len({*names, lr_key}) <= len(names):
        raise InputError(f"axes must name 1 to {AXES[1] - 1} different hyperparameters besides the lr, not {axes!r}")
    return names


def _same(one: RunState, other: RunState) -> bool:
    places = zip((one.log_lr, *one.others), (other.log_lr, *other.others), strict=True)
    return all(abs(a - b) < 1e-6 for a, b in places)


def _domains(axes: Mapping[str, Any]) -> dict[str, LRDomain]:
    out = {}
    for name, given in axes.items():
        if isinstance(given, LRDomain):
            domain = given
        else:
            low, high, *more = given
            domain = LRDomain(float(low), float(high), *more)
        check_range(domain.low, domain.high, name)
        out[name] = domain
    return out
