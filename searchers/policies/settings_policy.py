"""What all policies have in common that search several settings: which begins when, which run comes next, points of the
user, domains with steps. No Ray."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from raylr.analysis._checks import LOSSES
from raylr.analysis.across import in_order_of_cost
from raylr.analysis.optimum import OptimumPrior
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.status import Status
from raylr.errors import InputError
from raylr.searchers._config import LRDomain, check_range, merge
from raylr.searchers.policies.failures import SAME, repeat_failed
from raylr.searchers.policies.history import History
from raylr.searchers.policies.policy import Point, SettingSearch, for_groups, of_group
from raylr.searchers.policies.priors import EarlierSettings, prior_for
from raylr.searchers.policies.steps import keep_apart
from raylr.searchers.policies.turns import Turns
from raylr.searchers.policies.types import Decision, Recommendation, RunId, RunState, Suggestion


class SettingsPolicy(ABC):
    """Searches several settings: a few at a time, cheapest first, each from what the finished ones say.

    Args:
        settings: The settings; None takes one without a name.
        lr_range: (low, high), or an `LRDomain`; None where `begin` gives it later.
        prior: What is known beforehand: see `priors.prior_for`.
        settings_at_once: Number of settings that are searched side by side; several numbers: of the first group, the
            second and so on, the last of all later ones.
        lead: Runs of each setting of a group after which the next group begins; None: when they have finished.
        seed: 0 places the first lrs symmetrically; others shift them.
        points: Learning rates to begin with.
    """

    _searches: dict[str, SettingSearch]
    _open: set[str]
    _awaited: set[str]
    """Names of the settings that have begun and not finished, and of those of them that the next settings wait for."""
    _turns: Turns
    """Those that have planned runs which were not suggested yet."""

    def __init__(
        self,
        settings: Sequence[Setting] | None,
        *,
        lr_range: tuple[float, float] | LRDomain | None,
        prior: Any,
        settings_at_once: int | Sequence[int],
        seed: int,
        points: Sequence[Point],
        lead: int | None = None,
    ) -> None:
        self._settings = in_order_of_cost(settings) if settings else [Setting()]
        self._places = {s.name: i for i, s in enumerate(self._settings)}
        names = [s.name for s in self._settings]
        if len(set(names)) < len(names):
            raise InputError(f"two settings have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}")
        self._at_once, self._seed, self._group = for_groups("settings_at_once", settings_at_once), seed, -1
        self._earlier = EarlierSettings(self._settings, [prior_for(prior, s) for s in self._settings], lead)
        self._points: dict[str, list[Point]] = {name: [] for name in names}
        for point in points:
            name = self._name(point.setting)
            self._points[name].append(replace(point, setting=name))
        self._domain: LRDomain | None = None
        self._searches = {}
        self._open, self._awaited, self._turns = set(), set(), Turns()
        self._configs: dict[RunId, Mapping[str, Any]] = {}
        self._closed = False
        self.history = History()
        if lr_range is not None:
            self.begin(lr_range)

    # --- the interface ---

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings that are searched, cheapest first where their cost is known."""
        return self._settings

    @property
    def domain(self) -> LRDomain | None:
        """The range that is searched."""
        return self._domain

    def begin(self, lr_range: tuple[float, float] | LRDomain) -> None:
        """Begin to search a range. The constructor does so where it is given one.

        Raises:
            InputError: For a range that is not positive, or another one than before.
        """
        domain = lr_range if isinstance(lr_range, LRDomain) else LRDomain(float(lr_range[0]), float(lr_range[1]))
        check_range(domain.low, domain.high, "lr")
        if self._domain is not None:
            if domain != self._domain:
                raise InputError(
                    f"this search has worked in [{self._domain.low:g}, {self._domain.high:g}] and is now given "
                    f"[{domain.low:g}, {domain.high:g}]: start a new one, or give the old range"
                )
            return
        self.history.add("begin", domain.low, domain.high, domain.step, domain.origin, domain.integer)
        self._domain = domain
        self._begin_settings()
        self._advance()

    @property
    def finished(self) -> bool:
        """Whether every setting is finished, or every begun one after `close`."""
        every = self._closed or len(self._searches) == len(self._settings)
        return every and bool(self._searches) and not self._open

    def ended(self, setting: Setting | str) -> bool:
        """Whether the search of one setting was begun and has ended."""
        search = self._searches.get(self._name(setting))
        return search is not None and search.finished

    def ask(self, *, new: bool = True, resumed: bool = True) -> Suggestion | None:
        """Return what to train next.

        Args:
            new: Whether a new run may be suggested.
            resumed: Whether a paused run may be suggested.

        Returns:
            A suggestion of the begun setting with the fewest runs; None while all wait for results or have finished.

        Raises:
            InputError: Where no range was given.
        """
        if self._domain is None:
            raise InputError("no range to search: give lr_range=(low, high)")
        found = self._ask_new() if new and not self._closed else None
        if found is None and resumed:
            found = self._ask_resumed()
        if found is not None:
            self.history.add("ask", found.run.setting, found.run.number, found.lr, found.resumes)
        return found

    def report(self, run: RunId, tokens: float, loss: float, current_lr: float | None = None) -> Decision:
        """Take in one report of a run and decide about it.

        Args:
            run: Identity of the run, from its suggestion.
            tokens: Tokens (or steps) seen. Where they go back, as those of a resumed run do, the later reports count.
            loss: The loss, smaller is better; NaN and infinity mean that the run diverged.
            current_lr: LR of the schedule at this step, if known. A run whose LR falls is not extrapolated.

        Returns:
            None to continue, or how the run should end; the caller calls `tell` when it has ended.
        """
        more = () if current_lr is None else (float(current_lr),)
        self.history.add("report", run.setting, run.number, float(tokens), float(loss), *more)
        if current_lr is not None:
            self.run(run).curve.note_lr(float(tokens), float(current_lr))
        return self._report(run, float(tokens), float(loss))

    def tell(self, run: RunId, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a run.

        Args:
            run: Identity of the run, from its suggestion.
            end: How it ended; `PAUSED` where it can be resumed.
            loss: Loss at the tokens of its setting, smaller is better. None takes it from the reports, extrapolated
                where they end before. A loss that is not finite means that the run diverged.
            stderr: Standard error of `loss`; 0 for a measured one.
        """
        before = self.run(run).end
        if before is not None and (before is not RunEnd.PAUSED or end is RunEnd.PAUSED):
            return  # it ended before: Tune, for one, may say so twice
        value = None if loss is None else float(loss)
        self.history.add("tell", run.setting, run.number, str(end), value, float(stderr))
        if value is not None and not abs(value) < LOSSES[1] and end is not RunEnd.FAILED:
            end, value = RunEnd.DIVERGED, None
        self.run(run).raised = end is RunEnd.FAILED
        self._tell(run, end, value, float(stderr))
        self._advance(run.setting)

    def add(self, lr: float, loss: float, setting: Setting | str | None = None) -> None:
        """Take in a final loss that was measured elsewhere; it counts as no trial.

        Args:
            lr: Its learning rate.
            loss: Its loss, smaller is better; not finite: it diverged.
            setting: Its setting; None for the only one.

        Raises:
            InputError: For an lr that is not positive, before the search has a range, or before its setting began.
        """
        point = Point(lr=lr, loss=float(loss), setting=self._name(setting))
        if point.setting not in self._searches:
            raise InputError(
                "the search has no range yet: give lr_range=, or add results after the range is known"
                if self._domain is None
                else f"the search of {point.setting!r} has not begun: give its results as points"
            )
        self.history.add("add", point.lr, point.loss, point.setting)
        self._add(point)
        search = self._searches[str(point.setting)]
        if search.pending() == 0:  # the round has not begun: plan it again with what is known now
            search.finished = False
            search.queue.clear()
            self._put_points(str(point.setting))
            self._advance(str(point.setting))

    def close(self) -> None:
        """No new run can be begun any more: paused ones may still be resumed."""
        if not self._closed:
            self.history.add("close")
            self._closed = True
            for search in self._searches.values():
                search.queue.clear()
            self._close()
            self._advance()

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the lr that would be chosen now for a setting, with its interval, regret and status.

        Args:
            setting: The setting or its name; None for the only one.

        Raises:
            InputError: For a setting that is not searched.
        """
        name = self._name(setting)
        if name not in self._searches or self._domain is None:
            return Recommendation.nothing(Status.TOO_FEW, "the search of this setting has not begun")
        found = self._searches[name].recommend()
        ended = [run for run in self._searches[name].runs if not run.running]
        if found.lr is None and ended and all(run.raised for run in ended):
            found = replace(found, reason=f"all {len(ended)} runs raised errors: look at those first; {found.reason}")
        if found.lr is None or not self._domain.quantised:
            return found
        lr = float(self._domain.value(math.log(found.lr)))
        low, high = min(found.lr_low or lr, lr), max(found.lr_high or lr, lr)
        return replace(found, lr=lr, lr_low=low, lr_high=high)

    def run(self, run: RunId) -> RunState:
        """Return what is known of a run."""
        return self._searches[run.setting].runs[run.number]

    def target(self, run: RunId) -> float | None:
        """Return the tokens at which the loss of a run counts, where its setting has any."""
        return self._setting(run.setting).tokens

    def replay(self, events: Sequence[Sequence[Any]]) -> None:
        """Go through the events of another search's `history`, from the beginning.

        Raises:
            InputError: Where this search decides otherwise than the recorded one did.
        """
        self.history.replay(self, events)

    # --- what a kind of policy decides ---

    @abstractmethod
    def _new_search(self, setting: Setting, prior: OptimumPrior, jitter: float) -> SettingSearch:
        """Return the search of one setting."""

    @abstractmethod
    def _report(self, run: RunId, tokens: float, loss: float) -> Decision:
        """Take in a report."""

    @abstractmethod
    def _tell(self, run: RunId, end: RunEnd, loss: float | None, stderr: float) -> None:
        """Take in an end."""

    def _ask_resumed(self) -> Suggestion | None:
        return None

    def stop_at(self, run: RunId) -> float | None:
        """Return the tokens at which a run stops next, where its setting has any."""
        return self.target(run)

    def _close(self) -> None:
        """Begin no run any more. Where runs cannot be paused, that is the end."""
        for search in self._searches.values():
            search.finished = True

    # --- inside ---

    def peek(self) -> tuple[RunId, Mapping[str, Any], int] | None:
        """Return the run that `ask(resumed=False)` would begin, its point's keys, and how many runs were known then."""
        name = None if self._closed else self._turns.first()
        if name is None:
            return None
        search = self._searches[name]
        point = self._point(name, search.queue[0])
        return RunId(name, len(search.runs)), {} if point is None else point.config, search.planned

    def _ask_new(self) -> Suggestion | None:
        found = self.peek()
        if found is None:
            return None
        assert self._domain is not None
        identity, self._configs[found[0]], _ = found
        search = self._searches[identity.setting]
        point = self._point(identity.setting, search.queue[0])
        if point is not None:
            self._points[identity.setting].remove(point)  # each point is used once
        run = search.start()
        self._turns.note(identity.setting, self._places[identity.setting], search.tried(), wants=bool(search.queue))
        run.log_lr = math.log(self._domain.value(run.log_lr))
        return self._suggestion(identity, resumes=False)

    def _suggestion(self, run: RunId, *, resumes: bool) -> Suggestion:
        assert self._domain is not None
        setting, point = self._setting(run.setting), self._configs[run]
        lr = self._domain.value(self.run(run).log_lr)  # the very same number for every segment of a run
        return Suggestion(
            run=run, setting=setting, lr=lr, config=merge(merge({}, setting.config), point), point=point,
            stop_at=self.stop_at(run), resumes=resumes, known=self._searches[run.setting].planned,
            repeat=self._repeats(run),
        )  # fmt: skip

    def _repeats(self, run: RunId) -> int:
        """Number of runs before `run` in its setting that had its lr and were not void."""
        runs = self._searches[run.setting].runs
        own, void = runs[run.number], (RunEnd.FAILED, RunEnd.NO_REPORT)
        return sum(abs(other.log_lr - own.log_lr) < SAME and other.end not in void for other in runs[: run.number])

    def _point(self, setting: str, log_lr: float) -> Point | None:
        """The user's point that a planned lr comes from."""
        open_points = (p for p in self._points[setting] if p.loss is None)
        return next((p for p in open_points if abs(math.log(p.lr) - log_lr) < SAME), None)

    def _advance(self, changed: str | None = None) -> None:
        """Plan all rounds that can be planned, when results come, so that plans follow from them alone: those of the
        setting named `changed`, or of any."""
        names = [*self._searches] if changed is None else [changed]
        while self._domain is not None:
            for name in names:
                search = self._searches[name]
                repeat_failed(search)
                self._earlier.heard(name, search)
                search.next()
                self._keep_apart(search)
                (self._open.discard if search.finished else self._open.add)(name)
                (self._awaited.add if self._earlier.needs(name, search) else self._awaited.discard)(name)
                self._turns.note(name, self._places[name], search.tried(), wants=bool(search.queue))
            begun = len(self._searches)
            if self._awaited or self._closed or begun == len(self._settings):
                return
            self._begin_settings()
            names = [*self._searches][begun:]

    def _keep_apart(self, search: SettingSearch) -> None:
        """In a domain with steps: move planned lrs that round to a tried value to a neighbour, or finish."""
        assert self._domain is not None
        if self._domain.quantised and search.queue:
            keep_apart(search, self._domain)

    def _begin_settings(self) -> None:
        """Begin the next settings, each from what the finished ones say."""
        begun = len(self._searches)
        self._group += 1
        group = range(begun, min(begun + of_group(self._at_once, self._group), len(self._settings)))
        priors = self._earlier.priors(group, self._searches)
        for index, prior in zip(group, priors, strict=True):
            setting = self._settings[index]
            jitter = float(np.random.default_rng([self._seed, index]).uniform(-0.3, 0.3)) if self._seed else 0.0
            self._searches[setting.name] = self._new_search(setting, prior, jitter)
            for point in self._points[setting.name]:
                if point.loss is not None:
                    self._add(point)
            self._put_points(setting.name)

    def _put_points(self, setting: str) -> None:
        for point in self._points[setting]:
            if point.loss is None:
                self._searches[setting].put(math.log(point.lr))

    def _add(self, point: Point) -> None:
        search = self._searches[str(point.setting)]
        run = RunState(math.log(point.lr))
        good = point.loss is not None and abs(point.loss) < LOSSES[1]
        run.end, run.loss = (RunEnd.COMPLETED, float(point.loss or 0.0)) if good else (RunEnd.DIVERGED, math.nan)
        run.stderr = float(point.stderr)
        search.runs.append(run)
        search.given += 1

    def _name(self, setting: Setting | str | None) -> str:
        name = setting.name if isinstance(setting, Setting) else setting
        if name is None and len(self._settings) == 1:
            return self._settings[0].name
        if name not in self._places:
            raise InputError(f"which setting? One of {[*self._places]}, not {name!r}")
        return str(name)

    def _setting(self, name: str) -> Setting:
        return self._settings[self._places[name]]
