"""The model of an evaluation: a Hugging Face folder as it is, or a training checkpoint, exported."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylr.errors import CheckpointError
from raylr.remote.copies import with_addresses
from raylr.trainables.export.hf import ORIGIN, export_checkpoint, find_checkpoint
from raylr.trainables.training.checkpoint import CONFIG, fetch_checkpoint

_HASHED = (".json", ".safetensors", ".bin", ".model", ".txt")
"""Suffixes of the files that a model's answers depend on."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model as a Hugging Face folder, and what is known about its training."""

    folder: Path
    hash: str
    """Of weights, configuration and tokenizer."""
    checkpoint: str
    """Path of the checkpoint or the folder that was given."""
    run: str = ""
    """Name of the training run; "" if it is not known."""
    tokens: int | None = None
    """Tokens that the model was trained on; None if they are not known."""
    phase: str | None = None
    """"stable" or "decay"; None if it is not known."""
    loss: float | None = None
    """Validation loss, nats per token; None if it is not known."""


def require_folder(checkpoint: Path) -> None:
    """Raise CheckpointError if there is no folder of this name; one at an address is copied first."""
    fetch_checkpoint(checkpoint)
    if not checkpoint.is_dir():
        raise CheckpointError(f"there is no model or checkpoint in {checkpoint}")


def open_model(checkpoint: Path | str, work: Path) -> EvaluatedModel:
    """Return a checkpoint as a Hugging Face folder.

    Args:
        checkpoint: A training checkpoint, the folder of a run (its latest checkpoint), or a Hugging Face folder.
        work: Where a training checkpoint is exported to; a Hugging Face folder is used where it is.

    Raises:
        CheckpointError: The folder is neither a whole checkpoint nor a whole Hugging Face model.
    """
    given = Path(checkpoint)
    require_folder(given)
    folder = given
    if (given / CONFIG).is_file():
        _check_hugging_face(given)
    else:
        folder = export_checkpoint(find_checkpoint(given), work)
    origin = _json(folder / ORIGIN) if (folder / ORIGIN).is_file() else {}
    tokens, loss = origin.get("tokens"), origin.get("loss")
    return EvaluatedModel(
        folder=folder,
        hash=model_hash(folder),
        checkpoint=str(origin.get("checkpoint") or with_addresses(str(given.resolve()))),
        run=str(origin.get("run") or ""),
        tokens=tokens if isinstance(tokens, int) and 0 <= tokens < 2**63 else None,
        phase=origin["phase"] if origin.get("phase") in ("stable", "decay") else None,
        loss=loss if isinstance(loss, float) and math.isfinite(loss) else None,
    )


def model_hash(folder: Path) -> str:
    """Return a hash of everything that the answers of a Hugging Face folder depend on."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != ORIGIN and path.suffix in _HASHED:
            with path.open("rb") as stream:
                total.update(f"{path.name} {hashlib.file_digest(stream, hashlib.blake2b).hexdigest()}\n".encode())
    return total.hexdigest()


def _check_hugging_face(folder: Path) -> None:
    if "model_type" not in _json(folder / CONFIG):
        raise CheckpointError(f"{folder / CONFIG} names no model_type; it is no Hugging Face model")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise CheckpointError(f"{folder} has a {CONFIG} and no weights (*.safetensors)")
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        raise CheckpointError(f"{folder} has no tokenizer (tokenizer.json)")


def _json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return fields
