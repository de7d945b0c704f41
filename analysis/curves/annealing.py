"""The loss under any LR schedule: Eq. 4 where the LR is constant, and what a decay takes away where it falls.

Eq. 4 holds at a constant LR. While the LR falls, the loss falls faster, as the noise that a high LR keeps dies away;
this follows the area under the LR curve since then (Tissue et al. 2024; Luo et al. 2025). Curves at a constant LR and
one or two that were decayed determine both, and the loss after any other decay of the same model follows, with an
interval. A single run whose LR falls throughout can be extrapolated, too: what its decay will still give is then a
prior, and the interval is wide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from raylr.analysis._checks import Array, losses_of, positive, same_length, vector
from raylr.analysis.curves import _annealing, _floor, _reports
from raylr.analysis.status import Status
from raylr.errors import InputError

LEAST = 8
"""Fewest finite losses."""
LEVELS = 12
"""Reports are averaged together only if their LRs are in the same of this many parts of the peak."""
MOST_POINTS = 160
"""Points of all runs; with more, bins are wider."""
KNOWN_DROP = 0.3
"""The decay's share of the loss counts as measured if some run's noise floor moved by this share of its height."""
HIGH, APART = 0.9, 0.5
"""... and if losses at a floor of at least the first share of its height are known up to the second share of the
progress at which it had moved: in a run whose LR falls from early on, progress and decay cannot be distinguished. A
cosine keeps 0.9 of its peak for a fifth of its tokens, a run that is decayed at its end for four fifths."""


@dataclass(frozen=True, kw_only=True)
class AnnealingFit:
    """A fitted annealing law: predicts losses at any tokens under any schedule of the same model."""

    status: Status
    """`ok`; `not_determined` (usable: no LR fell enough to measure what a decay gives, or none stayed high for long
    enough to tell that from progress; it is the prior's); `too_few`, `not_falling` or `diverged` (no prediction)."""
    message: str
    """One sentence: why this status."""
    l_inf: float = math.nan
    """Loss after infinitely many tokens without a noise floor, nats."""
    gamma: float = math.nan
    """Exponent of progress."""
    floor: float = math.nan
    """Height of the noise floor at `lr_ref`: what a long decay to zero takes away, nats."""
    delay: float = math.nan
    """Tokens at `lr_ref` in which the floor falls to 1/e of its way after the LR has fallen."""
    lr_ref: float = math.nan
    """Highest LR of the fitted runs."""
    posterior: _annealing.Posterior | None = field(default=None, repr=False, compare=False)
    """None without a fit."""
    runs: tuple[object, ...] = field(default=(), repr=False)
    """Labels of the fitted runs."""
    responses: Array = field(default_factory=lambda: np.empty((0, 5)), repr=False, compare=False)
    """Exponents, delays and shapes of the floor that are integrated over."""

    @property
    def ok(self) -> bool:
        """Whether the runs determined the law."""
        return self.status.ok

    def predict(self, tokens: ArrayLike, lr: ArrayLike, *, run: object = None) -> tuple[Array, Array]:
        """Return the losses along a schedule and their posterior standard deviations.

        Args:
            tokens: Token counts of the path, in order, from the start of the run on (m,); before the first the LR is
                that of the first. Give as many points as the shape of the LR needs: it is linear between them.
            lr: LR at each (m,), from 0 on.
            run: Label of the fitted run that the path belongs to, so that its own deviations count; the only run
                where one was fitted. None otherwise means a new run of the same model.

        Returns:
            Two arrays (m,), nats; NaN and inf without a fit.

        Raises:
            InputError: Tokens are not above zero or not in order, LRs are negative, or the run is unknown.
        """
        path = self._path(tokens, lr)
        if run is not None and run not in self.runs:
            raise InputError(f"unknown run {run!r}; fitted were {', '.join(map(repr, self.runs))}")
        if self.posterior is None or not path.tokens.size:
            return np.full(path.tokens.size, math.nan), np.full(path.tokens.size, math.inf)
        number = self.runs.index(run) if run is not None else 0 if len(self.runs) == 1 else -1
        whole, at = path.refined()  # whether it is another run's path must not depend on how many points it has
        progress, floor = _floor.integrate(whole, self.responses)
        loss, stderr = self.posterior.predict(progress, floor, number, path.peak)
        return loss[at], stderr[at]

    def ends(self, paths: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[Array, Array]:
        """Return the losses at the ends of several schedules and their posterior covariance.

        Errors that runs share cancel in differences between them, so that LRs are compared far better than each loss
        is known.

        Args:
            paths: Token counts and LRs of each schedule, as for `predict`; each is a new run of the model.

        Returns:
            Losses (m,) and covariance (m, m), nats; NaN and inf without a fit.

        Raises:
            InputError: As `predict`.
        """
        made = [self._path(tokens, lr) for tokens, lr in paths]
        if self.posterior is None or not made:
            return np.full(len(made), math.nan), np.full((len(made), len(made)), math.inf)
        return self.posterior.joint([_annealing.end_of(one, self.responses, -1 - i) for i, one in enumerate(made)])

    def _path(self, tokens: ArrayLike, lr: ArrayLike) -> _floor.Path:
        t, h = positive(tokens, "tokens"), _lrs(lr)
        same_length(tokens=t, lr=h)
        if (np.diff(t) < 0).any():
            raise InputError("the tokens of a path must be in order: they go back")
        return _floor.Path(tokens=t, lr=h / self.lr_ref)


def fit_annealing(tokens: ArrayLike, lr: ArrayLike, loss: ArrayLike, *, run: ArrayLike | None = None) -> AnnealingFit:
    """Fit the annealing law to runs of one model whose LRs are known.

    Args:
        tokens: Token counts of the reports of all runs (n,), above zero. Where those of a run go back, it was resumed
            and the later reports count.
        lr: LR of the schedule at each (n,), from 0 on.
        loss: Loss in nats at each (n,). NaN where only the LR is known (such as the points of a decay of which the
            final loss is known); infinite losses and those of a run that ends in one are left out.
        run: Label of the run of each report (n,). None: they are of one run.

    Returns:
        The fit; `status` says whether the runs determined what a decay gives.

    Raises:
        InputError: Tokens are not above zero, LRs are negative or all 0, or lengths differ.

    Example:
        >>> import numpy as np
        >>> t = np.linspace(1e8, 1e10, 100)
        >>> lr = 1e-3 * np.clip((1e10 - t) / 2e9, 0, 1)  # constant, then a linear decay
        >>> noise = 0.003 * np.random.default_rng(0).standard_normal(t.size)
        >>> loss = 2 + 300 * t**-0.3 + 50 * lr + noise
        >>> fit = fit_annealing(t, lr, loss)
        >>> path = np.linspace(1e8, 2e10, 200)
        >>> predicted, stderr = fit.predict(path, 1e-3 * np.clip((2e10 - path) / 4e9, 0, 1))
        >>> bool(abs(predicted[-1] - 2 - 300 * 2e10**-0.3) < 3 * stderr[-1])
        True

    References:
        Tissue et al. 2024, arXiv 2408.11029. Luo et al. 2025, arXiv 2503.12811.
    """
    t, h, y = positive(tokens, "tokens"), _lrs(lr), losses_of(loss, "loss")
    labels = np.zeros(t.size, int) if run is None else np.asarray(run).ravel()
    same_length(tokens=t, lr=h, loss=y, run=labels)
    if not np.isfinite(y).sum() >= LEAST:
        return AnnealingFit(status=Status.TOO_FEW, message=f"{LEAST} finite losses are needed")
    if not h.max() > 0:
        raise InputError("all LRs are 0")
    responses = _floor.axes(float(t.max()))
    names, at = np.unique(labels, return_inverse=True)
    runs, trunks, moved, high, low = [], list[float](), 0.0, 0.0, 0.0
    for number in range(names.size):
        own = np.flatnonzero(at == number)
        own = own[_reports.latest(t[own])]
        found = _points(t[own], h[own] / h.max(), y[own], responses, float(t.max()))
        if found is not None:
            runs.append((number, *found))
            trunks.append(max(float(h[own].max() / h.max()), 1e-12))
            progress, floor = found[1][_floor.MIDDLE], found[2][_floor.LINEAR]
            moved = max(moved, 1 - float(found[2][_floor.LINEAR].min()))
            high = max(high, float(progress[floor >= HIGH].max(initial=0.0)))
            low = max(low, float(progress[floor <= 1 - KNOWN_DROP].max(initial=0.0)))
    if not runs:
        return AnnealingFit(status=Status.DIVERGED, message="no run has a finite loss at its end")
    points = _annealing.Points(
        run=np.concatenate([np.full(v.size, i) for i, v, *_ in runs]),
        trunk=np.concatenate([np.full(v.size, trunk) for (_, v, *_), trunk in zip(runs, trunks, strict=True)]),
        y=np.concatenate([v for _, v, *_ in runs]),
        noise=np.concatenate([v for *_, v in runs]),
        progress=np.concatenate([s for _, _, s, _, _ in runs], axis=1),
        floor=np.concatenate([r for _, _, _, r, _ in runs], axis=1),
    )
    fell, apart = moved >= KNOWN_DROP, high >= APART * low
    known = fell and apart
    posterior = _annealing.posterior(points, len(responses), measured=known)
    if posterior is None:
        return AnnealingFit(status=Status.NOT_FALLING, message="the loss does not fall with progress")
    weight = np.concatenate([w for _, _, w, *_ in posterior.blocks])
    node = posterior.nodes[np.concatenate([one for _, one, *_ in posterior.blocks])]
    phi = weight @ np.concatenate([one for _, _, _, one, *_ in posterior.blocks])
    return AnnealingFit(
        status=Status.OK if known else Status.NOT_DETERMINED,
        message=f"{points.y.size} points of {len(runs)} runs" if known else
        "the LR fell too little in all runs to measure what a decay gives: that is the prior's" if not fell else
        "the LR fell from early on in all runs, and its effect looks like progress: it is the prior's",
        l_inf=float(phi[0]), gamma=float(np.exp(weight @ np.log(node[:, 0]))), floor=float(phi[2]),
        delay=float(np.exp(weight @ np.log(responses[node[:, 2].astype(int), 3]))), lr_ref=float(h.max()),
        posterior=posterior, runs=tuple(names.tolist()), responses=responses,
    )  # fmt: skip


def _lrs(values: ArrayLike) -> Array:
    h = vector(values, "lr")
    bad = ~(np.isfinite(h) & (h >= 0))
    if bad.any():
        where = int(np.argmax(bad))
        raise InputError(f"lr must be finite and not below 0, got {h[where]} at position {where}")
    return h


def _points(t: Array, h: Array, y: Array, responses: Array, longest: float) -> tuple[Array, Array, Array, Array] | None:
    """Averaged losses of a run, S and R there, and the variance of their noise; None if it diverged or has no loss."""
    known = np.isfinite(y)
    last = np.flatnonzero(~np.isnan(y))
    if not known.any() or not np.isfinite(y[last[-1]]):
        return None
    tokens, first = np.unique(t, return_index=True)
    path = _floor.Path(tokens=tokens, lr=h[first])
    progress, floor = (one[:, np.searchsorted(tokens, t[known])] for one in _floor.integrate(path, responses))
    t, h, y = t[known], h[known], y[known]
    x = np.log(t / t[-1])
    y = _reports.without_spikes(x, y[None])[0]
    level = np.minimum((h * LEVELS + 1e-9).astype(int), LEVELS - 1)  # an LR on an edge does not move with its unit
    bins = np.ceil(x / _reports.BIN - 1e-9) * LEVELS + level
    _, group = np.unique(bins, return_inverse=True)
    share = (group == np.arange(group.max() + 1)[:, None]).astype(float)
    count = share.sum(1)
    share /= count[:, None]
    constant = np.ptp(h[x >= -_reports.RECENT]) <= 1e-3 * h.max()
    noise = (_reports.noise if constant else _reports.local_variance)(x, y[None])[0]
    return share @ y, progress @ share.T, floor @ share.T, noise / count
