"""The status that every fit of an optimum returns: what was found, or what stands in the way."""

from enum import StrEnum


class Status(StrEnum):
    """Outcome of a fit of the loss over the learning rate."""

    OK = "ok"
    """The optimum lies inside the LRs tried and is known within the tolerance."""
    EDGE_LOW = "edge_low"
    """The loss is still falling at the lowest LR tried: try lower ones."""
    EDGE_HIGH = "edge_high"
    """The loss is still falling at the highest LR tried: try higher ones."""
    UNCERTAIN = "uncertain"
    """The optimum is not known within the tolerance yet: more runs are needed."""
    TOO_FEW = "too_few"
    """There are too few LRs with a finite loss to say anything."""
    DIVERGED = "diverged"
    """No run ended with a finite loss: try lower LRs."""
    PLATEAU = "plateau"
    """The lowest losses are equal over a wide interval of LRs: any of them does."""
    TWO_MINIMA = "two_minima"
    """The losses have two minima with a ridge between them that noise does not explain."""
    NO_EFFECT = "no_effect"
    """The losses do not depend on the LR: check that the LR reaches the optimizer and the metric is the right one."""
    CONTRADICTED = "contradicted"
    """No curve with one minimum agrees with the losses: the best LR tried is given, and no model is trusted."""

    @property
    def ok(self) -> bool:
        """Whether the optimum is known within the tolerance."""
        return self is Status.OK
