"""The types that all policies share: suggestions, how runs end, recommendations.

Plain data without Ray or Optuna. All packages share `Setting` and `RunEnd` (`raylr.analysis.runs`), which are exported
again from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from raylr.analysis.curves.curve import Curve
from raylr.analysis.optimum import Ridge
from raylr.analysis.runs import RunEnd, Setting
from raylr.analysis.status import Status

__all__ = ["Decision", "Recommendation", "RunEnd", "RunId", "RunState", "Setting", "Status", "Suggestion"]

Decision: TypeAlias = RunEnd | None
"""What a policy decides after a report: None lets the run continue, `PAUSED` ends its segment, and `COMPLETED`,
`TRUNCATED`, `PRUNED` and `DIVERGED` end the run."""


class RunId(NamedTuple):
    """Identity of a run within one search: it follows from the results alone, never from timing."""

    setting: str
    """Name of the run's setting."""
    number: int
    """Number of the run among those of its setting, from 0, in the order of suggestion."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What to train next.

    Args:
        run: Identity of the run, to be passed to `report` and `tell`.
        setting: The setting that the run belongs to.
        lr: Learning rate, rounded to four digits (and to the steps of its domain).
        axes: Values of the further hyperparameters that are searched together with the lr, by their keys.
        config: Further keys of the run: those of its setting, then those of the user's point.
        point: The user's point alone; empty for an lr that the policy chose.
        stop_at: Tokens at which this segment of the run ends; None where the policy has no opinion.
        resumes: Whether the run was paused before and continues from its last checkpoint.
        known: Number of runs of the setting that had ended when this run was planned.
        repeat: Number of earlier runs of the setting at this learning rate that were measured. A trainable whose
            losses repeat exactly under one seed needs another seed for each.
    """

    run: RunId
    setting: Setting
    lr: float
    axes: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    point: Mapping[str, Any] = field(default_factory=dict)
    stop_at: float | None = None
    resumes: bool = False
    known: int = 0
    repeat: int = 0


@dataclass(frozen=True)
class AxisAnswer:
    """The value of one further hyperparameter that a search would choose now."""

    value: float
    """The value to choose."""
    low: float
    """Lower end of the 90 % interval of the best value."""
    high: float
    """Upper end of it."""


@dataclass(frozen=True)
class Recommendation:
    """The learning rate that a search would choose now, and why."""

    lr: float | None
    """The lr of least expected regret, or None when nothing is known."""
    lr_low: float | None
    """Lower end of the 90 % interval of the best lr."""
    lr_high: float | None
    """Upper end of it."""
    loss: float | None
    """Predicted loss at `lr`, in the metric's own sign."""
    regret: float | None
    """Expected loss above the best possible, in the unit of the loss (of a `SurfacePolicy`: relative to it)."""
    status: Status
    """`OK`, `UNCERTAIN`, `EDGE_LOW`, `EDGE_HIGH`, `FLAT`, `PLATEAU`, `TWO_MINIMA`, `CONTRADICTED`, `DIVERGED` (no run
    ended with a finite loss) or `TOO_FEW`."""
    reason: str
    """The same in one sentence, with the numbers."""
    trials: int
    """Ended runs behind it."""
    axes: Mapping[str, AxisAnswer] = field(default_factory=dict)
    """Further hyperparameters that were searched together with the lr, by their keys."""
    ridges: Mapping[str, Ridge] = field(default_factory=dict)
    """How the best lr moves with each of them, where it depends on it."""

    @classmethod
    def nothing(cls, status: Status, reason: str, trials: int = 0, *, lr_high: float | None = None) -> Recommendation:
        """Return the recommendation of a search that cannot name an lr yet.

        Args:
            status: Why there is none.
            reason: The same as a sentence.
            trials: Trials that were looked at.
            lr_high: An LR above which runs diverge, if it is known.
        """
        return cls(None, None, lr_high, None, None, status, reason, trials)

    def in_sign_of(self, sign: float) -> Recommendation:
        """Return the same with the loss times `sign` (-1: the metric is maximised)."""
        return self if self.loss is None or sign > 0 else replace(self, loss=-self.loss)


@dataclass
class RunState:
    """The state of one run of a search.

    Args:
        log_lr: ln of the learning rate.
        end: How the run ended; None while it is running, `PAUSED` while it can be resumed.
        loss: Loss at the setting's tokens, smaller is better; NaN where there is none.
        stderr: Standard error of `loss`, for an extrapolated one.
        curve: The losses that it reported.
        rung: Index of the rung at which it pauses next (or paused), for searches that pause.
        raised: Whether it raised an error, whether or not the error is attributed to its lr.
        others: ln of the values of further axes, in searches over several.
    """

    log_lr: float
    end: RunEnd | None = None
    loss: float = math.nan
    stderr: float = 0.0
    curve: Curve = field(default_factory=Curve)
    rung: int = 0
    raised: bool = False
    others: tuple[float, ...] = ()

    @property
    def lr(self) -> float:
        """The learning rate."""
        return math.exp(self.log_lr)

    @property
    def running(self) -> bool:
        """Whether it was suggested and has not ended."""
        return self.end is None

    @property
    def measured(self) -> bool:
        """Whether it ended with a finite loss."""
        return self.end is not None and self.end is not RunEnd.DIVERGED and math.isfinite(self.loss)

    @property
    def diverged(self) -> bool:
        """Whether it diverged, so that the best lr is lower than its own."""
        return self.end is RunEnd.DIVERGED

    @property
    def says_nothing(self) -> bool:
        """Whether it ended for a reason that has nothing to do with its lr."""
        return self.end in (RunEnd.FAILED, RunEnd.NO_REPORT)
