"""Fits of learning rates and losses: pure functions on arrays, each returning data with a status.

Names are imported when they are first used, so that `import raylr.analysis` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raylr.analysis import presets
    from raylr.analysis.laws import LRLaw, LRPrediction, fit_lr_law
    from raylr.analysis.power_law import PowerLawFit, fit_power_law, fit_power_laws
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
}

__all__ = [
    "LRLaw",
    "LRPrediction",
    "LossSurface",
    "PowerLawFit",
    "QuadraticFit",
    "QuadraticPrior",
    "fit_lr_law",
    "fit_power_law",
    "fit_power_laws",
    "fit_quadratic",
    "fit_surface",
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
