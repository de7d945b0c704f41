"""The evaluation queue: checkpoints that wait for their evaluation, as folders in the study's folder.

    STUDY/waiting/<run>/step-…     a checkpoint that waits; it is removed when it was scored

The queue is the folder itself. A run that was given `EvaluationQueue.folder_of` writes checkpoints there, and so does
`EvaluationQueue.add`; neither is needed any more once the checkpoint is whole. After a kill the next evaluator finds
what is left. Nothing outside of the folder `waiting` is ever removed. Of a study at an address the queue is there, and
a checkpoint is fetched where it is evaluated.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from raylr.errors import CheckpointError
from raylr.remote.copies import copy_of, local_path
from raylr.store.files import inside, remove_inside
from raylr.trainables.training.checkpoint import COMPLETE, PREFIX, STATE

WAITING = "waiting"
"""Folder of a study in which checkpoints wait for their evaluation, one folder for each run."""


class EvaluationQueue:
    """The checkpoints of a study that wait for their evaluation.

    Args:
        study: The study's folder, or any other, or its address; nothing is made in it before a checkpoint is added.
    """

    def __init__(self, study: Path | str) -> None:
        self.folder = local_path(study).resolve() / WAITING

    def folder_of(self, run: str) -> Path:
        """Return the folder into which a run puts its checkpoints.

        Raises:
            StudyError: The name leads out of the queue, as `../x` does; such names can come from a foreign study.
        """
        return inside(self.folder, run)

    def waiting(self) -> list[Path]:
        """Return the whole checkpoints in the queue, by run and step. Links that lead out of it are left out."""
        if (there := copy_of(self.folder)) is not None:
            copy, name = there
            entries = [PurePosixPath(entry.name) for entry in copy.storage.listed(name, recursive=True)]
            whole = [
                entry.parent for entry in entries if entry.name == COMPLETE and entry.parent.name.startswith(PREFIX)
            ]
            return sorted(copy.root / one for one in whole if one.parent.parent == PurePosixPath(name))
        found = sorted(self.folder.glob(f"*/{PREFIX}*"))
        return [path for path in found if (path / COMPLETE).is_file() and path.resolve() == path]

    def add(self, checkpoint: Path | str, run: str) -> Path:
        """Put a checkpoint into the queue, as hard links where the file system has them, and return its place.

        The original may vanish afterwards. A checkpoint that is there already stays. Only the step is read here, so
        that nobody waits for a verification; a damaged checkpoint fails when it is evaluated.

        Args:
            checkpoint: A checkpoint, or the folder of a run (its latest checkpoint).
            run: Name of the run.

        Raises:
            CheckpointError: There is no checkpoint.
            StudyError: The name of the run leads out of the queue.
        """
        source, target = self.place(checkpoint, run)
        if (there := copy_of(target)) is not None:
            if target not in self.waiting():
                there[0].put_folder(source, there[1], but=(COMPLETE,))
                there[0].put(f"{there[1]}/{COMPLETE}", (source / COMPLETE).read_bytes())
            if copy_of(source) is not None:  # fetched for this alone
                shutil.rmtree(source, ignore_errors=True)
        elif not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".added-", dir=target.parent))
            shutil.copytree(source, work, copy_function=_link, dirs_exist_ok=True)
            work.rename(target)
        return target

    def place(self, checkpoint: Path | str, run: str) -> tuple[Path, Path]:
        """Return the folder of a checkpoint and its place in the queue. Raises as `add`."""
        from raylr.trainables.export.hf import find_checkpoint

        source = Path(checkpoint)
        source = source if (source / COMPLETE).is_file() else find_checkpoint(source)
        return source, self.folder_of(run) / f"{PREFIX}{_step(source):010d}"

    def remove(self, checkpoint: Path) -> None:
        """Remove a checkpoint from the queue; one that is not there, or cannot be removed now, is no error."""
        remove_inside(self.folder_of(checkpoint.parent.name), checkpoint.name)


def name_of(checkpoint: Path) -> str:
    """Return the name of a queued checkpoint in tables and messages: run and step."""
    return f"{checkpoint.parent.name}/{checkpoint.name}"


def _step(checkpoint: Path) -> int:
    try:
        return int(json.loads((checkpoint / STATE).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint / STATE} names no step ({error})") from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
