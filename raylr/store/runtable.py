"""The tables of a study: `evaluations` (one row per evaluation), `trials` (one row per end of a segment) and `failures`
(one row per failure of a run).

Every result of a study is made again from the first two. The column `trial` is the identity of a row's run, a hash of
everything that is measured (`raylr.analysis.runs.Run`); `size` and the other columns for people are never parsed.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from raylr.store.table import Table

EVALUATIONS, TRIALS, FAILURES = "evaluations", "trials", "failures"
RUNS_FILE = "runs.json"
"""What is in a folder of imported runs, and in no study's."""
EVALUATION_KEY = ("trial", "tokens")
EVALUATION_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),  # identity of the run
        ("role", pa.string()),  # "search"; at a target "check", or "arm" and "sweep" of a comparison
        ("size", pa.string()),
        ("params", pa.int64()),
        ("params_active", pa.int64()),
        ("batch", pa.int64()),  # tokens of one optimizer step
        ("lr", pa.float64()),  # peak LR, the one that is searched; `current_lr` is the schedule's at that step
        ("tokens", pa.int64()),
        ("step", pa.int64()),
        ("loss", pa.float64()),  # validation loss, nats per token
        ("train_loss", pa.float64()),
        ("aux_loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("tokens_per_second", pa.float64()),
        ("flops", pa.float64()),
        ("diverged", pa.bool_()),
        ("seed", pa.int64()),
    ]
)
TRIAL_KEY = ("trial", "tokens")  # a run that was paused and resumed has a row for the end of each segment
TRIAL_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("role", pa.string()),
        ("size", pa.string()),
        ("batch", pa.int64()),
        ("lr", pa.float64()),
        ("tokens", pa.int64()),  # reached
        ("target_tokens", pa.int64()),
        ("flops", pa.float64()),
        ("status", pa.string()),  # "completed", "frozen" (may go on), "truncated", "pruned" or "diverged"
        ("loss", pa.float64()),  # last measured
        ("target_loss", pa.float64()),  # at target_tokens: measured, or extrapolated where truncated
        ("target_loss_stderr", pa.float64()),
        ("seconds", pa.float64()),
        ("evaluations", pa.int64()),  # rows of the run in the other table up to `tokens`; fewer there: some were lost
        ("config", pa.string()),  # JSON: everything that is measured; `trial` is its hash
    ]
)

FAILURE_KEY = ("trial", "at")
FAILURE_SCHEMA = pa.schema(
    [
        ("trial", pa.string()),
        ("role", pa.string()),
        ("size", pa.string()),
        ("lr", pa.float64()),
        ("tokens", pa.int64()),  # of the last evaluation; 0: none
        ("end", pa.string()),  # "failed" or "no_report"
        ("message", pa.string()),  # why, in a sentence
        ("output", pa.string()),  # the last lines that the run printed
        ("at", pa.float64()),  # seconds since 1970
    ]
)


def failures_table(study: Path, *, owner: str = "") -> Table:
    """Return the table of failures of the study in folder `study`, whose spec has the identity `owner`."""
    return Table(Path(study) / FAILURES, FAILURE_SCHEMA, FAILURE_KEY, owner=owner)


def evaluations_table(study: Path, *, owner: str = "") -> Table:
    """Return the table of evaluations of the study in folder `study`, whose spec has the identity `owner`."""
    return Table(Path(study) / EVALUATIONS, EVALUATION_SCHEMA, EVALUATION_KEY, owner=owner)


def trials_table(study: Path, *, owner: str = "") -> Table:
    """Return the table of ended segments of the study in folder `study`, whose spec has the identity `owner`."""
    return Table(Path(study) / TRIALS, TRIAL_SCHEMA, TRIAL_KEY, owner=owner)
