"""The optimum of the stable phase and that after a cooldown: one is a multiple of the other.

A constant LR keeps a noise floor B * lr^q that a cooldown mostly removes, while the progress A * lr^-a of the stable
phase stays. With a share `floor_left` of the floor remaining, the minimum of A lr^-a + floor_left * B lr^q is at

    lr_decayed = lr_stable * floor_left^(-1 / (a + q)),

a factor that depends on how the LR is cooled down but not on the model size or the tokens. So a few cooldowns of small
models turn a law of the stable phase into one of the decayed objective: the exponents stay, the factor c moves. The
factor is measured, not assumed; on a published 124M model it is 2.7 after 20 % of linear cooldown and 4.0 after 60 %
(`benchmarks/laws.py --only cooldown`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import optima_of, positive, same_length
from raylr.analysis.laws.lr_law import LRLaw


@dataclass(frozen=True, kw_only=True)
class CooldownShift:
    """How far a cooldown moves the optimum."""

    log_shift: float
    """Mean of ln(lr_decayed / lr_stable); NaN without a cell that has both."""
    stderr: float
    """Standard error of `log_shift`; inf from a single cell without given errors."""
    scatter: float
    """Standard deviation over cells; NaN from a single cell."""
    cells: int
    """Cells that have both optima."""
    status: str
    """`ok` or `too_few`."""
    message: str
    """One sentence: why this status."""

    @property
    def ok(self) -> bool:
        """Whether there is a shift."""
        return self.status == "ok"

    def decayed(self, law: LRLaw) -> LRLaw:
        """The law of the decayed objective that belongs to a `law` of the stable phase, its covariance widened.

        Raises ValueError for a law that is of the decayed objective already, and without a shift.
        """
        if law.objective != "stable":
            raise ValueError(f"the law is of the {law.objective} objective; a cooldown shifts one of the stable phase")
        if not self.ok:
            raise ValueError(f"there is no shift to apply: {self.message}")
        covariance = law.covariance
        if covariance is not None:
            matrix = np.array(covariance)
            matrix[0, 0] += self.stderr**2
            covariance = tuple(map(tuple, matrix.tolist()))
        draws = law.draws
        if draws is not None:
            draws = tuple((first + self.log_shift, *rest) for first, *rest in draws)
        return replace(
            law, c=law.c * math.exp(self.log_shift), covariance=covariance, draws=draws, objective="decayed",
            source=f"{law.source}; shifted by a cooldown ({self.cells} cells)",
        )  # fmt: skip


def fit_cooldown(stable: ArrayLike, decayed: ArrayLike, *, stderr: ArrayLike | None = None) -> CooldownShift:
    """The shift between the optima of the same cells in the stable phase and after one kind of cooldown.

    `stable`, `decayed`: LRs, flat, one entry a cell; a NaN in either leaves the cell out. `stderr`: standard errors of
    ln(decayed / stable), which weigh the cells. Raises ValueError for unequal lengths and LRs that are not positive.
    """
    a, b = optima_of(stable, "stable"), optima_of(decayed, "decayed")
    s = None if stderr is None else positive(stderr, "stderr")
    same_length(stable=a, decayed=b, stderr=s)
    keep = np.isfinite(a) & np.isfinite(b)
    shift = np.log(b[keep]) - np.log(a[keep])
    if not shift.size:
        nan = math.nan
        message = "no cell has an optimum of both objectives"
        return CooldownShift(log_shift=nan, stderr=math.inf, scatter=nan, cells=0, status="too_few", message=message)
    w = np.ones(shift.size) if s is None else s[keep] ** -2
    mean = float(w @ shift / w.sum())
    scatter = float(np.std(shift, ddof=1)) if shift.size > 1 else math.nan
    known = 0.0 if s is None else float(w.sum() ** -0.5)
    spread = scatter / math.sqrt(shift.size) if shift.size > 1 else (math.inf if s is None else 0.0)
    return CooldownShift(
        log_shift=mean, stderr=max(known, spread), scatter=scatter, cells=int(shift.size), status="ok",
        message=f"the decayed optimum is {math.exp(mean):.3g} times the stable one over {shift.size} cells",
    )  # fmt: skip
