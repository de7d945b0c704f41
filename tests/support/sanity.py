"""Whether an answer agrees with the data that it was given: what every successful reading and fit must hold."""

import math
from typing import Any

import numpy as np

from raylr.analysis._checks import LOSSES
from raylr.analysis.cells import CellOptimum, Family, RunsFit
from raylr.analysis.laws.lr_law import LRLaw

BEYOND = 10.0
"""Times beyond the LRs tried at which no optimum is claimed."""
NOISES = 6.0
"""Standard deviations by which a lowest loss may lie below what is claimed as the lowest."""


def check_message(message: str) -> None:
    assert message.strip(), "no message"
    assert "\n" not in message, repr(message)
    assert "Traceback" not in message
    assert "object at 0x" not in message


def check_optimum(one: CellOptimum) -> None:
    """An optimum lies where runs were made, inside its interval, and no run that was measured refutes it."""
    fit, lr, loss = one.fit, one.cell.lr, one.cell.loss
    finite = np.abs(loss) < LOSSES[1]  # what is larger counts as diverged
    check_message(fit.message)
    low, high = fit.lr_low, fit.lr_high
    shown = f"{fit.status} lr {fit.lr} [{low}, {high}] from {lr.tolist()} {loss.tolist()} {one.cell.stderr}"
    if not finite.any():
        assert not fit.ok, shown
        return
    assert fit.lr > 0, shown
    assert math.isfinite(fit.lr), shown
    assert lr.min() / BEYOND <= fit.lr <= lr.max() * BEYOND, shown
    assert 0 <= low <= high, shown
    assert fit.loss_stderr >= 0, shown
    assert 0 <= low <= fit.lr * (1 + 1e-9), shown
    assert fit.lr <= high * (1 + 1e-9), shown
    if not fit.ok:
        return
    assert low > 0, shown
    assert math.isfinite(high), shown
    assert len(set(lr[finite].tolist())) >= 2, f"known from one LR: {shown}"
    assert math.isfinite(fit.loss), shown
    if one.cell.stderr is None:
        best = int(np.argmin(np.where(finite, loss, np.inf)))
        far = not low <= lr[best] <= high
        claimed = fit.loss - NOISES * math.hypot(fit.noise, fit.loss_stderr)
        assert not far or loss[best] >= claimed, f"a run outside of the interval is better: {shown}, loss {fit.loss}"
        below = lr <= fit.lr
        assert finite[below].any() or finite[lr <= fit.lr * 2].any(), f"every run at or below it diverged: {shown}"


def check_law(law: LRLaw, params: float, tokens: float, batch: float | None = None) -> Any:
    """A law that may be used predicts a positive LR with an ordered interval; it is the same when written and read."""
    assert law.to_json() == LRLaw.from_json(law.to_json()).to_json()
    found = law.predict(params=params, tokens=tokens, batch=batch)
    check_message(found.message)
    shown = f"{found.lr} [{found.lr_low}, {found.lr_high}] {found.status} of {law.to_json()}"
    if law.usable:
        assert math.isnan(found.lr) or found.lr >= 0, shown
        if math.isfinite(found.lr_low) and math.isfinite(found.lr):
            assert found.lr_low <= found.lr * (1 + 1e-9), shown
            assert found.lr <= found.lr_high * (1 + 1e-9), shown
    if found.ok:
        assert 0 < found.lr < math.inf, shown
    return found


def check_family(family: Family) -> None:
    """A law agrees with its cells: at each of them it predicts an LR near those that were tried."""
    for one in family.optima:
        check_optimum(one)
    law = family.law
    if law is None:
        check_message(family.why)
        return
    if not law.ok:
        return
    lrs = np.concatenate([one.cell.lr for one in family.optima])
    for one in family.optima:
        if not one.used:
            continue
        assert one.setting.params
        assert one.setting.tokens
        batch = one.setting.batch if law.batch_unit is not None else None
        found = check_law(law, one.setting.params, one.setting.tokens, batch)
        shown = f"{found.lr} for optimum {one.fit.lr}, tried {lrs.min()} to {lrs.max()}: {law.to_json()}"
        if found.ok:
            assert lrs.min() / BEYOND <= found.lr <= lrs.max() * BEYOND, shown


def check_fit(fit: RunsFit) -> None:
    for family in fit.families:
        check_family(family)


def check_numbers(value: Any, place: str = "") -> None:
    """A spec that was accepted holds no number that is not finite."""
    if isinstance(value, dict):
        for name, one in value.items():
            check_numbers(one, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            check_numbers(one, f"{place}.{i}")
    elif isinstance(value, float):
        assert math.isfinite(value), f"{place} is {value}"
