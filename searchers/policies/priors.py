"""Turning what is known beforehand (a law, a preset, earlier results) into the prior of a setting. No Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raylr.analysis.across import SCATTER, Across, Known
from raylr.analysis.optimum import OptimumPrior, fit_optimum
from raylr.analysis.runs import Setting
from raylr.errors import InputError
from raylr.searchers._config import number
from raylr.searchers.policies.policy import SettingSearch

UNKNOWN_SD = 0.7
"""Standard deviation of ln lr around a law that says nothing about its own error: a factor of two."""
LEAST = 3
"""Finite losses that an earlier model size and budget must have to say anything."""


class EarlierSettings:
    """What the settings of a search that began earlier say of those that begin; it is computed once for each of them.

    Args:
        settings: All settings of the search.
        bases: The prior of each where nothing is known.
        lead: Runs of a setting from which it says something: what these show counts, and nothing later, so that the
            priors follow from results and not from timing. None: a setting says something when it has finished.
    """

    def __init__(self, settings: Sequence[Setting], bases: Sequence[OptimumPrior], lead: int | None) -> None:
        self._settings, self._bases, self._lead, self._across = settings, bases, lead, Across(settings)
        self._known: dict[str, Known | None] = {}
        self._places = {setting.name: place for place, setting in enumerate(settings)}

    def heard(self, name: str, search: SettingSearch) -> None:
        """Take that a setting has new results; its next round is not planned yet."""
        if self._lead is None:
            self._known.pop(name, None)
        elif name not in self._known and not search.queue and not search.pending() and len(search.runs) >= self._lead:
            self._known[name] = self._of(name, search)

    def needs(self, name: str, search: SettingSearch) -> bool:
        """Whether those that begin next have to wait for this setting."""
        return not search.finished and (self._lead is None or name not in self._known)

    def priors(self, group: range, searches: Mapping[str, SettingSearch]) -> list[OptimumPrior]:
        """Return the priors of settings that begin together.

        Args:
            group: Their places; the settings before these have begun, and none of them is to be waited for.
            searches: Name of a setting → its search.
        """
        names = [setting.name for setting in self._settings[: group.start]]
        self._known |= {name: self._of(name, searches[name]) for name in names if name not in self._known}
        known = [one for one in map(self._known.__getitem__, names) if one is not None]
        chosen = slice(group.start, group.stop)
        return self._across.priors(self._settings[chosen], known, self._bases[chosen])

    def _of(self, name: str, search: SettingSearch) -> Known | None:
        return Known(self._settings[self._places[name]], search.moments()) if search.known() else None


def prior_for(prior: Any, setting: Setting) -> OptimumPrior:
    """Prior of `setting`. InputError for a `prior` of another kind, and where the setting lacks what it needs."""
    if prior is None:
        return OptimumPrior()
    if isinstance(prior, OptimumPrior):
        return prior
    if isinstance(prior, Sequence) and not isinstance(prior, str):
        return _from_results(prior, setting)
    from raylr.analysis import LRLaw
    from raylr.analysis.laws import presets

    if isinstance(prior, str):
        prior = presets.get(prior)
    if not isinstance(prior, LRLaw):
        raise InputError(
            "prior must be an LRLaw, the name of a preset, an OptimumPrior, or a list of earlier results (dicts with "
            f"lr, loss and, where they vary, params and tokens), not {type(prior).__name__}"
        )
    if setting.params is None or setting.tokens is None:
        where = f"{setting.name!r} has none" if setting.name else "pass settings=[Setting(params=..., tokens=...)]"
        raise InputError(f"an LR law needs the parameters and tokens of each setting: {where}")
    predicted = prior.predict(setting.params, setting.tokens, batch=setting.batch)
    sd = UNKNOWN_SD
    if math.isfinite(predicted.lr_low) and math.isfinite(predicted.lr_high) and predicted.lr_low > 0:
        sd = min(2.0, math.hypot(math.log(predicted.lr_high / predicted.lr_low) / (2 * 1.645), SCATTER))
    if not (math.isfinite(predicted.lr) and predicted.lr > 0):
        raise InputError(
            f"the law gives no lr at {setting.params:g} parameters and {setting.tokens:g} tokens: {predicted.message}"
        )
    return OptimumPrior(center=math.log(predicted.lr), center_sd=sd)


def _from_results(rows: Sequence[Any], setting: Setting) -> OptimumPrior:
    """Prior from measured losses: each model size and budget in `rows` is a known setting."""
    groups: dict[tuple[Any, Any], list[tuple[float, float]]] = {}
    for row in rows:
        if not isinstance(row, Mapping) or not number(row.get("lr")) or row["lr"] <= 0 or "loss" not in row:
            raise InputError(f"an earlier result must be a dict with a positive lr and a loss, not {row!r}")
        loss = float(row["loss"]) if number(row["loss"]) else math.nan
        groups.setdefault((row.get("params"), row.get("tokens")), []).append((math.log(row["lr"]), loss))
    settings, known = [setting], []
    for i, ((params, tokens), runs) in enumerate(sorted(groups.items(), key=str)):
        x, y = np.array(runs).T
        if np.isfinite(y).sum() >= LEAST:
            earlier = Setting(name=f"earlier {i}", params=params, tokens=tokens)
            settings.append(earlier)
            known.append(Known(earlier, fit_optimum(np.exp(x), y).moments()))
    if not known:
        raise InputError(f"no model size and budget among the earlier results has {LEAST} finite losses")
    return Across(settings).priors([setting], known, [OptimumPrior()])[0]
