"""Which runs are missing: the LRs to run next in cells whose optimum is not known, most useful first.

A cell's next LRs are those of `next_lrs`, looked for beyond the LRs tried on the side where the optimum may lie there,
with what the law of the other cells says as the prior where the cell itself says little. Cells are ordered by how much
a known optimum there would narrow the law's interval at the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.cells import CellOptimum, Family, RunsFit
from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.optimum import OptimumFit, OptimumPrior, fit_optimum, next_lrs
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.analysis.units import format_count, format_lr
from raylr.errors import InputError

SETTLED = (Status.OK, Status.PLATEAU)
"""Status of cells that need no further run."""
BEYOND = 16.0
"""How far beyond the LRs tried the next LR is looked for, as a factor; one step of it goes at most a factor of 4."""
KNOWN_STDERR = 0.15
"""Standard error of ln LR of an optimum that is known, when the value of knowing it is reckoned: a median cell of four
to six runs has 0.1 to 0.2."""
LAW_SD = 0.2
"""Least standard deviation of ln LR that a law's word for a cell is given: the scatter of cells around laws."""
AHEAD = 4.0
"""Without a target the law is judged at this many times the largest size and budget: the smallest step that teams take
from a study to the run it is for."""
MOST = 40
"""Cells whose value for the law is reckoned; each costs a fit of the law."""
SPREAD = 2.0
"""Factor between the first LRs of a new setting whose law has no interval."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A run that is worth making."""

    setting: Setting
    family: str
    lrs: list[float]
    """LRs to run at once, the first first."""
    reason: str
    """Why here and why these, in a sentence."""


def missing_runs(
    fit: RunsFit, count: int = 6, *, each: int = 2, target: tuple[float, float] | None = None
) -> list[Suggestion]:
    """Return the settings at which further runs tell most, with their LRs.

    Args:
        fit: The fits of the runs so far.
        count: Most LRs to return, over all settings.
        each: Most LRs at one setting.
        target: Parameters and tokens of the run that all this is for; 4 times the largest of each if missing.

    Returns:
        Suggestions, the most useful first; none if every optimum is known and the law has all its exponents.
    """
    found: list[Suggestion] = []
    left = count
    for family in fit.families:
        for optimum, why in _ordered(family, target):
            if left <= 0:
                break
            lrs = next_in_cell(optimum, min(each, left), law=family.law)
            if not lrs:
                continue
            found.append(Suggestion(setting=optimum.setting, family=family.name, lrs=lrs, reason=why))
            left -= len(lrs)
        if left > 0 and (new := _new_setting(family, target)) is not None:
            found.insert(0, new)
            left -= len(new.lrs)
    return found


def next_in_cell(optimum: CellOptimum, count: int, *, law: LRLaw | None = None) -> list[float]:
    """Return the next LRs of a cell; none if its optimum is known.

    Args:
        optimum: The cell.
        count: How many.
        law: What other cells say.
    """
    fit, cell = optimum.fit, optimum.cell
    if fit.status in SETTLED:
        return []
    if fit.status in (Status.TWO_MINIMA, Status.CONTRADICTED):
        return _to_repeat(cell.lr, cell.loss)[: count if fit.status is Status.TWO_MINIMA else 1]
    if fit.curves is None:  # every run diverged
        return [rounded(float(cell.lr.min()) / 4.0 ** (i + 1)) for i in range(count)]
    # A run far beyond the interval of the optimum tells its curvature best on paper, and where no run has been it may
    # diverge: the search goes beyond the LRs tried only where the optimum may.
    low, high = float(cell.lr.min()), float(cell.lr.max())
    few = fit.status is Status.TOO_FEW
    low = low / BEYOND if few or fit.lr_low <= low else low
    high = high * BEYOND if few or fit.lr_high >= high else high
    prior = _prior(law, cell.setting) if few else None
    wide: OptimumFit = fit_optimum(cell.lr, cell.loss, stderr=cell.stderr, lr_range=(low, high), prior=prior)
    return [rounded(lr) for lr in next_lrs(wide, count)]


def _to_repeat(lr: Array, loss: Array) -> list[float]:
    """Return the LRs whose mean loss is below that of their neighbours, the lowest first, just as they were run."""
    use = np.isfinite(loss)
    tried, which = np.unique(lr[use], return_inverse=True)
    mean = np.bincount(which, loss[use]) / np.bincount(which)
    walls = np.concatenate([[math.inf], mean, [math.inf]])
    minima = np.flatnonzero((mean <= walls[:-2]) & (mean <= walls[2:]))
    return [float(tried[i]) for i in minima[np.argsort(mean[minima], kind="stable")]]


def first_lrs(setting: Setting, count: int, *, law: LRLaw) -> list[float]:
    """Return the first LRs of a setting without runs: the law's, then to both sides within its interval."""
    prediction = law.predict(setting.params, setting.tokens or 1.0, batch=setting.batch)
    if not (math.isfinite(prediction.lr) and prediction.lr > 0):
        raise InputError(f"the law gives no LR at {setting.name}: {prediction.message}")
    low, high = prediction.lr_low, prediction.lr_high
    known = math.isfinite(low) and low > 0 and math.isfinite(high)
    step = min(max((high / low) ** 0.5, 1.5), 4.0) if known else SPREAD
    sides = [0.0]
    while len(sides) < count:
        sides += [len(sides) // 2 + 1.0, -(len(sides) // 2 + 1.0)]
    return [rounded(prediction.lr * step**side) for side in sides[:count]]


def rounded(lr: float) -> float:
    """Return an LR with two digits, as people write them."""
    return float(f"{lr:.1e}")


def _prior(law: LRLaw | None, setting: Setting) -> OptimumPrior | None:
    if law is None or not law.usable or setting.params is None or setting.tokens is None:
        return None
    predicted = law.predict(setting.params, setting.tokens, batch=setting.batch)
    if not (math.isfinite(predicted.lr) and predicted.lr > 0 and predicted.lr_low > 0 and predicted.lr_high < math.inf):
        return None
    sd = max(math.log(predicted.lr_high / predicted.lr_low) / 3.29, LAW_SD)
    return OptimumPrior(center=math.log(predicted.lr), center_sd=sd)


def _ordered(family: Family, target: tuple[float, float] | None) -> list[tuple[CellOptimum, str]]:
    """Return the cells that are not settled, the most useful first, each with its reason."""
    open_cells = [one for one in family.optima if one.fit.status not in SETTLED]
    law = family.law
    if law is None or not law.usable or len(family.optima) < 2:
        return [(one, why(one)) for one in sorted(open_cells, key=lambda one: -_cost(one))]
    place = target or _ahead(family)
    used = [one for one in family.optima if one.used]
    now = _width(used, {}, law, place)
    valued = []
    for one in sorted(open_cells, key=lambda one: -_cost(one))[:MOST]:
        later = _width(used if one.used else [*used, one], {id(one): KNOWN_STDERR}, law, place)
        valued.append((now - later, one))
    valued.sort(key=lambda pair: -pair[0])
    out = []
    for gain, one in valued:
        text = why(one)
        if gain > 0.01:
            at = f"{format_count(place[0])} parameters and {format_count(place[1])} tokens"
            before, after = math.exp(now), math.exp(now - gain)
            text += f"; with it known, the law at {at} is good to a factor of {after:.2f} instead of {before:.2f}"
        out.append((one, text))
    return out


def _cost(one: CellOptimum) -> float:
    return (one.setting.params or 1.0) * (one.setting.tokens or 1.0)


def _ahead(family: Family) -> tuple[float, float]:
    settings = [one.setting for one in family.optima]
    return AHEAD * max(s.params or 0.0 for s in settings), AHEAD * max(s.tokens or 0.0 for s in settings)


def _width(cells: Sequence[CellOptimum], known: dict[int, float], law: LRLaw, place: tuple[float, float]) -> float:
    """Return half the width of the law's 90 % interval of ln LR at a place, with standard errors as in `known`."""
    lrs = []
    for one in cells:
        at = one.fit.lr
        if not one.used and one.setting.params and one.setting.tokens:
            at = float(law.lr(one.setting.params, one.setting.tokens, one.setting.batch))
        lrs.append(at)
    errors = [known.get(id(one), one.log_stderr) for one in cells]
    batches = [one.setting.batch or 1.0 for one in cells] if law.batch_unit is not None else None
    fitted = fit_lr_law(
        [one.setting.params or 1.0 for one in cells], [one.setting.tokens or 1.0 for one in cells], lrs,
        stderr=np.maximum(errors, 1e-6), batch=batches,
    )  # fmt: skip
    batch = None
    if batches is not None:
        batch = float(law.batch_law.value(*place)) if law.batch_law is not None else law.batch_unit
    found = fitted.predict(*place, batch=batch, extrapolation_limit=math.inf)
    if not (found.lr_low > 0 and found.lr_high < math.inf):
        return math.inf
    return 0.5 * math.log(found.lr_high / found.lr_low)


def why(one: CellOptimum) -> str:
    """Return what is not known of a cell, in a phrase."""
    fit, tried = one.fit, np.unique(one.cell.lr)
    finite = np.unique(one.cell.lr[np.isfinite(one.cell.loss)]).size
    many = f"{finite} LR{'s' if finite != 1 else ''}"
    reasons = {
        Status.EDGE_LOW: f"the lowest loss is at or below the lowest LR tried ({format_lr(tried[0])})",
        Status.EDGE_HIGH: f"the lowest loss is at or above the highest LR tried ({format_lr(tried[-1])})",
        Status.TOO_FEW: f"{many} with a finite loss, four are needed to confirm an optimum",
        Status.DIVERGED: "every run diverged",
    }
    if fit.status is Status.UNCERTAIN and fit.lr_low > 0 and fit.lr_high < math.inf:
        return f"the interval of its optimum is {format_lr(fit.lr_low)} to {format_lr(fit.lr_high)}"
    return reasons.get(fit.status, fit.message)


def _new_setting(family: Family, target: tuple[float, float] | None) -> Suggestion | None:
    """Return a second size or budget where the law lacks its exponent; None if it has all, or there is no law."""
    law = family.law
    if law is None or not law.usable or law.status not in (Status.ONE_SIZE, Status.ONE_BUDGET, Status.ONE_CELL):
        return None
    if target is None:
        return None  # one setting is a question of its own; a second is needed only to go elsewhere
    largest = max(family.optima, key=_cost).setting
    if largest.params is None or largest.tokens is None:
        return None
    shrink_size = law.status in (Status.ONE_SIZE, Status.ONE_CELL)
    params = largest.params / 4 if shrink_size else largest.params
    tokens = largest.tokens if law.status is Status.ONE_SIZE else largest.tokens / 4
    what = {Status.ONE_SIZE: "a second size", Status.ONE_BUDGET: "a second budget"}.get(law.status, "another size")
    name = f"{format_count(params)} at {format_count(tokens)} tokens"
    setting = Setting(name=name, params=params, tokens=tokens, batch=largest.batch, config=largest.config)
    reason = f"{law.message}; {what}, four times smaller and so the cheapest that shows the exponent, decides"
    return Suggestion(setting=setting, family=family.name, lrs=first_lrs(setting, 3, law=law), reason=reason)
