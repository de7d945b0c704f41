"""Fits of learning rates and losses: pure functions on arrays, each returning data with a status.

Names are imported when they are first used, so that `import raylr.analysis` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raylr.analysis import presets
    from raylr.analysis.cooldown import CooldownShift, fit_cooldown
    from raylr.analysis.families import FamilyScore, compare_families
    from raylr.analysis.laws import LRLaw, LRPrediction, fit_lr_law
    from raylr.analysis.pooling import pooled_priors
    from raylr.analysis.power_law import PowerLawFit, PowerLawFits, fit_power_law, fit_power_laws
    from raylr.analysis.quadratic import QuadraticFit, QuadraticPrior, fit_quadratic
    from raylr.analysis.surface import LossSurface, fit_surface

_HOME = {
    "QuadraticFit": "quadratic",
    "QuadraticPrior": "quadratic",
    "fit_quadratic": "quadratic",
    "PowerLawFit": "power_law",
    "fit_power_law": "power_law",
    "fit_power_laws": "power_law",
    "LossSurface": "surface",
    "fit_surface": "surface",
    "LRLaw": "laws",
    "LRPrediction": "laws",
    "fit_lr_law": "laws",
    "CooldownShift": "cooldown",
    "fit_cooldown": "cooldown",
    "FamilyScore": "families",
    "compare_families": "families",
    "pooled_priors": "pooling",
    "PowerLawFits": "power_law",
}

__all__ = [
    "CooldownShift",
    "FamilyScore",
    "LRLaw",
    "LRPrediction",
    "LossSurface",
    "PowerLawFit",
    "PowerLawFits",
    "QuadraticFit",
    "QuadraticPrior",
    "compare_families",
    "fit_cooldown",
    "fit_lr_law",
    "fit_power_law",
    "fit_power_laws",
    "fit_quadratic",
    "fit_surface",
    "pooled_priors",
    "presets",
]


def __getattr__(name: str) -> object:
    if name == "presets":
        return import_module("raylr.analysis.presets")
    if name in _HOME:
        return getattr(import_module(f"raylr.analysis.{_HOME[name]}"), name)
    raise AttributeError(f"module 'raylr.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
