"""The optimum of the stable phase and that after a decay phase: one is a multiple of the other.

A constant LR keeps a noise floor B * lr^q that a decay phase mostly removes, while the progress A * lr^-a of the stable
phase stays. With a share `floor_left` of the floor remaining, the minimum of A lr^-a + floor_left * B lr^q is at

    lr_decayed = lr_stable * floor_left^(-1 / (a + q)),

a factor that depends on how the LR decays but not on the model size or the tokens. A few decay phases of small
models therefore turn a law of the stable phase into one of the decayed objective: the exponents stay, the factor c
moves. The factor is measured, not assumed; on a published 124M model it is 2.7 after 20 % of linear decay and 4.0 after
60 % (`benchmarks/laws.py --only decay`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import optima_of, positive, same_length
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.status import Status
from raylr.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DecayShift:
    """How far a decay phase moves the optimum."""

    log_shift: float
    """Mean of ln(lr_decayed / lr_stable); NaN without a cell that has both."""
    stderr: float
    """Standard error of `log_shift`; inf from a single cell without given errors."""
    scatter: float
    """Standard deviation over cells; NaN from a single cell."""
    cells: int
    """Cells that have both optima."""
    status: Status
    """`ok` or `too_few`."""
    message: str
    """One sentence: why this status."""

    @property
    def ok(self) -> bool:
        """Whether there is a shift."""
        return self.status.ok

    def decayed(self, law: LRLaw) -> LRLaw:
        """Return the law of the decayed objective that belongs to a law of the stable phase.

        Args:
            law: A law whose conditions have the objective `stable`.

        Returns:
            The law with its factor moved and the shift's error added to its covariance.

        Raises:
            InputError: the law is not of the stable objective, or there is no shift.
        """
        if law.conditions.objective != "stable":
            raise InputError(
                f"the law's objective is {law.conditions.objective or 'not known'}; a decay phase shifts a law of the "
                "stable objective"
            )
        if not self.ok:
            raise InputError(f"there is no shift to apply: {self.message}")
        covariance = law.covariance
        if covariance is not None:
            matrix = np.array(covariance)
            matrix[0, 0] += self.stderr**2
            covariance = tuple(map(tuple, matrix.tolist()))
        return replace(
            law, c=law.c * math.exp(self.log_shift), covariance=covariance,
            conditions=replace(law.conditions, objective="decayed", schedule=None),
            source=f"{law.source}; shifted by a decay phase ({self.cells} cells)",
        )  # fmt: skip


def fit_decay_shift(stable: ArrayLike, decayed: ArrayLike, *, stderr: ArrayLike | None = None) -> DecayShift:
    """Fit the shift between the optima of the same cells in the stable phase and after one kind of decay phase.

    Args:
        stable: Optimal LRs at a constant LR (n,), one entry a cell; NaN leaves the cell out.
        decayed: Optimal LRs after the decay phase (n,); NaN leaves the cell out.
        stderr: Standard errors of ln(decayed / stable) (n,), which weigh the cells.

    Returns:
        The shift; `status` is `too_few` if no cell has both optima.

    Raises:
        InputError: lengths differ, or LRs or standard errors are not above zero.

    Example:
        >>> shift = fit_decay_shift([1e-3, 8e-4], [2e-3, 1.6e-3])
        >>> round(shift.log_shift, 3)
        0.693
    """
    a, b = optima_of(stable, "stable"), optima_of(decayed, "decayed")
    s = None if stderr is None else positive(stderr, "stderr")
    same_length(stable=a, decayed=b, stderr=s)
    keep = np.isfinite(a) & np.isfinite(b)
    shift = np.log(b[keep]) - np.log(a[keep])
    if not shift.size:
        nan = math.nan
        message = "no cell has an optimum of both objectives"
        return DecayShift(log_shift=nan, stderr=math.inf, scatter=nan, cells=0, status=Status.TOO_FEW, message=message)
    w = np.ones(shift.size) if s is None else s[keep] ** -2
    mean = float(w @ shift / w.sum())
    scatter = float(np.std(shift, ddof=1)) if shift.size > 1 else math.nan
    known = 0.0 if s is None else float(w.sum() ** -0.5)
    spread = scatter / math.sqrt(shift.size) if shift.size > 1 else (math.inf if s is None else 0.0)
    return DecayShift(
        log_shift=mean, stderr=max(known, spread), scatter=scatter, cells=int(shift.size), status=Status.OK,
        message=f"the decayed optimum is {math.exp(mean):.3g} times the stable one over {shift.size} cells",
    )  # fmt: skip
