"""How much losses that are yet to be measured would narrow the best LR: where to spend the next tokens.

Losses and optimum are drawn together from the surface's posterior and taken as normal. A measurement y then leaves of
the variance of the optimum o what does not go with it: var o - cov(o, y) var(y)^-1 cov(y, o), for every y.

Notation
    z        ln lr - ln(lr of the best run)                                          (n,)
    x        ln(tokens / last tokens)                                                (n,)
    o        draws of how far the optimum at the target moves, ln lr                 (DRAWS,)
    y, e     draws of the losses to be measured, and of the same LRs at the target   (DRAWS, P)
"""

import math
from collections.abc import Sequence

import numpy as np

from raylr.analysis._checks import Array
from raylr.analysis.curves import _progress
from raylr.analysis.surface._section import DRAWS, errors, share_left
from raylr.analysis.surface.surface import CONTRAST, SAME_LR, LossSurface

Measurement = tuple[float, float]
"""(lr, tokens) of a loss to be measured."""


def expected_variance(surface: LossSurface, tokens: float, plans: Sequence[Sequence[Measurement]]) -> Array:
    """Variance of ln lr_opt at `tokens` that is left once the losses of a plan are measured, one a plan (len(plans),).

    A plan is a few pairs (lr, tokens), at most one of them of an LR without a run; an empty one gives the present
    variance. Two runs of one plan are more informative together than apart, since the error that they share cancels. A
    new LR also informs about the curve between the LRs. inf for a surface without a model.
    """
    post = surface.posterior
    if post is None:
        return np.full(len(plans), math.inf)
    pairs = sorted({pair for plan in plans for pair in plan})
    z = np.array([math.log(lr) for lr, _ in pairs]) - surface.centre
    last = surface.tokens_range[1]
    x, target = np.array([math.log(at / last) for _, at in pairs]), math.log(tokens / last)
    lead, moves = surface.movement(tokens)
    all_z, all_x = (
        np.concatenate([lead, z, z]),
        np.concatenate([np.full(lead.size, target), x, np.full(z.size, target)]),
    )
    amp = np.empty(all_z.size)
    for one in np.unique(all_x):
        amp[all_x == one] = _progress.amplitude(post.points, all_z[all_x == one], float(one))
    drawn = _progress.draws(post, _progress.curve(post, all_z, all_x, amp), DRAWS, np.random.default_rng(0))
    o = moves(drawn[:, : lead.size])
    o = o - o.mean()
    y, e = drawn[:, lead.size : lead.size + z.size], drawn[:, lead.size + z.size :]
    noise = _progress.OWN_SHARE * amp[lead.size : lead.size + z.size] ** 2 + (CONTRAST * post.points.slope) ** 2
    dy = y - y.mean(0)
    cov, with_o = dy.T @ dy / DRAWS + np.diag(noise), dy.T @ o / DRAWS
    variance = max(float(o @ o) / DRAWS, 1e-300)
    shapes = _Shapes(surface, tokens)
    out = []
    for plan in plans:
        at = [pairs.index(pair) for pair in plan]
        left = variance - float(with_o[at] @ np.linalg.solve(cov[np.ix_(at, at)], with_o[at])) if at else variance
        new = [i for i in at if np.abs(z[i] - shapes.z).min() > SAME_LR]
        shape = shapes.draws(float(z[new[0]]), e[:, new[0]], y[:, new[0]], noise[new[0]]) if new else shapes.now
        out.append(shapes.variance(o * math.sqrt(max(left, 0.0) / variance) + shape))
    return np.array(out)


class _Shapes:
    """Draws of the error of the shape between the LRs, at the target, with and without one LR more."""

    def __init__(self, surface: LossSurface, tokens: float) -> None:
        part = surface.section(tokens)
        self.z, self.centre, self.axis = part.log_lr - surface.centre, surface.centre, surface.axis()
        self.optimum, self.least = math.log(float(surface.lr_opt(tokens))) - surface.centre, surface.least_stderr
        self.shape = part.shape(self.least)
        self.now = errors(self.shape)

    def draws(self, z: float, end: Array, measured: Array, noise: float) -> Array:
        """Draws with a run at `z` whose losses at the target are drawn in `end`; those to be measured in `measured`."""
        d, y = end - end.mean(), measured - measured.mean()
        left = max(float(d @ d - (d @ y) ** 2 / (y @ y + DRAWS * noise)) / DRAWS, 0.0)
        share = share_left(self.shape, z + self.centre, math.hypot(self.least, math.sqrt(left)))
        return self.now * math.sqrt(share)

    def variance(self, error: Array) -> float:
        """Variance of the optimum, kept on the axis as everywhere."""
        return float(np.var(np.clip(self.optimum + error, self.axis[0], self.axis[-1])))
