"""How a fit or a search judges its own answer: one vocabulary for all of raylr."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Whether an answer may be used, and if not, why. Every result also has a `message` with the numbers."""

    OK = "ok"
    """The answer may be used with its interval."""
    UNCERTAIN = "uncertain"
    """There is an answer, but its interval or its expected regret is above the tolerance."""
    EDGE_LOW = "edge_low"
    """The optimum lies at or below the lowest learning rate measured."""
    EDGE_HIGH = "edge_high"
    """The optimum lies at or above the highest learning rate measured."""
    FLAT = "flat"
    """The losses do not depend on the learning rate by more than their noise."""
    PLATEAU = "plateau"
    """The lowest losses are equal over a wide interval of learning rates: any of them does."""
    TWO_MINIMA = "two_minima"
    """The losses have two minima with a ridge between them that noise does not explain."""
    CONTRADICTED = "contradicted"
    """No curve with one minimum agrees with the losses: the best learning rate tried is given, without a model."""
    DIVERGED = "diverged"
    """No run ended with a finite loss."""
    TOO_FEW = "too_few"
    """Too few measurements for any answer."""
    TOO_SHORT = "too_short"
    """The curve has too few reports, or spans too few tokens."""
    NOT_FALLING = "not_falling"
    """The loss does not fall over the part of the curve that is used."""
    NOT_CONVERGING = "not_converging"
    """The curve shows no limit: its extrapolation is not determined."""
    NOT_CONSTANT = "not_constant"
    """The learning rate falls during the runs: a law for constant learning rates does not hold."""
    ONE_SIZE = "one_size"
    """The law has no exponent of the parameters: all settings have one size."""
    ONE_BUDGET = "one_budget"
    """The law has no exponent of the tokens: all settings have one budget."""
    ONE_CELL = "one_cell"
    """The law is a constant: there is one setting."""
    COLLINEAR = "collinear"
    """Sizes and budgets grow together: only what happens along their line is known."""
    NO_LAW = "no_law"
    """The optima follow no law of this form."""
    NOT_DETERMINED = "not_determined"
    """The measurements do not decide between the candidates, or too little is published for a number."""
    EXTRAPOLATED = "extrapolated"
    """The prediction lies further outside the fitted range than laws of this kind were tested."""

    @property
    def ok(self) -> bool:
        """Whether the answer may be used with its interval: true for `OK` alone."""
        return self is Status.OK
