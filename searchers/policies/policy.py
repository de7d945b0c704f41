"""The one interface of all policies.

A policy suggests runs, receives their reports and their ends, and recommends a learning rate. It depends on neither
Ray nor Optuna. Everything that it does follows from the results, and not from timing, concurrency, or the order in
which runs end.

    policy = QuadraticPolicy(lr_range=(1e-4, 1e-1))
    while not policy.finished:
        suggestion = policy.ask()
        policy.tell(suggestion.run, RunEnd.COMPLETED, loss=train(suggestion.lr))
    print(policy.recommend())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from raylr.analysis.runs import RunEnd, Setting
from raylr.errors import InputError
from raylr.searchers._config import number
from raylr.searchers.policies.types import Decision, Recommendation, RunId, RunState, Suggestion


class Policy(Protocol):
    """What every policy does. Adapters, studies and benchmarks use nothing else."""

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings that are searched, in the order in which they begin."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train: every later `ask` returns None."""

    def ask(self, *, new: bool = True, resumed: bool = True) -> Suggestion | None:
        """Return what to train next, or None while the policy waits for results (or has finished)."""

    def report(self, run: RunId, tokens: float, loss: float, current_lr: float | None = None) -> Decision:
        """Take in one report of a run and decide about it.

        Args:
            run: Identity of the run, from its suggestion.
            tokens: Tokens (or steps) seen.
            loss: The loss, smaller is better; NaN and inf mean that the run diverged.
            current_lr: LR of the schedule at this step; None if it is not known.

        Returns:
            None to continue, or how the run should end; the caller calls `tell` when it has ended.
        """

    def tell(self, run: RunId, end: RunEnd, loss: float | None = None, stderr: float = 0.0) -> None:
        """Take in the end of a run, or of one segment of it (`RunEnd.PAUSED`).

        Args:
            run: Identity of the run, from its suggestion.
            end: How it ended.
            loss: Its final loss, smaller is better; None takes it from the reports. NaN and inf: the run diverged.
            stderr: Standard error of `loss`; 0 for a measured one.
        """

    def recommend(self, setting: Setting | str | None = None) -> Recommendation:
        """Return the lr that would be chosen now."""


class SettingSearch(Protocol):
    """The search in one setting (`CellSearch`, `SurfaceCell`): rounds of runs, planned when all before have stopped."""

    runs: list[RunState]
    queue: list[float]
    given: int
    planned: int
    max_trials: int
    finished: bool

    def pending(self) -> int:
        """Runs that have not stopped."""

    def tried(self) -> int:
        """Runs begun."""

    def next(self) -> float | None:
        """ln lr of the next run, or None for now."""

    def put(self, log_lr: float) -> None:
        """Add a run to this round."""

    def repeat(self, run: RunState) -> None:
        """Add a run like `run` to this round."""

    def start(self) -> RunState:
        """Begin the next run."""

    def known(self) -> bool:
        """Whether the results are informative about other settings."""

    def moments(self) -> Mapping[str, tuple[float, float]]:
        """Mean and standard deviation of what they determine: see `Known`."""

    def recommend(self) -> Recommendation:
        """Return the lr that would be chosen now."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A learning rate that the user wants to be tried first, or has measured elsewhere.

    Args:
        lr: The learning rate.
        setting: Name of its setting; None for the only one.
        loss: Its loss, where it is known (NaN: it diverged). Such a point is not run.
        stderr: Standard error of `loss`, for an extrapolated one; 0 for a measured one.
        config: Further keys with which it is to be run.
    """

    lr: float
    setting: str | None = None
    loss: float | None = None
    stderr: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not number(self.lr) or self.lr <= 0:
            raise InputError(f"the lr of a point must be a positive number, not {self.lr!r}")


def require_count(name: str, value: Any) -> None:
    """InputError unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r}")


def for_groups(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    """Return an option of each group of settings that are searched side by side: one number for all, or several, of
    which the last is that of all later groups. InputError unless they are whole numbers of at least 1."""
    found = tuple(value) if isinstance(value, Sequence) and value else (value,)
    for one in found:
        require_count(name, one)
    return cast(tuple[int, ...], found)


def of_group(values: Sequence[int], group: int) -> int:
    """Return what `for_groups` returned for one group, from 0."""
    return values[min(group, len(values) - 1)]


def require_tolerances(tolerance: float | None, lr_tolerance: float) -> None:
    """InputError unless the tolerances can be met; a `tolerance` of None is derived from the losses."""
    good = tolerance is None or (number(tolerance) and tolerance > 0)
    if not (good and number(lr_tolerance) and lr_tolerance > 1):
        raise InputError(f"tolerance must be above 0 and lr_tolerance above 1, not {tolerance!r} and {lr_tolerance!r}")
