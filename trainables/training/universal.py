"""A checkpoint of one number of workers for a run on another, by DeepSpeed's universal checkpoints.

For ZeRO 1 and 2 without expert parallelism: the run goes on with the same weights and optimizer, its losses equal to
rounding. DeepSpeed 0.19's conversion of ZeRO 3 is refused: it brings the weights over, but not AdamW's state (the next
steps are wrong by 1e-3 nats at a high LR, even on the same number of workers). So is that of expert-parallel layers,
whose weights have other names than the whole model's. Use:

    python -m raylr.trainables.training.universal RUN_DIR/step-0000000600 OTHER_RUN_DIR/step-0000000600
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from raylr.errors import CheckpointError, InputError, RaylrError
from raylr.trainables.training.checkpoint import TAG, TOKENIZER, UNIVERSAL, intact_state, seal
from raylr.trainables.training.unpickling import only_tensors

STAGES = (1, 2)
"""ZeRO stages whose checkpoints can be converted, and into which they load."""


def convert(checkpoint: str | Path, out: str | Path, *, trust_checkpoint: bool = False) -> Path:
    """Convert a checkpoint to a form that any number of workers loads.

    Args:
        checkpoint: The checkpoint's folder.
        out: The new folder; it appears whole or not at all. It then serves as `resume_from`, or as the first `step-…`
            of another run folder.
        trust_checkpoint: Whether the checkpoint may hold pickled objects other than tensors, which are then executed.

    Returns:
        `out`.

    Raises:
        CheckpointError: If the checkpoint is damaged, holds more than tensors, or cannot be converted.
        InputError: If `out` exists.
    """
    source, target = Path(checkpoint), Path(out)
    if target.exists():
        raise InputError(f"{target} exists: give another folder")
    state = intact_state(source)
    stage, spread = state["layout"]["zero_stage"], state["layout"]["expert_parallel"]
    if stage not in STAGES or spread > 1:
        raise CheckpointError(
            f"{source} is of zero_stage={stage} and expert_parallel={spread}: only checkpoints of ZeRO 1 and 2 without "
            "expert parallelism load into another number of workers"
        )
    from raylr.trainables.training.engine import quiet

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as temporary:
        work = Path(temporary) / "universal"
        with (
            quiet(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
            only_tensors(source, trust=trust_checkpoint),
        ):
            from deepspeed.checkpoint.ds_to_universal import main as ds_to_universal

            ds_to_universal(
                Namespace(
                    input_folder=str(source / TAG),
                    output_folder=str(work / TAG),
                    num_extract_workers=1,
                    num_merge_workers=1,
                    keep_temp_folder=False,
                    strict=True,
                    inject_missing_state=True,
                )
            )
        if (source / TOKENIZER).is_file():
            shutil.copyfile(source / TOKENIZER, work / TOKENIZER)
        seal(work, state | {UNIVERSAL: True})
        work.rename(target)
    return target


if __name__ == "__main__":
    trusting = "--trust-checkpoint" in sys.argv
    given = [argument for argument in sys.argv[1:] if argument != "--trust-checkpoint"]
    if len(given) != 2:
        raise SystemExit(
            "usage: python -m raylr.trainables.training.universal CHECKPOINT NEW_FOLDER [--trust-checkpoint]"
        )
    try:
        convert(*given, trust_checkpoint=trusting)
    except RaylrError as problem:
        raise SystemExit(str(problem)) from None
