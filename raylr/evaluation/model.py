"""The model of an evaluation: a Hugging Face folder as it is, or a training checkpoint, exported."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from raylr.trainables.export.hf import CONFIG, ORIGIN, export_checkpoint, find_checkpoint


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model as a Hugging Face folder, and what it is of."""

    folder: Path
    hash: str
    """Of weights, configuration and tokenizer."""
    checkpoint: str
    """The path that was given for it."""
    run: str = ""
    tokens: int | None = None
    phase: str | None = None
    loss: float | None = None
    """Validation loss, nats; None if it is not known."""


def open_model(checkpoint: Path | str, work: Path) -> EvaluatedModel:
    """Return a checkpoint as a Hugging Face folder, exported to `work` if it is not one.

    Raises ValueError for a folder that is neither a whole checkpoint nor a whole Hugging Face model.
    """
    given = Path(checkpoint)
    if not given.is_dir():
        raise ValueError(f"there is no model or checkpoint in {given}")
    folder = given
    if (given / CONFIG).is_file():
        _check_hugging_face(given)
    else:
        folder = export_checkpoint(find_checkpoint(given), work)
    origin = json.loads((folder / ORIGIN).read_text()) if (folder / ORIGIN).is_file() else {}
    return EvaluatedModel(
        folder=folder,
        hash=model_hash(folder),
        checkpoint=str(origin.get("checkpoint") or given.resolve()),
        run=str(origin.get("run") or ""),
        tokens=origin.get("tokens"),
        phase=origin.get("phase"),
        loss=origin.get("loss"),
    )


def model_hash(folder: Path) -> str:
    """Return a hash of all that a Hugging Face folder's answers depend on: weights, configuration and tokenizer."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if (
            path.is_file()
            and path.name != ORIGIN
            and path.suffix in (".json", ".safetensors", ".bin", ".model", ".txt")
        ):
            with path.open("rb") as stream:
                total.update(f"{path.name} {hashlib.file_digest(stream, hashlib.blake2b).hexdigest()}\n".encode())
    return total.hexdigest()


def _check_hugging_face(folder: Path) -> None:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ValueError(f"{folder / CONFIG} names no model_type; it is no Hugging Face model")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ValueError(f"{folder} has a {CONFIG} and no weights (*.safetensors)")
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        raise ValueError(f"{folder} has no tokenizer (tokenizer.json)")
