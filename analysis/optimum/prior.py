"""What is known of a cell's loss over the LR before its own runs."""

import math
from dataclasses import dataclass

from raylr.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimumPrior:
    """Prior of the optimum and of the shape of the loss around it. All defaults mean "unknown".

    Every part is normal: `center` in ln lr, ln `curvature`, and `skew`. The curvature has the unit of the loss, since a
    model that has to give the same LRs for any scale of the loss cannot know it otherwise.

    Raises:
        InputError: for a value that is not finite, or a standard deviation or curvature that is not above zero.
    """

    center: float | None = None
    """ln of the best LR; None: any LR of the range is equally likely."""
    center_sd: float = 1.0
    """Standard deviation of ln of the best LR around `center`."""
    curvature: float | None = None
    """Median of the curvature, loss per (ln lr)^2; None: unknown, on a logarithmic scale."""
    curvature_log_sd: float = 1.0
    """Standard deviation of ln curvature."""
    skew: float = 0.0
    """Mean of the skew: how much steeper the loss rises above the optimum than below."""
    skew_sd: float = 0.7
    """Standard deviation of the skew. Progress as lr^-0.3 against a floor as lr^0.6 has 0.3, approaching divergence
    more."""

    def __post_init__(self) -> None:
        for name in ("center", "center_sd", "curvature", "curvature_log_sd", "skew", "skew_sd"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"the prior's {name} must be a finite number, got {value!r}")
        for name in ("center_sd", "curvature", "curvature_log_sd", "skew_sd"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"the prior's {name} must be above zero, got {value!r}")

    @property
    def informative(self) -> bool:
        """Whether it knows the optimum and the curvature, so that two runs can settle a cell."""
        return self.center is not None and self.curvature is not None
