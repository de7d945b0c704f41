"""What a plan of cells will be able to tell, before any of them is trained."""

import math

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import positive, same_length
from raylr.analysis.laws._fitting import SCATTER
from raylr.analysis.laws.lr_fit import DEFAULT_PRIORS, ExponentPriors

CELL_STDERR = 0.2
"""Standard error of ln lr_opt that is assumed of a cell: a 90 % interval of a factor 1.4 to each side, as searches of
four to six runs give it."""


def batch_exponent_sd(
    params: ArrayLike,
    tokens: ArrayLike,
    batch: ArrayLike,
    *,
    stderr: float = CELL_STDERR,
    priors: ExponentPriors = DEFAULT_PRIORS,
) -> float:
    """Return how precisely cells like these will determine the exponent of the batch without a prior.

    Args:
        params: Parameters of each planned cell (n,).
        tokens: Its training tokens (n,).
        batch: Its tokens of one optimizer step (n,).
        stderr: Standard error of ln lr_opt that is expected of a cell; the scatter of cells is added.
        priors: Priors of the exponents of size and tokens. That of the batch does not take part.

    Returns:
        The standard deviation of the exponent; inf if the cells do not determine it.

    Raises:
        InputError: a number is not above zero, or lengths differ.

    Example:
        >>> wide = batch_exponent_sd([1e8, 1e8], [1e9, 1e9], [1e5, 4e5])
        >>> narrow = batch_exponent_sd([1e8, 1e8], [1e9, 1e9], [1e5, 1.2e5])
        >>> round(wide, 2), round(narrow, 1)
        (0.29, 2.2)
    """
    n, d, b = positive(params, "params"), positive(tokens, "tokens"), positive(batch, "batch")
    same_length(params=n, tokens=d, batch=b)
    logs = [np.log(values) - np.log(values).mean() for values in (n, d, b)]
    x = np.column_stack([np.ones(n.size), -logs[0], -logs[1], logs[2]])
    precision = x.T @ x / (stderr**2 + SCATTER**2)
    precision[1, 1] += priors.alpha[1] ** -2
    precision[2, 2] += priors.beta[1] ** -2
    # Schur complement: the precision of the last coefficient after the others were fitted.
    rest, cross = precision[:3, :3], precision[:3, 3]
    own = float(precision[3, 3] - cross @ np.linalg.solve(rest, cross))
    return 1 / math.sqrt(own) if own > 1e-12 else math.inf
