"""Names of everything that the trainables report, each defined once (no heavy imports).

One report is one row: a flat dict from these names to values, made at each point of `eval_at`. The keys of a trial's
config (`lr`, `tokens`) and the columns of the run table have the same names. A row may hold further columns, such as
those of probes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from raylr.analysis.runs import RunEnd

Row = dict[str, Any]
"""One report: names of this module to values."""
Report = Callable[[Row, Path | None], None]
"""Takes a row and, with `checkpoint_reports`, a folder with a checkpoint (gone when the call returns)."""

LOSS: Final = "loss"
"""Validation cross-entropy in nats a token on fixed batches, without auxiliary losses; NaN in the last row of a
diverged run."""
TRAIN_LOSS: Final = "train_loss"
"""Mean training cross-entropy in nats a token since the last report (diverged: of the step that showed it)."""
TOKENS: Final = "tokens"
"""Training tokens used so far."""
STEP: Final = "step"
"""Optimizer steps made so far."""
LR: Final = "lr"
"""The peak LR: the LR that the run was given."""
CURRENT_LR: Final = "current_lr"
"""The LR of the last step (schedule included, multipliers by module excluded)."""
GRAD_NORM: Final = "grad_norm"
"""Global gradient norm of the last step, before clipping."""
AUX_LOSS: Final = "aux_loss"
"""Mean load-balancing loss since the last report, of counts that are pooled over layers, before its coefficient (top-k
when balanced; 0 in a dense model)."""
LAYER_AUX_LOSS: Final = "layer_aux_loss"
"""Likewise, the mean over layers of each layer's own: larger where one layer's load makes up for another's."""
TOKENS_PER_SECOND: Final = "tokens_per_second"
"""Training tokens a second since the last report (validation, checkpoints and reports excluded)."""
PARAMS: Final = "params"
"""Total parameters."""
PARAMS_ACTIVE: Final = "params_active"
"""Parameters that one token uses."""
FLOPS: Final = "flops"
"""Training FLOPs so far, forward and backward (`ModelSpec.flops_per_token`); of a branch those of its own tokens."""
TRUNK_TOKENS: Final = "trunk_tokens"
"""Tokens of the trunk at which a branch began (`raylr.trainables.training.branch`): of its `tokens` the branch itself
trained the others. Only in the rows of a branch."""
TRAIN_SECONDS: Final = "train_seconds"
"""Seconds spent in training steps so far."""
EVAL_SECONDS: Final = "eval_seconds"
"""Seconds spent in validation so far."""
EPOCH: Final = "epoch"
"""Times that the training stream has been read so far, as a fraction; above 1 tokens were repeated."""
RUN_END: Final = "run_end"
"""How the run ended, a value of `raylr.analysis.runs.RunEnd`: `completed` in the row at its last tokens, `paused` at
the end of a segment (`stop_at`), `diverged` if its training loss became NaN, infinite or exploded (`loss` is then NaN,
which means that the LR is too high). None in every other row."""

ALL: Final = (
    LOSS,
    TRAIN_LOSS,
    TOKENS,
    STEP,
    LR,
    CURRENT_LR,
    GRAD_NORM,
    AUX_LOSS,
    LAYER_AUX_LOSS,
    TOKENS_PER_SECOND,
    PARAMS,
    PARAMS_ACTIVE,
    FLOPS,
    TRAIN_SECONDS,
    EVAL_SECONDS,
    EPOCH,
    RUN_END,
)
"""Every name above, in the order of a row."""


def diverged(row: Row) -> bool:
    """Return whether a row is the last of a run that diverged."""
    return bool(row[RUN_END] == RunEnd.DIVERGED)
