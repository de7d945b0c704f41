"""`StudyFolder`: the folder of one study: whose it is, its files, its lock.

spec.yaml       what the study is to do
study.json      version of the format, identities of the study and of its spec, fingerprint of the corpus that the runs
                were trained on; what became of the runs of earlier specs
spec-1.yaml …   earlier specs of a study that grew
corpus/         the tokenised text, if the spec does not name another folder
evaluations/    the run table: one row per evaluation      } append-only Parquet fragments with checksums that
trials/         one row per end of a segment of a run      } carry the identity of the study
failures/       the same for failures of runs, with the last lines that they printed
plans/          what the search has decided, which need not be computed again; it may be removed
runs/           of a study with another trainer: a folder for each run, with its output
checkpoints/    of runs that have not ended, and of those that the spec keeps
trunks/         of a study with a decay: the checkpoints from which decays branch, until the search has ended
law.json        the law
ending.json     what was printed at the end, so that a finished study returns it at once
report.html     the report, figures/ beside it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from raylr.analysis.runs import identity_of
from raylr.errors import DamagedError, StudyError
from raylr.remote.copies import local_path, place_of, with_addresses
from raylr.spec import StudySpec, dump_spec, load_spec
from raylr.store.files import exclusive, fetch, names_in, remove_inside, storage_errors, write_atomic
from raylr.store.plans import PLANS, Plans, plans_table
from raylr.store.runtable import (
    EVALUATIONS,
    FAILURES,
    RUNS_FILE,
    TRIALS,
    evaluations_table,
    failures_table,
    trials_table,
)
from raylr.store.table import FORMAT, Table

SPEC_FILE, ABOUT_FILE, LAW_FILE, ENDING_FILE, LOCK_FILE = "spec.yaml", "study.json", "law.json", "ending.json", ".lock"
CORPUS, CHECKPOINTS, TRUNKS = "corpus", "checkpoints", "trunks"
Groups: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int | None]
"""Numbers of settings, and most LRs of a round, of the groups of a search, and after how many runs of each setting the
next group begins (`raylr.searches.Breadth`)."""
KEPT = ("study", "points", "left_out", "side_by_side")
"""What study.json says beside whose study it is, and what another note leaves as it is."""
TABLES = (EVALUATIONS, TRIALS, FAILURES, PLANS, "evals", "attempts")
"""Folders of tables, which are read as a whole; others are read when they are needed."""


def spec_identity(spec: StudySpec) -> str:
    """Return the hash of everything in a spec that changes what is measured; defaults and unused keys do not count."""
    from raylr.spec.study import NOT_MEASURED, UNMEASURED

    exclude: dict[str, Any] = dict.fromkeys(NOT_MEASURED, True) | {key: set(names) for key, names in UNMEASURED.items()}
    return identity_of(spec.model_dump(mode="json", exclude=exclude, exclude_defaults=True))


@dataclass(frozen=True)
class StudyFolder:
    """The folder of the study of one spec. Making the object reads and writes nothing.

    Args:
        path: The folder; it need not exist yet.
        spec: The study's spec.
    """

    path: Path
    spec: StudySpec

    @property
    def place(self) -> str:
        """Where the folder is for other machines: its address, or its path on the storage that they share."""
        return place_of(self.path)

    @cached_property
    def identity(self) -> str:
        """Identity of the spec."""
        return spec_identity(self.spec)

    @property
    def owner(self) -> str:
        """Identity of the study, which its tables carry: that of the first spec with which something was measured."""
        if not self.measured or not (self.path / ABOUT_FILE).exists():
            return self.identity
        about = self._about()
        return str(about.get("study") or about["spec"])

    @property
    def evaluations(self) -> Table:
        """The run table, with the runs of earlier specs. Every call returns a new object."""
        return evaluations_table(self.path, owner=self.owner)

    @property
    def trials(self) -> Table:
        """The table of ended segments. Every call returns a new object."""
        return trials_table(self.path, owner=self.owner)

    def rows(self) -> pa.Table:
        """Return the run table without the runs that the present spec would not train.

        Raises:
            DamagedError, StudyError, StorageError: As `Table.read`.
        """
        table, left_out = self.evaluations.read(), self.left_out
        return table.filter(pc.invert(pc.is_in(table["trial"], pa.array(left_out, pa.string())))) if left_out else table

    @property
    def points(self) -> list[dict[str, Any]]:
        """What the runs of earlier specs say to the search of the present one, as `grow` was given it."""
        return [dict(point) for point in self._list("points")]

    @property
    def left_out(self) -> list[str]:
        """Names of the runs of earlier specs that the present one would not train."""
        return [str(name) for name in self._list("left_out")]

    @property
    def side_by_side(self) -> Groups | None:
        """How much of the search is planned at one time, as noted when it began. Earlier versions of raylr noted one
        number of settings and of runs for all groups."""
        found = self._list("side_by_side")
        if len(found) not in (2, 3):
            return None
        settings, runs = (tuple(map(int, one if isinstance(one, list) else [one])) for one in found[:2])
        return settings, runs, found[2] if len(found) == 3 else None

    @property
    def grows(self) -> bool:
        """Whether the folder holds measurements of another spec than this one."""
        return self.measured and self._about().get("spec") != self.identity

    @property
    def failures(self) -> Table:
        """The table of failures of runs. Every call returns a new object."""
        return failures_table(self.path, owner=self.owner)

    @property
    def plans(self) -> Plans:
        """What the search has decided. Every call returns a new object."""
        return Plans(plans_table(self.path, owner=self.owner))

    @property
    def checkpoints(self) -> Path:
        """The folder of the runs' own checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def trunks(self) -> Path:
        """The folder of the checkpoints from which decays branch."""
        return self.path / TRUNKS

    @property
    def measured(self) -> bool:
        """Whether anything was measured."""
        return any(next(self.path.glob(f"{name}/*.parquet"), None) for name in (EVALUATIONS, TRIALS))

    # -- reading --

    def check_owner(self) -> None:
        """Raise StudyError unless the folder is free for this spec, or holds its study already; nothing is written."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise StudyError(f"{self.path} is a file; choose another folder for the study")
        if (self.path / SPEC_FILE).exists():
            self._about()
            if self.measured:
                self._require_same_corpus()
            return
        if names_in(self.path) - {ABOUT_FILE}:
            raise StudyError(f"{self.path} is not empty and holds no study; choose another folder")

    def check_unchanged(self) -> None:
        """Raise StudyError if spec.yaml is not the one that the study was begun with."""
        if self._about().get("spec") != self.identity:
            raise StudyError(
                f"{self.path / SPEC_FILE} was changed since the study began; its results belong to the old spec. Undo "
                f"the change, or copy the file and give it to `raylr search … --out {self.path}`: the study then goes "
                "on with the new spec"
            )

    @property
    def corpus(self) -> str | None:
        """Fingerprint of the corpus that the runs were trained on; None before the first."""
        found = self._about().get("corpus") if (self.path / ABOUT_FILE).exists() else None
        return None if found is None else str(found)

    # -- writing, under the lock --

    @contextmanager
    def locked(self, note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
        """Hold the study's lock, then claim the folder for the spec; nothing is changed before the lock is held.

        A folder that holds measurements of another spec is claimed by `grow`.

        Args:
            note: Called with a sentence while a silent process at an address is waited for.

        Raises:
            StudyLockedError: If another process is running the study.
            StudyError: If the folder holds another study, or other things.
            StorageError: If it cannot be written.
        """
        self.check_owner()
        with storage_errors(self.path, "make"):
            self.path.mkdir(parents=True, exist_ok=True)
        busy = f"another process is running the study in {self.place}; wait for it or stop it"
        with exclusive(self.path / LOCK_FILE, busy, note=note):
            fetch(self.path, TABLES)
            self.check_owner()  # the other process may have begun a study in between
            if not self.grows:
                self._claim()
            yield

    def grow(
        self,
        points: Sequence[Mapping[str, Any]],
        left_out: Sequence[str],
        breadth: Groups | None = None,
    ) -> None:
        """Claim the folder, which holds measurements of another spec, for this one; the old spec's file is kept.

        Args:
            points: What the runs measured so far say to the search, as values that JSON can hold. They are kept as they
                are now, so that a search that is started again receives the same.
            left_out: Names of the runs measured so far that this spec would not train.
            breadth: `side_by_side` of a search that goes on; None: it begins anew and chooses its own.
        """
        about, file = self._about(), self.path / SPEC_FILE
        number = 1 + sum(1 for _ in self.path.glob("spec-*.yaml"))
        write_atomic(self.path / f"spec-{number}.yaml", file.read_bytes())
        runs = {"points": list(points), "left_out": sorted(left_out)}
        if breadth is not None:
            runs["side_by_side"] = list(breadth)
        # The identity changes first: a kill in between leaves a spec.yaml that is noticed as changed, and the same
        # command goes on.
        self._write_about(about.get("corpus"), study=self.owner, **runs)
        write_atomic(file, dump_spec(self.spec))

    def note_corpus(self, fingerprint: str) -> None:
        """Note the corpus that the runs are trained on. Raises StudyError if it was another one before."""
        known = self.corpus
        if known is None:
            self._write_about(fingerprint, **self._kept())
        elif known != fingerprint:
            raise StudyError(
                f"the corpus of the study in {self.path} has changed since its first runs were trained; put it back, "
                "or start a study in another folder"
            )

    def note_search(self, breadth: Groups) -> None:
        """Note `side_by_side`, so that the search goes on the same way wherever it is started again."""
        self._write_about(self.corpus, **(self._kept() | {"side_by_side": list(breadth)}))

    def _kept(self) -> dict[str, Any]:
        about = self._about()
        return {key: about[key] for key in KEPT if key in about}

    def _claim(self) -> None:
        file = self.path / SPEC_FILE
        old = load_spec(file, check_files=False) if file.exists() and (self.path / ABOUT_FILE).exists() else None
        if old is not None and old != self.spec and not self.measured:
            remove_inside(self.path, CORPUS)  # of the old spec; nothing was measured on it
        if old is None or self._about().get("spec") != self.identity:
            self._write_about(None)
        if old != self.spec:
            write_atomic(file, dump_spec(self.spec))

    def _write_about(self, corpus: str | None, **more: Any) -> None:
        about = {"format": FORMAT, "raylr": version("raylr"), "spec": self.identity, "corpus": corpus, **more}
        write_atomic(self.path / ABOUT_FILE, json.dumps(about, indent=1) + "\n")

    def _require_same_corpus(self) -> None:
        """Raise StudyError for a spec with another corpus: no measured run could be a run of it."""
        if self._about().get("spec") == self.identity:
            return
        old = load_spec(self.path / SPEC_FILE, check_files=False)
        if why := [one for one in self.spec.differences(old) if one.startswith("corpus")]:
            raise StudyError(
                f"{self.path} holds a study of another corpus ({'; '.join(why[:3])}), of which nothing could be used "
                "again; choose another folder"
            )

    def _list(self, key: str) -> list[Any]:
        found = self._about().get(key) if (self.path / ABOUT_FILE).exists() else None
        return found if isinstance(found, list) else []

    def _about(self) -> dict[str, Any]:
        file = self.path / ABOUT_FILE
        if not file.exists():
            raise StudyError(
                f"{file} is not there, which says whose study this is: put it back, or, if the study is of an earlier "
                "version of raylr, which wrote none, start it again in another folder"
            )
        found = read_json(file)
        if not isinstance(found, dict) or not isinstance(found.get("spec"), str):
            raise DamagedError(f"{file} is damaged: it does not say whose study this is")
        if found.get("format") != FORMAT:
            raise StudyError(f"{self.path} holds a study of another version of raylr, {found.get('raylr')}")
        return found


def open_folder(directory: Path | str) -> StudyFolder:
    """Return the folder of an existing study. Raises StudyError if there is none in `directory`; nothing is written."""
    directory = local_path(directory)
    fetch(directory, TABLES)
    if not (directory / SPEC_FILE).is_file():
        shown = with_addresses(str(directory))
        if (directory / RUNS_FILE).is_file():
            raise StudyError(f"{shown} holds no study but imported runs; `raylr fit {shown}` shows what they say")
        if directory.is_file():
            raise StudyError(
                f"{shown} is neither a study's folder nor a file of runs that can be read: CSV, JSON lines, Parquet, "
                "Arrow"
            )
        if not directory.exists():
            raise StudyError(f"there is no {shown}; `raylr search SPEC --out {shown}` starts a study there")
        raise StudyError(f"{shown} holds no study (there is no {SPEC_FILE} in it); `raylr search` starts one")
    folder = StudyFolder(directory.resolve(), load_spec(directory / SPEC_FILE, check_files=False))
    folder.check_unchanged()
    return folder


def read_json(path: Path) -> Any:
    """Return what a JSON file of the study holds. Raises DamagedError naming it if it is not JSON."""
    with storage_errors(path, "read"):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
