"""One thread for the linear algebra of fits: the same measurements then give the same numbers in every process.

OpenBLAS adds in another order with another number of threads, which moves the last digits of a fit. A study's processes
differ in that number (Ray sets OMP_NUM_THREADS=1 for its workers and jobs), and a study that is stopped in one and gone
on with in another must end with the same law. The matrices are small: more threads gain nothing.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def _controller() -> ThreadpoolController:
    """Return what sets the threads of numpy's and scipy's BLAS, which are loaded by then."""
    from threadpoolctl import ThreadpoolController

    importlib.import_module("scipy.linalg")
    return ThreadpoolController()


def one_thread(fit: Callable[P, R]) -> Callable[P, R]:
    """Decorate a fit so that its linear algebra runs on one thread; it costs about 20 µs a call.

    Example:
        >>> from raylr.analysis._threads import one_thread
        >>> @one_thread
        ... def total(values):
        ...     return sum(values)
        >>> total([1, 2])
        3
    """

    @functools.wraps(fit)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return fit(*args, **kwargs)

    return alone
