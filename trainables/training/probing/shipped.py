"""Names of the probes that come with raylr → the probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from raylr.trainables.training.probes import Probe

ProbeName = Literal["update_rms", "attention", "router", "activations", "changes", "spikes"]
NAMES: tuple[ProbeName, ...] = get_args(ProbeName)


def shipped_probes(names: Sequence[ProbeName]) -> list[Probe]:
    """Return new probes for one run; torch is imported with those that need it.

    Args:
        names: Of `NAMES`, without repetition.
    """
    found: list[Probe] = []
    for name in names:
        if name == "update_rms":
            from raylr.trainables.training.probing.updates import UpdateProbe

            found.append(UpdateProbe())
        elif name == "attention":
            from raylr.trainables.training.probing.attention import AttentionProbe

            found.append(AttentionProbe())
        elif name == "router":
            from raylr.trainables.training.probing.router import RouterProbe

            found.append(RouterProbe())
        elif name == "activations":
            from raylr.trainables.training.probing.activations import ActivationProbe

            found.append(ActivationProbe())
        elif name == "changes":
            from raylr.trainables.training.probing.changes import ChangeProbe

            found.append(ChangeProbe())
        else:
            from raylr.trainables.training.probing.spikes import SpikeProbe

            found.append(SpikeProbe())
    return found
