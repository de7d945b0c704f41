"""Whether a study's folder is whole: every file of its tables, every evaluation of every run that has ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from raylr.analysis.laws.lr_law import LRLaw
from raylr.analysis.runs import identity_of
from raylr.errors import DamagedError, RaylrError, StorageError, StudyError
from raylr.store.files import fetch, inside, remove_file, storage_errors, write_atomic
from raylr.store.folder import ENDING_FILE, LAW_FILE, SPEC_FILE, TABLES, StudyFolder, open_folder, read_json
from raylr.store.runs import RunStore, run_end
from raylr.store.table import Table

DAMAGED = "damaged"
"""Folder of a study into which damaged fragments are moved; nothing reads it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was found of one part of a study."""

    name: str
    whole: bool
    message: str
    remade: bool = False
    """Whether `raylr search` makes it again, from what is whole."""
    damaged: bool = False
    """Whether it is a file of the run table that must be moved away first."""


@dataclass(frozen=True, kw_only=True)
class StudyCheck:
    """What `check_study` found."""

    directory: Path
    parts: list[Part]

    @property
    def whole(self) -> bool:
        """Whether every part is whole."""
        return all(part.whole for part in self.parts)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        broken = [part for part in self.parts if not part.whole]
        if not broken:
            return f"{self.directory} is whole."
        names = ", ".join(dict.fromkeys(part.name for part in broken))
        if any(part.damaged for part in broken):
            return (
                f"{self.directory} is not whole ({names}); `raylr check --set-aside` moves the damaged files away, and "
                "`raylr search` then measures again what they held."
            )
        if all(part.remade for part in broken):
            return f"{self.directory} is not whole ({names}); `raylr search` measures again what is missing."
        return f"{self.directory} is not whole ({names})."


def check_study(directory: Path | str) -> StudyCheck:
    """Check a study's folder; nothing is written, and nothing needs the corpus or the study's lock.

    Args:
        directory: The study's folder.

    Raises:
        StudyError: If there is no study in it, or one of another version of raylr.
    """
    folder = open_folder(directory)
    fetch(folder.path, TABLES, again=True)
    parts = [Part(name=SPEC_FILE, whole=True, message=f"the spec that the study began with, {folder.identity}")]
    for name, table in (
        ("evaluations", folder.evaluations),
        ("trials", folder.trials),
        *_failures(folder),
        *_other_tables(folder.path),
    ):
        problems = table.problems()
        for problem in problems:
            there = _is_there(problem.path)
            damaged = there and name in ("evaluations", "trials")
            parts.append(Part(name=name, whole=False, message=problem.message, remade=not there, damaged=damaged))
        if not problems:
            parts.append(Part(name=name, whole=True, message=f"{len(table)} rows"))
    with suppress(StorageError, StudyError):  # a table that cannot be read is in the list already
        parts += _runs(folder)
    return StudyCheck(directory=folder.path, parts=[*parts, *_files(folder)])


def set_aside(directory: Path | str) -> list[Path]:
    """Move the damaged fragments of a study's run table out of the way; what they held is then measured again.

    Args:
        directory: The study's folder.

    Returns:
        Where they are now, in `damaged/` of the study's folder.

    Raises:
        StudyError: If there is no study in the folder, or another process is running it.
        StorageError: If a file cannot be moved.
    """
    folder = open_folder(directory)
    moved = []
    with folder.locked():
        for table in (folder.evaluations, folder.trials):
            for problem in table.problems():
                if _is_there(problem.path):
                    target = folder.path / DAMAGED / f"{table.folder.name}-{problem.path.name}"
                    with storage_errors(target, "move a damaged file to"):
                        target.parent.mkdir(exist_ok=True)
                        if problem.path.is_symlink() or problem.path.is_dir():  # no file of raylr's own
                            problem.path.rename(target)
                        else:
                            write_atomic(target, problem.path.read_bytes())
                            remove_file(problem.path)
                    moved.append(target)
    return moved


def _is_there(path: Path) -> bool:
    """Whether there is anything of this name, such as a link that leads nowhere."""
    return path.is_symlink() or path.exists()


def _other_tables(study: Path) -> Iterator[tuple[str, Table]]:
    """The tables of scores and attempts, with any columns."""
    for name in ("attempts", "evals"):
        for path in sorted({file.parent for file in (study / name).rglob("[0-9]*.parquet")}):
            yield str(path.relative_to(study)), Table(path, pa.schema([]), ())


def _failures(folder: StudyFolder) -> list[tuple[str, Table]]:
    return [("failures", folder.failures)] if folder.failures.folder.exists() else []


def _runs(folder: StudyFolder) -> list[Part]:
    store = RunStore(folder.evaluations, folder.trials)
    parts = [
        Part(name="runs", whole=False, message=f"{run} lacks {message}", remade=True)
        for run, message in store.lost().items()
    ]
    for row in folder.trials.read(columns=["trial", "end", "config"]).to_pylist():
        try:
            run_end(row)
            inside(folder.checkpoints, row["trial"])
            if not row["trial"].startswith(identity_of(json.loads(row["config"] or ""))):
                raise DamagedError(f"{row['trial']} does not match the settings recorded in its row")
        except (ValueError, RaylrError) as error:
            parts.append(Part(name="runs", whole=False, message=f"{row['trial']}: {error}"))
    if parts:
        return parts
    going = len(store.unfinished())
    more = f"; {going} have not ended" if going else ""
    return [Part(name="runs", whole=True, message=f"all evaluations of all ended runs are there{more}")]


def _files(folder: StudyFolder) -> Iterator[Part]:
    """The files that a study makes again from its tables."""
    law, ending = folder.path / LAW_FILE, folder.path / ENDING_FILE
    if law.exists():
        try:
            text = f"a law of status {LRLaw.from_json(law.read_text()).status}"
            yield Part(name=LAW_FILE, whole=True, message=text)
        except (ValueError, TypeError, OSError, RecursionError) as error:
            yield Part(name=LAW_FILE, whole=False, message=f"{law} is damaged: {error}", remade=True)
    if ending.exists():
        try:
            found = read_json(ending)
            whole = isinstance(found, dict) and isinstance(found.get("text"), str)
            message = "what was printed at the end" if whole else f"{ending} is damaged: it holds no text"
        except StorageError as error:
            whole, message = False, str(error)
        yield Part(name=ENDING_FILE, whole=whole, message=message, remade=True)
