"""From the reports of a run to a few points with known noise: order, spikes, noise, averages.

Notation
    t, x     tokens of the reports, and ln(t / last t)                           (n,)
    y        losses, one row a curve                                             (R, n)
    m        bins of x; they are `BIN` wide at the end and wider before          (m,)

Smooth validation losses and dense noisy training losses go the same way. The noise of a single report is measured on
the recent part of each curve, as are its correlations (running means, shared batches of data), and the average of a bin
of k reports then has the variance `noise` / k.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from raylr.analysis._checks import Array

BIN = 0.1
"""Width of a bin at the end of a curve, in ln tokens."""
FINE, GROWTH = 10, 1.3
"""Bins of that width, and the factor by which each one before them is wider: 20 bins span a factor of 400."""
END = 0.7
"""Length of a curve's end in ln tokens, a factor of two, over which its slope is measured."""
SMOOTH = 0.2
"""Width in ln tokens over which a curve is smoothed where only its height matters."""
RECENT = 1.4
"""Length in ln tokens of the part, up to the end, on which the noise is measured: the last three quarters of the
tokens. A cubic describes the trend there."""
LEAST_RECENT = 20
"""Reports in it from which on their correlation is measured; with fewer it is taken to be white."""
CORRELATION_MOST = 0.9
"""Largest lag-one correlation that is believed: beyond, the cubic misses the trend."""
SPIKE = 6.0
"""A report further than this many standard deviations of the noise from the running median is a spike, if it is also
further than the running median moves nearby."""
ORDERED = 0.25
"""Largest share of reports at which the tokens may go back for the reports to count as the log of one run."""


def latest(t: Array) -> NDArray[np.intp]:
    """Return the indices of the reports that count, in the order of their tokens.

    Tokens that go back are those of a run that was resumed from an earlier checkpoint: what was reported before from
    there on was not on the way to the end of the run, and is left out. Tokens that go back at more than `ORDERED` of
    the reports are in no order, and all reports count.
    """
    back = np.diff(t) < 0
    if not back.any():
        return np.arange(t.size)
    if back.sum() > ORDERED * t.size:
        return np.argsort(t, kind="stable")
    group = np.append(0, np.cumsum(np.diff(t) != 0))  # reports in a row at one token count stay together
    each = t[np.append(True, np.diff(t) != 0)]
    later = np.append(np.minimum.accumulate(each[::-1])[::-1][1:], np.inf)  # the least token count that follows
    return np.flatnonzero((each < later)[group])


def without_spikes(x: Array, y: Array) -> Array:
    """Return `y` with single reports that lie far off the running median interpolated from their neighbours."""
    n = x.size
    width = min(2 * (n // 24) + 1, 31) if n >= 48 else 5
    if n < 2 * width:
        return y
    half = width // 2
    median = np.median(sliding_window_view(y, width, axis=1), axis=-1)  # (R, n - 2 half)
    moves = np.abs(np.diff(median, axis=1))
    moved = (half + 1) * np.maximum(np.pad(moves, ((0, 0), (0, 1))), np.pad(moves, ((0, 0), (1, 0))))
    # The last ones have the last whole window; the first, where a curve is steep and weighs little, stay as they are.
    median, moved = (np.pad(one, ((0, 0), (half, half)), mode="edge") for one in (median, moved))
    far = np.abs(y - median) > np.maximum(SPIKE * np.sqrt(local_variance(x, y))[:, None], moved)
    far[:, :half] = False
    spiked = np.flatnonzero(far.any(1))
    if spiked.size:
        y = y.copy()
    for i in spiked:
        y[i, far[i]] = np.interp(x[far[i]], x[~far[i]], y[i, ~far[i]])
    return y


def noise(x: Array, y: Array) -> Array:
    """Return the variance of single reports (R,), as it counts in averages: correlated ones average out more slowly."""
    local = local_variance(x, y)
    recent = x >= -RECENT
    if recent.sum() < LEAST_RECENT:
        return local
    x, y = x[recent], y[:, recent]
    basis, _ = np.linalg.qr(np.vander(x / RECENT + 0.5, 4))
    rest = y - y @ basis @ basis.T
    limit = 4 * 1.4826 * np.median(np.abs(rest), axis=1, keepdims=True)
    rest = np.clip(rest, -limit, limit)
    total = (rest**2).sum(1)
    lag = np.divide((rest[:, 1:] * rest[:, :-1]).sum(1), total, out=np.zeros_like(total), where=total > 0)
    lag = np.clip(lag + 4 * (1 + lag) / x.size, 0.0, CORRELATION_MOST)  # four fitted coefficients bias it low
    return np.asarray(np.maximum(local, total / (x.size - 4) * (1 + lag) / (1 - lag)))


def local_variance(x: Array, y: Array) -> Array:
    """Variance of white noise (R,) from second differences over the last half of the reports.

    The median is taken, so that neither a spike nor a steep beginning counts.
    """
    late = slice(x.size // 2 if x.size > 12 else 0, None)
    x, y = x[late], y[:, late]
    if x.size < 4:
        return np.zeros(y.shape[0])
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    miss = y[:, 1:-1] - (1 - share) * y[:, :-2] - share * y[:, 2:]
    return np.asarray((1.4826 * np.median(np.abs(miss), axis=1)) ** 2 / np.mean(1 + (1 - share) ** 2 + share**2))


def slope(x: Array, y: Array, count: Array, end: float) -> Array:
    """Return the slope of R curves over the `END` before a point, nats per e-fold of tokens (R,).

    Args:
        x: ln(tokens / last tokens) of the averages, ascending (m,).
        y: Averages of the losses, nats (R, m).
        count: Number of reports behind each average (m,).
        end: The point, in x. At 0, the end of the curves, the last three averages count in any case.

    Returns:
        The slopes; NaN where fewer than three averages lie in that part.
    """
    if end == 0:
        part = x >= -END
        part[-3:] = True
    else:
        part = (x >= end - END) & (x <= end)
    if part.sum() < 3:
        return np.full(y.shape[0], np.nan)
    x, y, w = x[part], y[:, part], count[part] / count[part].sum()
    centred = x - w @ x
    return np.asarray(y @ (w * centred) / (w @ centred**2))


def smoothed(x: Array, y: Array, count: Array) -> Array:
    """Return a local straight line through the averages y (R, m) at each of them."""
    gap = x - x[:, None]
    weight = np.exp(-0.5 * (gap / SMOOTH) ** 2) * np.maximum(count, 1e-3 * count.max())
    total, first, second = weight.sum(1), (weight * gap).sum(1), (weight * gap**2).sum(1)
    det = total * second - first**2
    alone = det <= 1e-9 * total * second  # no other point nearby
    line = weight * (second[:, None] - first[:, None] * gap) / np.where(alone, 1.0, det)[:, None]
    line[alone] = np.eye(x.size)[alone]
    return np.asarray(y @ line.T)


def averages(x: Array, y: Array, count: Array) -> tuple[Array, Array, Array]:
    """Return the bins' mean x (m,), mean losses (R, m) and how many reports are in each (m,).

    Args:
        x: ln(tokens / last tokens), in order (n,).
        y: Losses (R, n).
        count: How many reports were already averaged in each (n,).
    """
    edges = BIN * np.concatenate([np.arange(FINE), FINE + np.cumsum(GROWTH ** np.arange(60))])
    _, at = np.unique(-np.searchsorted(edges, -x * (1 - 1e-9), side="right"), return_inverse=True)
    share = np.where(at == np.arange(at.max() + 1)[:, None], count, 0.0)
    reports = share.sum(1)
    share /= reports[:, None]
    return share @ x, y @ share.T, reports
