"""Checkpoints of a run: atomic, verified, resumed bit for bit.

A checkpoint is a folder: `engine/` as DeepSpeed saves it (weights, optimizer, one set of files a worker), `state.json`
(position, history, running means, and what the run is: model, training, LR, budget), `tokenizer.json`, and
`complete.json` (sizes and hashes of all files, written last): the folder alone is enough to export the model. Order and
content of the data follow from seeds and the step alone, and so does any randomness of a step: there is nothing else to
save.

A checkpoint belongs to a run (`raylr.trainables.training.identity`) in a layout: `workers`, `zero_stage`,
`expert_parallel`. It loads into another layout only after `raylr.trainables.training.universal` has converted it.

The folder of a run may be one at an address (`raylr.remote.copies`): its checkpoints are written to this machine and
from there to the storage, `complete.json` last, and fetched where the run goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, Field, ValidationError

from raylr.analysis.runs import identity_of
from raylr.errors import CheckpointError
from raylr.remote.copies import WorkingCopy, copy_of, leased, local_path
from raylr.trainables.training.disk import written
from raylr.trainables.training.identity import differences
from raylr.trainables.training.unpickling import only_tensors

STATE, COMPLETE, TOKENIZER, TAG, PREFIX = "state.json", "complete.json", "tokenizer.json", "engine", "step-"
CONFIG = "config.json"
"""File of a Hugging Face model, which may be given in place of a checkpoint."""
LOCK = ".lock"
"""File of a run's folder that the process which trains the run holds locked."""
UNIVERSAL = "universal"
"""Key of the state of a converted checkpoint, which any number of workers loads."""
KEEP = 2
"""Checkpoints kept in a run folder: the last, and the one before in case the last is damaged."""


class _Row(BaseModel):
    """What every row of a history has."""

    step: int
    tokens: int
    loss: float | None
    run_end: str | None


class _Run(BaseModel):
    """What a checkpoint says about its run, so that it can be exported alone."""

    model: dict[str, Any]
    train: dict[str, Any]
    tokens: int = Field(ge=1)
    lr: Any
    eos_id: int | None = None
    prefix: list[int] = []


class _State(BaseModel):
    """What `state.json` must hold; what it holds beyond that is taken as it is."""

    step: int = Field(ge=0)
    history: list[_Row]
    layout: dict[str, int]
    identity: str | None = None
    fields: dict[str, Any] = {}
    run: _Run | None = None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_checkpoint(engine: Any, folder: Path, state: dict[str, Any]) -> None:
    """Save the engine and its state; all workers call this together.

    Args:
        engine: DeepSpeed's engine.
        folder: A new or empty folder. All workers share it, or each has its own (Ray Train merges them):
            `complete.json` lists the files of all.
        state: Values that JSON can hold, NaN allowed. The tokenizer that `state["run"]` names is copied, if it names
            one.
    """
    import torch.distributed as dist

    rank, world = dist.get_rank(), dist.get_world_size()
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        dist.barrier()
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        tokenizer = state.get("run", {}).get("tokenizer")
        if rank == 0 and tokenizer is not None:
            shutil.copyfile(tokenizer, folder / TOKENIZER)
        dist.barrier()
        table = _table(folder) if rank == 0 else {}
        if world > 1:
            first, tables = [table], [table] * world
            dist.broadcast_object_list(first, src=0)
            dist.all_gather_object(tables, table if rank == 0 else _table(folder, known=first[0]))
            table = {name: entry for one in tables for name, entry in one.items()}
        if rank == 0:
            seal(folder, state, table)
        dist.barrier()


def seal(folder: Path, state: dict[str, Any], table: dict[str, list[Any]] | None = None) -> None:
    """Complete a checkpoint: add its state and, last of all, the table of its files.

    Args:
        folder: The checkpoint.
        state: Values that JSON can hold.
        table: Name → size and hash of the other files; None: of all files in the folder.
    """
    if table is None:
        table = _table(folder)
    (folder / STATE).write_text(json.dumps(state))
    _sync(folder / STATE)
    (folder / COMPLETE).write_text(json.dumps(table | {STATE: _entry(folder / STATE)}))
    _sync(folder / COMPLETE)


def _table(folder: Path, known: Container[str] = ()) -> dict[str, list[Any]]:
    """Return size and hash of each file in the folder but those in `known`; the files are written to disk first."""
    names = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != COMPLETE}
    out = {}
    for name, path in names.items():
        if name not in known:
            _sync(path)
            out[name] = _entry(path)
    return out


def _entry(path: Path) -> list[Any]:
    with path.open("rb") as stream:
        return [path.stat().st_size, hashlib.file_digest(stream, "blake2b").hexdigest()]


def verify(folder: Path) -> str:
    """Return what is wrong with a checkpoint folder, as a sentence; "" if it is whole."""
    if not (folder / COMPLETE).is_file():
        return f"{folder} was never completed"
    try:
        table = json.loads((folder / COMPLETE).read_text())
    except (OSError, ValueError, RecursionError):
        return f"{folder / COMPLETE} cannot be read"
    if not isinstance(table, dict) or not all(isinstance(entry, list) and entry for entry in table.values()):
        return f"{folder / COMPLETE} is not a table of files"
    for name, entry in table.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != entry[0] or _entry(path) != entry:
            return f"{path} is missing or damaged"
    return "" if table else f"{folder} is empty"


def intact_state(folder: Path) -> dict[str, Any]:
    """Return the `state` of a checkpoint.

    Raises:
        CheckpointError: If the checkpoint is damaged.
    """
    problem = verify(folder)
    if problem:
        raise CheckpointError(f"checkpoint: {problem}")
    return load_state(folder)


def load_state(folder: Path) -> dict[str, Any]:
    """Return the `state` of a checkpoint without verifying its other files.

    Raises:
        CheckpointError: If it cannot be read, or is not the state of a run.
    """
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint: {folder / STATE} cannot be read ({error})") from error
    with described(folder):
        _State.model_validate(state, strict=True)
    return dict(state)


@contextmanager
def described(folder: Path) -> Iterator[None]:
    """Validate in this context what the state of a checkpoint says; CheckpointError with the first thing that cannot
    be."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")[:200]
        raise CheckpointError(f"checkpoint: {folder / STATE} is not the state of a run ({place}: {reason})") from None


def read_state(folder: Path, fields: Mapping[str, Any], layout: Mapping[str, int]) -> dict[str, Any]:
    """Return the `state` of a checkpoint of a run.

    Args:
        folder: The checkpoint.
        fields: What identifies the run (`raylr.trainables.training.identity.identity_fields`).
        layout: Workers, ZeRO stage and expert parallelism with which it is to be loaded.

    Raises:
        CheckpointError: If the checkpoint is damaged, of another run, or of another layout.
    """
    state = intact_state(folder)
    if state.get("identity") != identity_of(fields):
        of = differences(state.get("fields", {}), fields)
        named = f"; there {' and '.join(of[:3])}" if state.get("fields") else ", written by an older raylr"
        raise CheckpointError(
            f"the checkpoint in {folder} is of another run (other model, training, LR, corpus or tokens{named}): use "
            "another run folder or delete it"
        )
    if state.get(UNIVERSAL):
        if layout["zero_stage"] not in (1, 2) or layout["expert_parallel"] > 1:
            raise CheckpointError(
                f"the converted checkpoint in {folder} loads with zero_stage=1 or 2 and without expert parallelism"
            )
    elif state["layout"] != layout:
        made = ", ".join(f"{name}={value}" for name, value in state["layout"].items())
        raise CheckpointError(
            f"the checkpoint in {folder} was made with {made}: run with these, or convert it for another number of "
            "workers by `python -m raylr.trainables.training.universal`"
        )
    return state


def load_engine(engine: Any, folder: Path, *, trust: bool = False) -> None:
    """Load weights and optimizer from a checkpoint into a fresh engine of the same settings.

    Args:
        engine: DeepSpeed's engine.
        folder: The checkpoint.
        trust: Whether its files may hold objects other than tensors (`raylr.trainables.training.unpickling`).

    Raises:
        CheckpointError: If there is nothing to load, or something else than tensors.
    """
    with only_tensors(folder, trust=trust):
        found, _ = engine.load_checkpoint(str(folder), tag=TAG)
    if found is None:
        raise CheckpointError(f"checkpoint: DeepSpeed found nothing to load in {folder}")


def fetch_checkpoint(folder: Path) -> None:
    """Fetch a checkpoint, the newest whole one of a run, or a Hugging Face model, if the folder lies at an address."""
    if (there := copy_of(folder / COMPLETE)) is None:
        return
    copy, name = there[0], there[1].rpartition("/")[0]
    names = {entry.name.rpartition("/")[2] for entry in copy.storage.listed(name)}
    if COMPLETE in names:
        copy.fetch_folder(name, lambda path: not verify(path))
    elif CONFIG in names:
        copy.fetch_folder(name, lambda path: False)  # which says nothing of being whole
    else:
        next(RunFolder(folder).whole(), None)


class RunFolder:
    """The checkpoints of one run in one folder. An interrupted write leaves a hidden folder, which the next one clears.

    Args:
        path: The folder, or its address.
        keep: How many of the last checkpoints are kept; None: all.
    """

    def __init__(self, path: str | Path, *, keep: int | None = KEEP) -> None:
        self.path, self.keep = local_path(path), keep

    def _all(self) -> list[Path]:
        """The checkpoints, the newest first; of a folder at an address those that are there."""
        if (there := copy_of(self.path / PREFIX)) is not None:
            entries = there[0].storage.listed(there[1].rpartition("/")[0])
            names = {entry.name.rpartition("/")[2] for entry in entries}
            return sorted((self.path / name for name in names if name.startswith(PREFIX)), reverse=True)
        return sorted(self.path.glob(PREFIX + "*"), reverse=True) if self.path.is_dir() else []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for one process; another one that wants it waits.

        Two budgets of a run at a constant LR have one identity and therefore one folder: the longer one waits for the
        shorter one and goes on from its checkpoint. The lock goes with the process, however that ends. At an address
        it is a lease, too, and nothing is left on this machine.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / LOCK), leased(self.path / LOCK, f"another process trains {self.path.name}", -1):
            yield
            if copy_of(self.path / LOCK) is not None:
                for folder in self.path.glob(PREFIX + "*"):
                    shutil.rmtree(folder, ignore_errors=True)

    def whole(self, last: int | None = None) -> Iterator[Path]:
        """Yield the checkpoints that are whole, the newest first; damaged ones are passed over.

        Args:
            last: Step of the last one that is wanted; None: any.
        """
        name = None if last is None else f"{PREFIX}{last:010d}"
        for folder in self._all():
            if name is not None and folder.name > name:
                continue
            problem = verify(folder)
            if problem and (there := copy_of(folder)) is not None:
                there[0].fetch_folder(there[1], lambda path: not verify(path))
                problem = verify(folder)
            if not problem:
                yield folder

    def save(self, engine: Any, state: dict[str, Any]) -> None:
        """Write a checkpoint: into a hidden folder, renamed when it is whole. Then the oldest ones are removed.

        Args:
            engine: DeepSpeed's engine.
            state: Its state; `state["step"]` names the checkpoint.
        """
        import torch.distributed as dist

        rank = dist.get_rank()
        work, final = self.path / f".writing-{state['step']}", self.path / f"{PREFIX}{state['step']:010d}"
        there = copy_of(final)
        first = rank == 0 or (there is not None and os.environ.get("LOCAL_RANK", "0") == "0")  # each machine has a copy
        if first:
            for stale in self.path.glob(".writing-*"):
                shutil.rmtree(stale)
        dist.barrier()
        write_checkpoint(engine, work, state)
        if there is not None:
            _put(*there, work, first=first)
        elif rank == 0:
            if final.exists():
                doomed = self.path / f".writing-old-{uuid.uuid4().hex}"
                final.rename(doomed)
                shutil.rmtree(doomed)
            work.rename(final)
            _sync(self.path)
        if rank == 0 and self.keep is not None:
            for old in self._all()[self.keep :]:
                if (place := copy_of(old)) is not None:
                    place[0].delete_folder(place[1], first=COMPLETE)
                else:
                    shutil.rmtree(old)
        dist.barrier()


def _put(copy: WorkingCopy, name: str, work: Path, *, first: bool) -> None:
    """Move a checkpoint to its address; all workers call this together.

    Args:
        copy: The working copy.
        name: Name of the checkpoint in it.
        work: Where it was written here.
        first: Whether this is the first worker of its machine, which moves what is on it.
    """
    import torch.distributed as dist

    rank = dist.get_rank()
    if rank == 0:
        copy.delete_folder(name, first=COMPLETE)
    dist.barrier()
    if first:
        copy.put_folder(work, name, but=(COMPLETE,))
    dist.barrier()
    if rank == 0:
        copy.put(f"{name}/{COMPLETE}", (work / COMPLETE).read_bytes())
    if first:
        shutil.rmtree(work)
