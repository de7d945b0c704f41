"""Checkpoints of a run: atomic, verified, resumed bit for bit.

A checkpoint is a folder: `engine/` as DeepSpeed saves it (weights, optimizer, one set of files a worker), `state.json`
(position, history, running means, and what the run is: model, training, LR, budget), `tokenizer.json`, and
`complete.json` (sizes and hashes of all files, written last): whoever has the folder has the model. Order and content
of the data follow from seeds and the step alone, and so does any randomness of a step: there is nothing else to save.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

STATE, COMPLETE, TOKENIZER, TAG, PREFIX = "state.json", "complete.json", "tokenizer.json", "engine", "step-"
KEEP = 2
"""Checkpoints kept in a run folder: the last, and the one before in case the last is damaged."""


def fingerprint(parts: dict[str, Any]) -> str:
    """Hash of a run's settings: two runs that share it make the same checkpoints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _rank_and_barrier() -> tuple[int, Any]:
    import torch.distributed as dist

    return dist.get_rank(), dist.barrier


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != COMPLETE)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_checkpoint(engine: Any, folder: Path, state: dict[str, Any]) -> None:
    """Save the engine and `state` (JSON, NaN allowed) into the new or empty `folder`, with the tokenizer that
    `state["run"]` names, if it names one; all workers call this together."""
    rank, barrier = _rank_and_barrier()
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
    barrier()
    engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    barrier()
    if rank == 0:
        (folder / STATE).write_text(json.dumps(state))
        tokenizer = state.get("run", {}).get("tokenizer")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, folder / TOKENIZER)
        files = _files(folder)
        for path in files:
            _sync(path)
        table = {str(p.relative_to(folder)): [p.stat().st_size, _hash(p)] for p in files}
        (folder / COMPLETE).write_text(json.dumps(table))
        _sync(folder / COMPLETE)
    barrier()


def verify(folder: Path) -> str:
    """What is wrong with a checkpoint folder, or "" if it is whole."""
    if not (folder / COMPLETE).is_file():
        return f"{folder} was never completed"
    try:
        table = json.loads((folder / COMPLETE).read_text())
    except ValueError:
        return f"{folder / COMPLETE} cannot be read"
    for name, (size, digest) in table.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size or _hash(path) != digest:
            return f"{path} is missing or damaged"
    return "" if table else f"{folder} is empty"


def read_state(folder: Path, expected_fingerprint: str) -> dict[str, Any]:
    """The `state` of a checkpoint. Raises ValueError if it is damaged or belongs to a run with other settings."""
    problem = verify(folder)
    if problem:
        raise ValueError(f"checkpoint: {problem}")
    state: dict[str, Any] = json.loads((folder / STATE).read_text())
    if state["fingerprint"] != expected_fingerprint:
        raise ValueError(
            f"the checkpoint in {folder} is of another run (other model, training, LR, corpus or budget): use "
            "another run folder "
            "or delete it"
        )
    return state


def load_engine(engine: Any, folder: Path) -> None:
    """Load weights and optimizer from a checkpoint into a fresh engine of the same settings."""
    found, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if found is None:
        raise ValueError(f"checkpoint: DeepSpeed found nothing to load in {folder}")


class RunFolder:
    """The checkpoints of one run in one folder. Interrupted writes leave a hidden folder that the next run clears."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def _all(self) -> list[Path]:
        return sorted(self.path.glob(PREFIX + "*"), reverse=True) if self.path.is_dir() else []

    def latest(self, expected_fingerprint: str) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint and its state, damaged ones passed over; None if there is none. ValueError as
        `read_state`."""
        for folder in self._all():
            if not verify(folder):
                return folder, read_state(folder, expected_fingerprint)
        return None

    def save(self, engine: Any, state: dict[str, Any]) -> None:
        """Write a checkpoint at `state["step"]`: into a hidden folder, renamed when it is whole; then drop the
        oldest."""
        rank, barrier = _rank_and_barrier()
        work, final = self.path / f".writing-{state['step']}", self.path / f"{PREFIX}{state['step']:010d}"
        if rank == 0:
            for stale in self.path.glob(".writing-*"):
                shutil.rmtree(stale)
        barrier()
        write_checkpoint(engine, work, state)
        if rank == 0:
            if final.exists():
                doomed = self.path / f".writing-old-{uuid.uuid4().hex}"
                final.rename(doomed)
                shutil.rmtree(doomed)
            work.rename(final)
            _sync(self.path)
            for old in self._all()[KEEP:]:
                shutil.rmtree(old)
        barrier()
