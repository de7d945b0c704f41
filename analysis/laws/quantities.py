"""Laws of what belongs to a learning rate: the batch, the weight decay, and what a wrong LR costs."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from raylr.analysis._checks import positive_number
from raylr.analysis.laws.scaling import Estimate, ScalingLaw


@dataclass(frozen=True, kw_only=True)
class BatchLaw(ScalingLaw):
    """A law of the optimal batch, in tokens of one optimizer step."""

    KIND: ClassVar[str] = "batch_law"
    QUANTITY: ClassVar[str] = "batch"


@dataclass(frozen=True, kw_only=True)
class WeightDecayLaw(ScalingLaw):
    """A law of the optimal weight decay."""

    KIND: ClassVar[str] = "weight_decay_law"
    QUANTITY: ClassVar[str] = "weight decay"


@dataclass(frozen=True, kw_only=True)
class CurvatureLaw(ScalingLaw):
    """A law of the curvature of the loss over ln lr at its optimum: what an LR beside the best costs."""

    KIND: ClassVar[str] = "curvature_law"
    QUANTITY: ClassVar[str] = "curvature"

    def cost(self, params: float, tokens: float, factor: float = 2.0, level: float = 0.9) -> Estimate:
        """Return the loss that an LR `factor` times too high or too low costs, by Eq. 2: curvature * ln(factor)^2.

        Args:
            params: Parameters of the model.
            tokens: Training tokens.
            factor: LR over the best LR, or the best over the LR.
            level: Confidence level of the prediction interval.

        Returns:
            The cost in nats with its interval. Eq. 2 is valid near the optimum: up to a factor of about 3.

        Raises:
            InputError: a number is not above zero.
        """
        found = self.estimate(params, tokens, level=level)
        scale = math.log(positive_number(factor, "factor")) ** 2
        return replace(found, value=found.value * scale, low=found.low * scale, high=found.high * scale)
