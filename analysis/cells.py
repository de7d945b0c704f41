"""From finished runs to laws: the optimum of every cell, the LR law, the best batch, what a wrong LR costs.

    runs ──by setting──▶ cells ──fit_optimum──▶ optima ──fit_lr_law──▶ law

A cell is a setting (one model at one number of tokens and one batch) with the final losses of its runs. Runs of unequal
kind (another optimizer, say) are in different families, and each family has a law of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from raylr.analysis.laws.conditions import Conditions
from raylr.analysis.laws.loss_law import LossLaw, fit_loss_law
from raylr.analysis.laws.lr_fit import fit_batch_law, fit_curvature_law, fit_lr_law
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.laws.quantities import CurvatureLaw
from raylr.analysis.optimum import OptimumFit, fit_optimum
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.errors import InputError

Array = NDArray[np.float64]

SAME_BUDGET = 0.02
"""Token counts within this share of each other are one budget: trainers round to whole steps and files."""
LEAST_BATCHES = 3
"""Fewest batches of one size and budget whose optima say which batch is best."""
_USED = (Status.OK, Status.UNCERTAIN, Status.PLATEAU)
"""Status of optima that enter a law, with their intervals; at an edge, the optimum itself is not known."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The finished runs of one setting."""

    setting: Setting
    lr: Array
    """Peak LR of each run (n,)."""
    loss: Array
    """Final loss of each run (n,); NaN where it diverged."""
    stderr: Array | None = None
    """Standard error of each loss (n,); None where all were measured."""
    family: str = ""
    """What keeps these runs apart from others of the table, such as "optimizer muon"."""
    conditions: Conditions = field(default_factory=Conditions)
    """What the runs had in common."""


@dataclass(frozen=True, kw_only=True)
class CellOptimum:
    """A cell with its optimum."""

    cell: Cell
    fit: OptimumFit

    @property
    def setting(self) -> Setting:
        """The setting."""
        return self.cell.setting

    @property
    def log_stderr(self) -> float:
        """Standard error of ln of the best LR; inf where the runs do not bound it."""
        return self.fit.log_lr_stderr() if self.fit.status in _USED else math.inf

    @property
    def used(self) -> bool:
        """Whether the optimum enters the law."""
        return math.isfinite(self.fit.lr) and math.isfinite(self.log_stderr)

    @property
    def lowest_diverged(self) -> float | None:
        """The lowest LR above the answer at which a run diverged."""
        lost = self.cell.lr[~np.isfinite(self.cell.loss) & (self.cell.lr > self.fit.lr)]
        return float(lost.min()) if lost.size else None

    def cost(self, factor: float = 2.0) -> float:
        """Expected loss above the lowest at an LR `factor` times too high or too low, the larger of both.

        Within the LRs tried it is that of the fitted curve, beyond them that of its curvature; NaN without a fit. What
        diverged has no loss: inf where a run did at an LR that is less than `factor` times too high.
        """
        lr, (low, high) = self.fit.lr, self.fit.lr_range
        if not math.isfinite(lr) or self.fit.curves is None:
            return math.nan
        lost = self.lowest_diverged
        if lost is not None and lost <= factor * lr:
            return math.inf
        by_curvature = self.fit.curvature * math.log(factor) ** 2
        sides = [
            float(self.fit.predict(at)[0]) - self.fit.loss
            for at in (lr * factor, lr / factor)
            if low <= at <= high
        ]  # fmt: skip
        return max([*sides, 0.0]) if len(sides) == 2 else max([*sides, by_curvature])


@dataclass(frozen=True, kw_only=True)
class Family:
    """The cells of one kind of run and the laws through their optima."""

    name: str
    optima: list[CellOptimum]
    law: LRLaw | None
    """None where the runs do not say their parameters or tokens."""
    why: str = ""
    """Why there is no law."""
    loss_law: LossLaw | None = None
    curvature_law: CurvatureLaw | None = None


@dataclass(frozen=True, kw_only=True)
class RunsFit:
    """The fits of a table of finished runs."""

    families: list[Family]

    @property
    def optima(self) -> list[CellOptimum]:
        """The optima of all families."""
        return [optimum for family in self.families for optimum in family.optima]


def fit_cells(cells: Sequence[Cell], *, source: str = "finished runs") -> RunsFit:
    """Fit the optimum of every cell and the laws of every family.

    Args:
        cells: The cells, with settings that have `params` and `tokens` where these are known.
        source: Where the runs come from; the laws name it.

    Returns:
        The fits, families in the order of their first cell.

    Raises:
        InputError: If there is no cell.

    Example:
        >>> lrs = np.array([1e-4, 3e-4, 1e-3, 3e-3, 1e-2])
        >>> loss = 3 + 0.05 * np.log(lrs / 1e-3) ** 2
        >>> fit = fit_cells([Cell(setting=Setting(name="S", params=1e8, tokens=2e9), lr=lrs, loss=loss)])
        >>> fit.optima[0].fit.status, 8e-4 < fit.optima[0].fit.lr < 1.2e-3
        (<Status.OK: 'ok'>, True)
    """
    if not cells:
        raise InputError("there are no finished runs")
    names = list(dict.fromkeys(cell.family for cell in cells))
    families = []
    for name in names:
        optima = [
            CellOptimum(cell=cell, fit=fit_optimum(cell.lr, cell.loss, stderr=cell.stderr))
            for cell in cells
            if cell.family == name
        ]
        families.append(_family(name, optima, source))
    return RunsFit(families=families)


def names_of(optima: Sequence[CellOptimum]) -> list[str]:
    """Return a name for each optimum that no other one has: its setting, its family, or both, what tells them apart.

    Args:
        optima: Of one table of runs.

    Example:
        >>> import numpy as np
        >>> from raylr.analysis.cells import Cell, fit_cells, names_of
        >>> from raylr.analysis.runs import Setting
        >>> lr, loss = np.array([1e-3, 2e-3, 4e-3]), np.array([3.1, 3.0, 3.1])
        >>> cells = [Cell(setting=Setting(name="124M"), lr=lr, loss=loss, family=f"optimizer {one}") for one in "ab"]
        >>> names_of(fit_cells(cells).optima)
        ['optimizer a', 'optimizer b']
    """
    settings, families = [one.setting.name for one in optima], [one.cell.family for one in optima]
    for names in (settings, families):
        if all(names) and len(set(names)) == len(names):
            return names
    return [f"{name} ({family})" if family else name for name, family in zip(settings, families, strict=True)]


def _family(name: str, optima: list[CellOptimum], source: str) -> Family:
    settings = [optimum.setting for optimum in optima]
    for what in ("params", "tokens"):
        if any(getattr(setting, what) is None for setting in settings):
            words = {"params": "parameters", "tokens": "tokens"}[what]
            why = f"the runs do not say their {words}, so that there is no law over size and tokens"
            return Family(name=name, optima=optima, law=None, why=why)
    known = [optimum for optimum in optima if optimum.used]
    n, d = (np.array([getattr(one.setting, what) for one in known], float) for what in ("params", "tokens"))
    law = _lr_law(known, n, d, source)
    losses = np.array([one.fit.loss for one in known], float)
    errors = np.array([max(one.fit.loss_stderr, 1e-9) for one in known], float)
    in_tokens = law.batch_unit is not None and law.batch_kind == "tokens"  # otherwise no rule of the batch is known
    best = [] if in_tokens else _best_batches(known)
    chosen = [i for i, one in enumerate(known) if one in best] if best else list(range(len(known)))
    curvature = [one.fit.curvature if one.fit.curvature > 0 else math.nan for one in known]
    return Family(
        name=name,
        optima=optima,
        law=law,
        loss_law=fit_loss_law(
            n[chosen],
            d[chosen],
            losses[chosen],
            loss_stderr=errors[chosen] if known else None,
            batch=np.array([known[i].setting.batch for i in chosen], float) if in_tokens else None,
        )
        if (losses > 0).all()  # another metric, such as a negative accuracy, follows no such law
        else None,
        curvature_law=fit_curvature_law(n, d, curvature, source=source),
    )


def _lr_law(known: Sequence[CellOptimum], n: Array, d: Array, source: str) -> LRLaw:
    batches = [one.setting.batch for one in known]
    several = None not in batches and len({round(math.log(b), 3) for b in batches if b}) > 1
    conditions = [one.cell.conditions for one in known]
    if several:
        conditions = [replace(one, batch_tokens=None) for one in conditions]
    law = fit_lr_law(
        n, d, np.array([one.fit.lr for one in known], float),
        stderr=np.array([max(one.log_stderr, 1e-6) for one in known], float),
        batch=np.array(batches, float) if several else None, conditions=conditions, source=source,
    )  # fmt: skip
    kind = str(known[0].setting.config.get("batch_kind", "tokens")) if known else "tokens"
    law = replace(law, batch_kind=kind)
    if not several or not law.usable:
        return law
    tokens, params, best, errors = [], [], [], []
    for group in _by_size_and_budget(known):
        if len(group) < LEAST_BATCHES:
            continue
        fit = fit_optimum([one.setting.batch or 1.0 for one in group], [one.fit.loss for one in group])
        if fit.status in _USED and math.isfinite(error := fit.log_lr_stderr()):
            tokens.append(group[0].setting.tokens or 1.0)
            params.append(group[0].setting.params or 1.0)
            best.append(fit.lr)
            errors.append(max(error, 1e-6))
    if not best:
        return law
    rule = replace(fit_batch_law(tokens, best, params=params, stderr=errors, source=source), batch_kind=kind)
    return replace(law, batch_law=rule) if rule.usable else law


def _by_size_and_budget(known: Sequence[CellOptimum]) -> list[list[CellOptimum]]:
    groups: dict[tuple[float | None, float | None], list[CellOptimum]] = {}
    for one in known:
        groups.setdefault((one.setting.params, one.setting.tokens), []).append(one)
    return list(groups.values())


def _best_batches(known: Sequence[CellOptimum]) -> list[CellOptimum]:
    """Return the cell of the best batch at each size and budget."""
    return [min(group, key=lambda one: one.fit.loss) for group in _by_size_and_budget(known)]
