"""The LR over a run, as a share of its peak.

In the decay, x in [0, 1] is the position of the middle of a step: the last step of a run that decays to 0 still moves
the weights a little.
"""

import math

from raylr.analysis.curves.schedule import Decay
from raylr.trainables.training.spec import TrainSpec


def lr_factor(spec: TrainSpec, step: int, tokens: int) -> float:
    """Return the share of the peak LR that an optimizer step uses, in [0, 1].

    The warmup is linear in steps: step s of a warmup of w steps uses (s + 1) / w. "wsd" is constant until the last
    `decay_fraction` of the tokens; "cosine" falls from the end of the warmup to the end of the run.

    Args:
        spec: The run.
        step: Number of the step; 0 is the first.
        tokens: Training tokens of the whole run.
    """
    done = step * spec.batch_tokens
    if done < spec.warmup:
        return min(1.0, (done + spec.batch_tokens) / spec.warmup)
    if spec.schedule == "constant":
        return 1.0
    start = decay_start(spec, tokens)
    if tokens <= start:
        return 1.0
    x = min(1.0, max(0.0, (done + spec.batch_tokens / 2 - start) / (tokens - start)))
    shape = "cosine" if spec.schedule == "cosine" else spec.decay_shape
    return float(Decay(shape=shape, final_lr_ratio=spec.final_lr_ratio).falling(x))


def decay_start(spec: TrainSpec, tokens: int) -> float:
    """Return the tokens from which on the LR of a run of `tokens` falls; infinite at a constant LR."""
    if spec.schedule == "constant":
        return math.inf
    return spec.warmup if spec.schedule == "cosine" else max(spec.warmup, tokens * (1 - spec.decay_fraction))


def branch_tokens(spec: TrainSpec, tokens: int) -> int:
    """Return the tokens, whole batches, up to which a run with a decay trains as one at a constant LR does."""
    return int(min(decay_start(spec, tokens), tokens) // spec.batch_tokens) * spec.batch_tokens
