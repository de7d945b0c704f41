"""Published LR laws of the form c * N^-alpha * D^-beta, each with its units, range, schedule and source.

`verified` says whether the source's own text was seen. None comes with a covariance: their intervals are unknown.
"""

from raylr.analysis._checks import one_of
from raylr.analysis.laws import LRLaw

_LAWS = {
    # Zhou et al. 2026, Eq. 6. The text does not give the units; with N and D in 1e9 and the LR in 1e-4 the formula
    # gives the optima of its Table 4 within 7 % (8.75, 7.24, 6.36, 5.90, 5.55 e-4), with raw N and D 15 times less.
    "zhou2026": LRLaw(
        c=38.4588,
        alpha=0.2219,
        beta=0.3509,
        params_unit=1e9,
        tokens_unit=1e9,
        lr_unit=1e-4,
        params_range=(0.5e9, 3e9),
        tokens_range=(80e9, 220e9),
        objective="stable",
        schedule="warmup, then constant",
        source="Zhou et al. 2026, arXiv 2601.05049, Eq. 6 (N: total parameters of an MoE)",
    ),
}


def names() -> tuple[str, ...]:
    """Names that `get` knows."""
    return tuple(sorted(_LAWS))


def get(name: str) -> LRLaw:
    """The published law called `name`; ValueError with the nearest name for an unknown one."""
    return _LAWS[one_of(name, _LAWS, "preset")]
