"""The learning-rate schedule of a run: given, or recognised from the LR that the run reported.

Eq. 4 (the power law of the loss over tokens) holds at a constant LR only. While the LR falls, the loss falls faster
than any power law that the run followed before, and on a cosine there is no stretch at a constant LR. Code
that extrapolates a loss therefore has to know until where the LR was, and will be, constant.

    LR   ┌────────────┐
        /              \\
       /                \\           tokens ──▶
    warmup   stable     decay       a cosine has no stable part: it changes throughout
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raylr.analysis._checks import Array
from raylr.analysis.units import format_count
from raylr.errors import InputError

SAME_LR = 1e-3
"""Relative difference up to which two LRs count as equal: reported LRs are rounded to three or four digits."""
STABLE_LEAST = 0.1
"""A part at the peak LR that is shorter than this share of the tokens after the warmup is no stable part. The top of a
cosine, where its LR is within `SAME_LR` of the peak, takes 2 % of the run."""
LR_KEYS = ("current_lr", "learning_rate", "lr")
"""Names under which trainables report the LR of the schedule at that step; the first that is reported is used."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Where the LR of a run is constant: from the end of the warmup to the start of the decay.

    Args:
        name: Name of the schedule, such as `constant`, `wsd` or `cosine`.
        warmup: Tokens at which the warmup ends.
        decay_start: Tokens from which on the LR is lower than its peak; infinite for a constant LR, equal to `warmup`
            (or below it) for an LR that changes throughout the run.

    Raises:
        InputError: For an empty name, or tokens that are negative or NaN.

    Example:
        >>> Schedule(name="wsd", warmup=1e8, decay_start=8e9).constant_until(5e9)
        True
        >>> Schedule.named("cosine").constant_until(5e9)
        False
    """

    name: str = "constant"
    warmup: float = 0.0
    decay_start: float = math.inf

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"the name of a schedule must be a word such as 'cosine', got {self.name!r}")
        if not 0 <= self.warmup < math.inf or not self.decay_start >= 0:
            raise InputError(
                f"a schedule's warmup and decay_start are tokens from 0 on, got {self.warmup!r} and "
                f"{self.decay_start!r}"
            )

    @classmethod
    def named(
        cls, name: str, *, tokens: float | None = None, warmup: float = 0.0, decay: float | None = None
    ) -> Schedule:
        """Return the schedule of a name.

        Args:
            name: `constant`; `wsd` (constant until the decay); any other name, such as `cosine` or `linear`, changes
                throughout.
            tokens: Tokens of the whole run, for `wsd`.
            warmup: Tokens of the warmup.
            decay: Share of the tokens that the decay of `wsd` takes. Without it, or without `tokens`, the start of the
                decay is not known and `wsd` counts as changing throughout.
        """
        if name == "constant":
            return cls(warmup=warmup)
        start = warmup
        if name == "wsd" and tokens is not None and decay is not None:
            start = max(warmup, tokens * (1 - decay))
        return cls(name=name, warmup=warmup, decay_start=start)

    @classmethod
    def of(cls, given: Schedule | str | None) -> Schedule | None:
        """Return a schedule that was given as such, by its name, or not (None).

        Raises:
            InputError: For anything else.
        """
        if given is None or isinstance(given, Schedule):
            return given
        if isinstance(given, str):
            return cls.named(given)
        raise InputError(f"schedule must be a Schedule or a name such as 'constant' or 'cosine', not {given!r}")

    @property
    def constant(self) -> bool:
        """Whether the LR is constant after the warmup, as far as is known."""
        return self.decay_start == math.inf

    @property
    def changing(self) -> bool:
        """Whether the LR changes throughout: there is no stable part."""
        return self.decay_start <= self.warmup

    def constant_until(self, tokens: float) -> bool:
        """Return whether the LR does not fall before `tokens`."""
        return self.constant or (not self.changing and tokens <= self.decay_start * (1 + 1e-9))

    def stable(self, tokens: ArrayLike) -> NDArray[np.bool_]:
        """Return which of `tokens` (n,) lie before the decay; none do if the LR changes throughout."""
        t = np.asarray(tokens, float)
        return np.zeros(t.shape, bool) if self.changing else t <= self.decay_start * (1 + 1e-9)

    def __str__(self) -> str:
        if self.constant:
            return "the learning rate is constant"
        if self.changing:
            return f"the learning rate changes throughout the run ({self.name} schedule)"
        return f"the learning rate falls from {format_count(self.decay_start)} tokens on ({self.name} schedule)"


SHAPES = ("linear", "cosine", "sqrt")
"""Shapes of a decay: 1 - x, (1 + cos pi x) / 2, 1 - sqrt x."""
BEGIN = 1e-3
"""First point of the path of a run, as a share of its tokens: before it the LR is that of the path's first point."""


@dataclass(frozen=True, kw_only=True)
class Decay:
    """How the LR of a run falls at its end, the tokens of the run being those at the end of the decay.

    Args:
        shape: One of `SHAPES`.
        fraction: Share of the run's tokens that the decay takes.
        final_lr_ratio: LR at the end as a share of the peak.

    Raises:
        InputError: For an unknown shape, or shares outside of their ranges.

    Example:
        >>> decay = Decay(shape="linear", fraction=0.2)
        >>> decay.start(1e9), decay.factor([0.7e9, 0.9e9, 1e9], 1e9).round(2).tolist()
        (800000000.0, [1.0, 0.5, 0.0])
    """

    shape: str = "linear"
    fraction: float = 0.2
    final_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(f"the shape of a decay must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if not 0 < self.fraction <= 1 or not 0 <= self.final_lr_ratio <= 1:
            raise InputError(
                f"a decay takes a fraction of the tokens above 0 and at most 1, down to a share of the LR from 0 to 1; "
                f"got {self.fraction!r} and {self.final_lr_ratio!r}"
            )

    def start(self, tokens: float) -> float:
        """Return the tokens at which the decay of a run of `tokens` begins."""
        return tokens * (1 - self.fraction)

    def falling(self, x: ArrayLike) -> Array:
        """Return the LR over its peak where a share x of the decay is done, x in [0, 1]."""
        at = np.asarray(x, float)
        shape = {"linear": 1 - at, "cosine": 0.5 * (1 + np.cos(np.pi * at)), "sqrt": 1 - np.sqrt(at)}[self.shape]
        return np.asarray(self.final_lr_ratio + (1 - self.final_lr_ratio) * shape)

    def factor(self, at: ArrayLike, tokens: float) -> Array:
        """Return the LR over its peak at token counts `at` (n,) of a run of `tokens`."""
        start = self.start(tokens)
        return self.falling(np.clip((np.asarray(at, float) - start) / (tokens - start), 0.0, 1.0))

    def path(self, lr: float, tokens: float, *, points: int = 41) -> tuple[Array, Array]:
        """Return token counts and LRs of a run of `tokens` at the peak `lr`, as `AnnealingFit.predict` takes them.

        Args:
            lr: Peak LR.
            tokens: Tokens of the run.
            points: Points of the decay.
        """
        begin, x = BEGIN * tokens, np.linspace(0.0, 1.0, points)
        at = self.start(tokens) + x * self.fraction * tokens
        stable = at > begin
        return np.append(begin, at[stable]), lr * np.append(1.0, self.falling(x)[stable])


def recognise_schedule(tokens: ArrayLike, lr: ArrayLike) -> Schedule | None:
    """Recognise the schedule of a run from the LRs that it reported.

    Args:
        tokens: Token counts of the reports (n,), in any order.
        lr: LR of the schedule at each of them (n,), in any unit (a share of the peak will do); NaN where none was
            reported.

    Returns:
        The schedule as far as the reports go: `decay_start` is the last report at the peak LR if lower LRs follow. An
        LR that falls and rises again changes throughout. None where no LR was reported.

    Raises:
        InputError: The lengths differ.

    Example:
        >>> recognise_schedule([1, 2, 3, 4, 5, 6], [0.5, 1, 1, 1, 0.8, 0.4])
        Schedule(name='wsd', warmup=2.0, decay_start=4.0)
        >>> recognise_schedule([1, 2, 3, 4, 5, 6], [0.9, 0.7, 0.5, 0.3, 0.2, 0.1]).changing
        True
    """
    t, v = np.asarray(tokens, float).ravel(), np.asarray(lr, float).ravel()
    if t.shape != v.shape:
        raise InputError(f"tokens and LRs must have one length, got {t.size} and {v.size}")
    known = np.isfinite(t) & np.isfinite(v) & (v >= 0)
    order = np.argsort(t[known], kind="stable")
    t, v = t[known][order], v[known][order]
    if not t.size or v.max() <= 0:
        return None
    at_peak = np.flatnonzero(v >= (1 - SAME_LR) * v.max())
    first, last = int(at_peak[0]), int(at_peak[-1])
    warmup, begin = (float(t[first]), t[first]) if first else (0.0, t[0])
    if at_peak.size < last - first + 1:
        return Schedule(name="cyclic", warmup=warmup, decay_start=warmup)
    if last == t.size - 1:
        return Schedule(warmup=warmup)
    if t[last] - begin < STABLE_LEAST * (t[-1] - begin):
        return Schedule(name="decaying", warmup=warmup, decay_start=warmup)
    return Schedule(name="wsd", warmup=warmup, decay_start=float(t[last]))


def effective_tokens(tokens: ArrayLike, warmup: float) -> Array:
    """Return tokens weighed by LR over peak LR: a linear warmup counts by half.

    Args:
        tokens: Token counts of any shape.
        warmup: Tokens of the linear warmup.

    Returns:
        tokens - warmup / 2 after the warmup, tokens^2 / (2 warmup) inside it.
    """
    t = np.asarray(tokens, float)
    return t if warmup <= 0 else np.where(t >= warmup, t - 0.5 * warmup, 0.5 * t**2 / warmup)
