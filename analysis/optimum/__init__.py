"""The loss over the learning rate: one model for searching, for fitting and for checking.

fit = fit_optimum(lr, loss)     # the best LR, its interval and status, from any number of runs
next_lr(fit)                    # where another run tells most
"""

from raylr.analysis.optimum.acquisition import next_lr, next_lrs
from raylr.analysis.optimum.fit import OptimumFit, fit_optimum
from raylr.analysis.optimum.prior import OptimumPrior
from raylr.analysis.optimum.response import ResponseFit, Ridge, fit_response
from raylr.analysis.optimum.response_search import next_point, next_points, start_points
from raylr.analysis.status import Status

__all__ = [
    "OptimumFit",
    "OptimumPrior",
    "ResponseFit",
    "Ridge",
    "Status",
    "fit_optimum",
    "fit_response",
    "next_lr",
    "next_lrs",
    "next_point",
    "next_points",
    "start_points",
]
