"""Where a run starts: at its beginning, or at a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raylr.analysis.runs import RunEnd, identity_of
from raylr.errors import CheckpointError
from raylr.trainables.training import metrics
from raylr.trainables.training.checkpoint import RunFolder, read_state
from raylr.trainables.training.metrics import Row


def end_of(done: int, end: int, tokens: int) -> str | None:
    """Return how a run that has not diverged ended after `done` tokens, None if it goes on.

    Args:
        done: Tokens trained.
        end: Tokens at which this call stops, at most `tokens`.
        tokens: Tokens of the whole run.
    """
    if done < end:
        return None
    return (RunEnd.COMPLETED if end == tokens else RunEnd.PAUSED).value  # a plain string, as JSON gives it back


def nothing_since() -> dict[str, float]:
    """Return the sums over steps since the last report, of no steps."""
    return {"steps": 0, "loss": 0.0, "aux": 0.0, "layer_aux": 0.0, "seconds": 0.0}


def fresh_state() -> dict[str, Any]:
    """Return the state of a run of which nothing was trained."""
    return {
        "step": 0,
        "history": [],
        "running": 0.0,
        "since": nothing_since(),
        "train_seconds": 0.0,
        "eval_seconds": 0.0,
    }


def starting_state(
    fields: Mapping[str, Any],
    layout: Mapping[str, int],
    *,
    batch_tokens: int,
    tokens: int,
    end: int,
    run_folder: RunFolder | None,
    resume_from: Path | None,
) -> tuple[Path | None, dict[str, Any]]:
    """Find the checkpoint from which a run goes on.

    The run may have been shorter or longer before, and its loss measured at other points, where its identity does not
    depend on them. Rows that were measured stay; `run_end` in them is what it is for this call.

    Args:
        fields: What identifies the run.
        layout: Workers, ZeRO stage and expert parallelism.
        batch_tokens: Tokens of one step.
        tokens: Tokens of the whole run.
        end: Tokens at which this call stops.
        run_folder: The run's own checkpoints; the newest from which `end` can be reached is taken.
        resume_from: One checkpoint, which goes before `run_folder`.

    Returns:
        The checkpoint to load (None: start from the beginning) and the state. If the last row of its history ends the
        run, nothing is left to train.

    Raises:
        CheckpointError: If a checkpoint is of another run or layout, or if all are beyond `end` and the loss was not
            measured there.
    """
    own = run_folder.whole() if run_folder is not None else iter(())
    reached: list[int] = []
    for folder in [resume_from] if resume_from is not None else own:
        state = read_state(folder, fields, layout)
        at = state["step"] * batch_tokens
        state["history"] = _history(state["history"], end, tokens)
        if at < end or (state["history"] and state["history"][-1][metrics.RUN_END] is not None):
            return folder, state
        reached.append(at)
    if reached:
        raise CheckpointError(
            f"{resume_from or (run_folder and run_folder.path)}: the run is already at {min(reached)} tokens, and its "
            f"loss was not measured at {end} tokens: train it further, or give another run folder"
        )
    return None, fresh_state() | {"fields": dict(fields), "identity": identity_of(fields)}


def _history(rows: list[Row], end: int, tokens: int) -> list[Row]:
    """Return the rows up to `end`, with the `run_end` that they have in a run that stops there."""
    return [
        row if metrics.diverged(row) else row | {metrics.RUN_END: end_of(row[metrics.TOKENS], end, tokens)}
        for row in rows
        if row[metrics.TOKENS] <= end
    ]
