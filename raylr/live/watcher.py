"""`Watcher`: looks at a study's folder now and then, and puts what it finds on a board.

Two threads, so that the page is up to date while something is fitted. One looks at the names of the tables' files each
second and, where they have changed, shows what was measured. The other fits, once for each change of what was measured,
and rests for `REST` times as long as that took: watching takes a small share of one core from a study that runs beside
it. Both stop while nobody asks for the page.

Everything is read; nothing is written, and no lock is taken that a study would wait for.
"""

from __future__ import annotations

import html
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raylr.errors import RaylrError
from raylr.live.answer import Found, answer_of, bug_of, sentence
from raylr.live.board import Block, Board
from raylr.live.progress import clock, key_of, log_blocks, now_blocks, output_blocks, runs_now, state_blocks
from raylr.remote.copies import copy_of, name_of, with_addresses
from raylr.spec.runs import axis_columns, axis_ranges
from raylr.state import state_of
from raylr.store.files import held, names_in
from raylr.store.folder import ENDING_FILE, LOCK_FILE
from raylr.studies import open_study
from raylr.study import Study

AREAS = ("state", "heading", "answer", "now", "sections", "log")
LOOK_SECONDS = 1.0
"""Time between two looks at the folder. A writer flushes its rows every 3 s (`raylr.store.table.FLUSH_SECONDS`)."""
LOOK_AWAY_SECONDS = 5.0
"""The same for a folder at an address, where a look is about ten requests, which are counted and cost money."""
GAP_SECONDS = 3 * LOOK_AWAY_SECONDS
"""A look that comes so long after the one before does not show when a run ended."""
REST = 4.0
"""Rest after a fit, as a multiple of its duration: fitting takes at most a fifth of one core."""
WATCHED_SECONDS = 30.0
"""Without a request for so long nobody watches. A page in a background tab asks every 15 s (live.js)."""


class Watcher:
    """Shows a study's folder on a board.

    Args:
        place: The study's folder, as `raylr.studies.open_study` takes it.
        board: Where it is shown; one with the areas of `AREAS`.
        compute: Returns what the report of the study in a folder would say.

    Raises:
        StudyError: If the folder holds no study and is not an empty one, in which a study may begin.
        DamagedError, SpecError: If it holds one that cannot be read.
    """

    def __init__(self, place: Path, board: Board, *, compute: Callable[[Path], Found] = answer_of) -> None:
        self.place, self.board, self._compute = place, board, compute
        self._stop = threading.Event()
        self._asked = time.monotonic()
        self._seen: Any = None
        """What the last look found."""
        self._known: dict[str, float | None] = {}
        """`key_of` an end of a run → when it was first seen; None for those that came while nobody watched."""
        self._looked = -math.inf
        """Time of the last look."""
        self._fitted: list[Any] = [None, None]
        """The files, and the rows, that the last fit or the last try of one was made of."""
        self._computed: tuple[float, float, int] | None = None
        """When the answer on the board was computed, in how many seconds, from how many measurements."""
        self._problem = ""
        self._rest_until = 0.0
        self._look_thread = threading.Thread(target=self._loop, name="look", daemon=True)
        self._fit_thread: threading.Thread | None = None
        self._bugs: set[str] = set()
        if not self._waiting():
            open_study(place)
        board.title = name_of(place)

    # -- threads --

    def start(self) -> None:
        """Look at the folder until `stop` is called, in a thread."""
        self.requested()
        self._look_thread.start()

    def stop(self) -> None:
        """End the threads, and wait for them: one that is in a library of C++ must not see Python end."""
        self._stop.set()
        if self._look_thread.ident is not None:
            self._look_thread.join()  # it may be starting the other one
        if self._fit_thread is not None:
            self._fit_thread.join()

    def requested(self) -> None:
        """Note that somebody requested the page."""
        self._asked = time.monotonic()

    def _loop(self) -> None:
        while not self._stop.is_set():
            if time.monotonic() - self._asked < WATCHED_SECONDS:
                self.look()
                self._fit_beside()
            self._stop.wait(LOOK_SECONDS if copy_of(self.place) is None else LOOK_AWAY_SECONDS)

    def _fit_beside(self) -> None:
        running = self._fit_thread is not None and self._fit_thread.is_alive()
        if not running and time.monotonic() >= self._rest_until:
            self._fit_thread = threading.Thread(target=self.fit, name="fit", daemon=True)
            self._fit_thread.start()

    # -- what was measured --

    def look(self) -> None:
        """Show what the study does and has measured, if that has changed since the last look."""
        before, self._looked = self._looked, time.monotonic()
        try:
            if self._waiting():
                self._show_waiting()
                return
            study = open_study(self.place)
            seen = self._signature(study)
            if seen != self._seen:
                self._show(study, time.time() if self._looked - before < GAP_SECONDS else None)
                self._seen = seen
        except (RaylrError, OSError) as error:
            self._show_problem(sentence(error))
        except Exception as error:
            self._show_problem(self._bug(bug_of(error), traceback.format_exc()))

    def _waiting(self) -> bool:
        """Return whether the folder is there, and empty: a study may begin in it."""
        return self.place.is_dir() and not names_in(self.place)

    def _signature(self, study: Study) -> Any:
        tables = (study.evaluations, study.trials, study.folder.failures)
        spec = study.spec.model_dump_json()
        files = study.directory / LOCK_FILE, study.directory / ENDING_FILE
        return (spec, [one.version() for one in tables], held(files[0]), files[1].exists(), self._computed,
                self._problem)  # fmt: skip

    def _show(self, study: Study, now: float | None) -> None:
        """Show a study; ends of runs that are new are from `now`, or from a time that is not known."""
        state = state_of(study)
        trials = study.trials.read().to_pylist()
        axes = dict(zip(axis_columns(study.spec), axis_ranges(study.spec), strict=True))
        runs = runs_now(study.evaluations.read().to_pylist(), trials, axes)
        for row in trials:
            self._known.setdefault(key_of(row), now)
        seen = {key: at for key, at in self._known.items() if at is not None}
        self.board.title = study.spec.name
        running, finished = state["state"] == "running", state["state"] == "finished"
        self.board.put("state", state_blocks(state, self._computed_line(state)))
        final = finished and self._computed is not None and self._computed[2] == state["measured"]
        if finished and not final:
            self._rest_until = 0.0  # what is shown is of an earlier time, and nothing runs that a fit would slow down
        words = "Computed before the last measurements" if finished else "If it ended now"
        heading = [] if final or self._computed is None else [Block(id="heading", html=f"<h2>{words}</h2>")]
        self.board.put("heading", heading)
        self.board.put("now", [] if finished else now_blocks(study.spec, runs, running=running))
        names = {run.trial: run.name for run in runs}
        self.board.put("log", [*output_blocks(study, runs), *log_blocks(trials, names, seen)])

    def _computed_line(self, state: dict[str, Any]) -> str:
        if self._problem:
            return self._problem
        if self._computed is None:
            return "The answer is being computed." if state["measured"] else ""
        at, seconds, measured = self._computed
        more = state["measured"] - measured
        text = f"The answer was computed at {clock(at)} from {measured} measurements, in {seconds:.1f} s"
        return f"{text}; {more} more have come since." if more > 0 else f"{text}."

    def _show_waiting(self) -> None:
        where = html.escape(with_addresses(str(self.place)))
        line = f"There is no study in {where} yet; this page shows it once it has begun."
        self.board.put("state", [Block(id="state", html=f'<p class="state stopped" role="status">{line}</p>')])
        self._seen = None

    def _show_problem(self, sentence: str) -> None:
        """Say what is wrong in place of what the study is doing; what was shown before stays below."""
        text = f"{html.escape(sentence)} What is below was read at an earlier time."
        line = f'<p class="state problem" role="status"><b>Cannot read the study</b>: {text}</p>'
        self.board.put("state", [Block(id="state", html=line)])
        self._seen = None

    # -- what was found --

    def fit(self) -> None:
        """Compute what the report says, if anything was measured since the last time, and show it."""
        begun = time.monotonic()
        try:
            if self._waiting():
                return
            study = open_study(self.place)
            files = (study.spec.model_dump_json(), study.evaluations.version(), study.trials.version())
            if files == self._fitted[0]:
                return
            rows = (files[0], study.evaluations.checksum(), study.trials.checksum())
            measured = len(study.evaluations)
            if measured and rows != self._fitted[1]:  # other files with the same rows: they were merged
                found = self._compute(self.place)
                if self._stop.is_set() or found.unread:  # of the folder `look` says what is wrong
                    return
                self._show_found(found, measured, begun)
            self._fitted = [files, rows]
        except (RaylrError, OSError):
            pass  # as above; the next time tries again
        finally:
            self._rest_until = time.monotonic() + REST * (time.monotonic() - begun)

    def _show_found(self, found: Found, measured: int, begun: float) -> None:
        if found.bug or found.problem:
            before = "" if found.bug else "No answer yet: "
            self._problem = html.escape(before + (self._bug(found.bug, found.trace) if found.bug else found.problem))
            return
        self._problem = ""
        self.board.put("answer", [Block(id="answer", html=found.answer)])
        self.board.put("sections", found.sections)
        self._computed = time.time(), time.monotonic() - begun, measured

    def _bug(self, sentence: str, trace: str) -> str:
        """Return the sentence; the traceback goes to the terminal once."""
        if sentence not in self._bugs:
            self._bugs.add(sentence)
            print(trace, file=sys.stderr)
        return sentence
