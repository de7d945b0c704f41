"""Reading the files of a checkpoint without executing what they hold.

DeepSpeed writes its state with `torch.save`, that is as pickles, and reads it with `weights_only=False`: a pickle from
somebody else can run any program. Everything that raylr's checkpoints hold is tensors, plain values and three small
classes of DeepSpeed, so that torch's restricted unpickler, which only builds what is on its list, can read them.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raylr.errors import CheckpointError

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""Environment variable that restricts every `torch.load`, even with `weights_only=False` (torch/serialization.py)."""


def _classes_of_deepspeed() -> list[Any]:
    """Return the classes in DeepSpeed's optimizer files; none of them does anything when it is built."""
    from raylr.trainables.training.engine import import_deepspeed

    import_deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def only_tensors(source: Path, *, trust: bool = False, deepspeed_classes: bool = True) -> Iterator[None]:
    """Within this context every `torch.load` of this process builds tensors, plain values and DeepSpeed's own classes.

    This holds for the loads inside DeepSpeed too, which ask for more.

    Args:
        source: What is being read, for the message.
        trust: Whether anything may be unpickled, and thereby executed.
        deepspeed_classes: Whether DeepSpeed's classes are wanted; they are imported then, which takes seconds.

    Raises:
        CheckpointError: If a file holds an object of another class. Nothing of it was executed.
    """
    if trust:
        yield
        return
    import torch

    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_classes_of_deepspeed() if deepspeed_classes else []):
            yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source} holds more than tensors and plain values, and reading it could run a program "
            f"({_reason(error)}); if you trust its author, allow that with trust_checkpoint=True "
            "(--trust-checkpoint)"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_FORCE, None)
        else:
            os.environ[_FORCE] = before


def _reason(error: Exception) -> str:
    """Return the line of torch's message that names the object."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return (lines[0] if lines else str(error).strip().splitlines()[0])[:200]
