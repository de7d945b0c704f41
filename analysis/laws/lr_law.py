"""The law of the optimal learning rate over model size, tokens and batch (Eq. 8 of Zhou et al. 2026, with a batch).

lr = lr_unit * c * (N / params_unit)^-alpha * (D / tokens_unit)^-beta * (B / batch_unit)^delta

This module holds the law and its predictions; `lr_fit` fits it to measured optima, `presets` has published ones.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, positive, positive_number
from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.quantities import BatchLaw, WeightDecayLaw
from raylr.analysis.laws.scaling import SIZES, ScalingLaw
from raylr.analysis.status import Status
from raylr.analysis.units import format_count
from raylr.errors import InputError

EXTRAPOLATION_LIMIT = 10.0
"""How many times outside the fitted range of size, tokens or batch a prediction may lie before its status is
`EXTRAPOLATED`. Laws were tried on optima up to 7 times beyond their cells in parameters times tokens
(`benchmarks/laws.py --only law`: 90 % intervals hold 83 % of the optima from 2.2 times beyond on); the paper's own test
is 4 times beyond in parameters and 2.3 times in tokens. Ten times in each is a target that costs a hundred times the
largest cell; of what lies further out only single published runs are known (`benchmarks/laws.py --only marin`)."""


@dataclass(frozen=True, kw_only=True)
class LRPrediction:
    """The LR that a law gives for one setting, with its prediction interval."""

    lr: float
    """Predicted LR; NaN from a law without one."""
    lr_low: float
    """Lower end of the prediction interval; NaN where the law has no known uncertainty."""
    lr_high: float
    """Upper end of the prediction interval; NaN where the law has no known uncertainty."""
    level: float
    """Confidence level of the interval."""
    params: float
    """Size of the setting, of the kind that the law counts."""
    tokens: float
    """Training tokens of the setting."""
    params_beyond: float
    """1.0 inside the fitted range, k when k times outside of it (below or above)."""
    tokens_beyond: float
    """The same for tokens."""
    batch_beyond: float = 1.0
    """The same for the batch."""
    batch: float | None = None
    """Tokens of one optimizer step that the LR is for: the target's, or what the law's batch rule gives; None where
    neither is known."""
    weight_decay: float | None = None
    """Weight decay by the law's rule; None for a law without one."""
    status: Status
    """`ok`; `extrapolated` if size, tokens or batch lie further outside the fitted range than the limit; the status of
    the law if it gives no LR, or if it lacks the exponent that this prediction needs."""
    message: str
    """What the reader must know: extrapolation, a missing interval, conditions of the target that differ."""

    @property
    def ok(self) -> bool:
        """Whether the LR may be used with its interval."""
        return self.status.ok


@dataclass(frozen=True, kw_only=True)
class LRLaw(ScalingLaw):
    """A law of the optimal LR. It may come with rules for the batch and the weight decay.

    `fit_lr_law` fits one, `raylr.analysis.presets.get` returns a published one, `from_json` reads one from a file.

    Raises:
        InputError: a parameter is not finite, or a unit is not above zero.

    Example:
        >>> law = LRLaw(c=4.0, alpha=0.2, beta=0.3)
        >>> round(law.lr(1e9, 1e9), 6)
        0.0004
        >>> LRLaw.from_json(law.to_json()).formula == law.formula
        True
    """

    KIND: ClassVar[str] = "lr_law"
    QUANTITY: ClassVar[str] = "LR"

    lr_unit: float = 1e-4
    """LR that counts as 1."""
    batch_law: BatchLaw | None = None
    """The batch that the law's runs had at each size and budget, or that is best there."""
    weight_decay_law: WeightDecayLaw | None = None
    """The weight decay that belongs to the LR."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive([self.lr_unit], "lr_unit")

    @property
    def unit(self) -> float:
        """LR that counts as 1."""
        return self.lr_unit

    @property
    def batch_note(self) -> str:
        """A phrase if the cells say less about the exponent of the batch than its prior; empty otherwise.

        Precisions of cells and prior add up, so this is where the variance is above half of the prior's.
        """
        if self.delta_prior is None or not self.usable or self._variance("delta") <= self.delta_prior[1] ** 2 / 2:
            return ""
        mean, sd = self.delta_prior
        return (
            f"the cells' batches cannot tell the exponent of the batch from the noise: its interval is that of the "
            f"prior ({mean:g} ± {sd:g})"
        )

    def lr(self, params: ArrayLike, tokens: ArrayLike, batch: ArrayLike | None = None) -> Array | float:
        """Return the predicted LR.

        Args:
            params: Sizes of the kind that the law counts (`params_kind`), of any shape.
            tokens: Training tokens; shapes broadcast together.
            batch: Tokens of one optimizer step, for a law with the batch in it. Without it the batch is that of the
                law's batch rule, or that of its cells if they had one.

        Returns:
            LRs of the common shape, a float if all are numbers; NaN where the law gives none.

        Raises:
            InputError: a number is not above zero, or the batch is missing.
        """
        if self.batch_unit is not None and batch is None and self.usable:
            if self.batch_law is not None:
                batch = self.batch_law.value(params, tokens)
            elif (one := self._one_batch()) is not None:
                batch = one
        return self.value(params, tokens, batch)

    def predict(
        self,
        params: float | None,
        tokens: float,
        level: float = 0.9,
        *,
        batch: float | None = None,
        width: float | None = None,
        flops_per_token: float | None = None,
        conditions: Conditions | None = None,
        extrapolation_limit: float = EXTRAPOLATION_LIMIT,
    ) -> LRPrediction:
        """Return the LR for one setting with a prediction interval for its optimum.

        Args:
            params: Size of the model: a count of the parameters that the law counts (`params_kind`: all, active or
                non-embedding), not in the law's units. None for a law over another size.
            tokens: Training tokens.
            level: Confidence level of the interval.
            batch: Tokens of one optimizer step of the target. If missing, that of `conditions`, of the law's batch
                rule, or of its cells if they had one, in this order.
            width: Hidden size of the target, for a law over the width.
            flops_per_token: Training FLOPs of a token without the embedding, for a law over compute; 6 `params` if
                missing.
            conditions: How the target will be trained; the message names what differs from the law's runs.
            extrapolation_limit: Times outside the fitted range above which the status is `extrapolated`; inf for
                never.

        Returns:
            The prediction with its batch, its status and how far beyond the fitted range it is.

        Raises:
            InputError: a number is not above zero, the level is not between 0 and 1, the limit is below 1, or the
                target lacks a quantity that the law needs.

        Example:
            >>> from raylr.analysis.laws import presets
            >>> prediction = presets.get("zhou2026").predict(4e9, 120e9)
            >>> round(prediction.lr, 6)
            0.000527

        References:
            Zhou et al. 2026, arXiv 2601.05049, Eq. 8.
        """
        if isinstance(extrapolation_limit, bool) or not extrapolation_limit >= 1:
            raise InputError(f"extrapolation_limit must be a factor from 1 on, got {extrapolation_limit!r}")
        d = positive_number(tokens, "tokens")
        n, notes = self._size(params, width, flops_per_token)
        if batch is None and conditions is not None:
            batch = conditions.batch_tokens
        b, words = self._batch(n, d, batch)
        if b is not None and self.batch_unit is not None and max(b / self.batch_unit, self.batch_unit / b) > 1.01:
            words += [self.batch_note] if self.batch_note else []
        found = self.estimate(n, d, b, level=level, limit=extrapolation_limit)
        notes = [*found.notes, *notes, *words]
        if conditions is not None:
            skip = "batch "  # `_batch` states it
            notes += [f"the target differs in {one}" for one in self.conditions.differences(conditions)
                      if not one.startswith(skip)]  # fmt: skip
        if self.notes:
            notes.append(f"the law's setting: {self.notes}")
        decay = self.weight_decay_law
        return LRPrediction(
            lr=found.value, lr_low=found.low, lr_high=found.high, level=level, params=n, tokens=d,
            params_beyond=found.params_beyond, tokens_beyond=found.tokens_beyond, batch_beyond=found.batch_beyond,
            batch=b, weight_decay=None if decay is None else float(decay.value(n, d, b)), status=found.status,
            message="; ".join(notes) or "inside the fitted range",
        )  # fmt: skip

    def _size(self, params: float | None, width: float | None, flops: float | None) -> tuple[float, list[str]]:
        """Return the target's size of the kind that the law counts, and what the message must state about it."""
        if self.params_kind == "width":
            if width is None:
                raise InputError("the law is one over the hidden size: give the target's width, not its parameters")
            return positive_number(width, "width"), []
        if self.params_kind == "flops_per_token" and flops is not None:
            return positive_number(flops, "flops_per_token"), []
        if params is None:
            raise InputError(f"the law is one over {SIZES[self.params_kind]}: give the target's params")
        n = positive_number(params, "params")
        if self.params_kind == "flops_per_token":
            return 6 * n, ["training FLOPs per token taken as 6 times the parameters"]
        if self.params_kind != "total":
            return n, [f"N counts {SIZES[self.params_kind]}"]
        return n, []

    def _batch(self, n: float, d: float, batch: float | None) -> tuple[float | None, list[str]]:
        """Return the batch that the LR is for, and what the message must state about it."""
        if batch is not None:
            b = positive_number(batch, "batch")
            if self.batch_law is not None and self.batch_unit is None:
                own = float(self.batch_law.value(n, d))
                if max(b / own, own / b) > 1.25:
                    return b, [f"the law holds at its own batch, {format_count(own)} {self.batch_kind} there"]
            if self.batch_unit is None:
                other = self.conditions.differences(Conditions(batch_tokens=b))
                return b, [f"the target differs in {one}, and the law has no batch in it" for one in other]
            return b, []
        if self.batch_law is not None and self.batch_law.usable:
            own = float(self.batch_law.value(n, d))
            return own, [f"for a batch of {format_count(own)} {self.batch_kind}, by {self.batch_law.formula}"]
        one = self._one_batch()
        if self.batch_unit is not None and one is None and self.usable:
            raise InputError(
                "the law has the batch in it: give the target's batch (batch=, --batch), in "
                f"{self.batch_kind} of one optimizer step"
            )
        return one, []

    def _one_batch(self) -> float | None:
        """Return the batch of the law's cells if they had one."""
        if self.batch_range is not None and self.batch_range[1] <= 1.01 * self.batch_range[0]:
            return math.sqrt(self.batch_range[0] * self.batch_range[1])
        return self.conditions.batch_tokens
