"""The terminal: the console that all commands print to, and the listener that shows progress on it.

On a terminal, running work is a live table and a bar below the lines already printed. In a log file there is a line for
each event and no cursor movement.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylr.analysis.runs import RunEnd
from raylr.analysis.units import format_count, format_lr
from raylr.cli.progress import SearchProgress
from raylr.events import (
    Counted,
    EvaluationPlanned,
    Listener,
    LossMeasured,
    RunEnded,
    RunStarted,
    StudyPlanned,
    SubjectScored,
)
from raylr.remote.copies import with_addresses
from raylr.report.lines import HEADING, broken

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

LOG_WIDTH = 120
"""Columns of output that goes to a file or a pipe, unless COLUMNS is set."""
LOG_SECONDS = 10.0
"""Least time between two lines about one count in a log."""
LOSS_SECONDS = 30.0
"""Least time between two lines about losses in a log, so that hours without the end of a run are not silent."""
TIME = 6
"""Columns of the time in front of a line."""
_SIZE = re.compile("[1-9][0-9]{0,4}")


def forget_odd_sizes() -> None:
    """Remove COLUMNS and LINES from the environment where they are no sizes: rich fails at 5,000 digits and at `²`."""
    for name in ("COLUMNS", "LINES"):
        if not _SIZE.fullmatch(os.environ.get(name, "80")):
            del os.environ[name]


def make_console(**options: Any) -> Console:
    """Return the console of a command: no automatic colours, no emoji codes (`:x:` in a name stays as it is).

    Args:
        options: Of rich's `Console`.
    """
    from rich.console import Console

    class CommandConsole(Console):
        breaks_lines = False
        """Whether long lines are broken between words: on a terminal, and where COLUMNS says how wide the reader is."""

        def on_broken_pipe(self) -> None:
            """Leave it to `raylr.cli.app.main`; rich would end with exit status 1."""
            raise BrokenPipeError

    console = CommandConsole(highlight=False, emoji=False, **options)
    if not console.is_terminal and "COLUMNS" not in os.environ and "width" not in options:
        console.width = LOG_WIDTH
    console.breaks_lines = console.is_terminal or ("COLUMNS" in os.environ and "width" not in options)
    return console


def say(console: Console, text: str, *, heading: str = "", style: str = "") -> None:
    """Print one paragraph; `text` is plain, so that nothing in it is read as markup.

    Args:
        console: Where to print.
        text: The line.
        heading: A word in front of it, in bold and padded to a column of 12.
        style: Style of the text, in rich's words.
    """
    from rich.text import Text

    indent = HEADING if heading else 0
    for i, part in enumerate(broken(with_addresses(text), console, indent)):
        head = heading if i == 0 else ""
        console.print(Text.assemble((f"{head:<{indent}}", "bold"), (part, style)), soft_wrap=True)


class ConsoleListener(Listener):
    """Shows progress on a rich console. Use it as a context manager: the live part goes away at the end.

    Args:
        console: Where to print, as `make_console` returns it.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self._plan: StudyPlanned | None = None
        self._running: dict[str, tuple[RunStarted, LossMeasured | None]] = {}
        self._roles: dict[str, str] = {}
        self._progress = SearchProgress()
        self._count: Counted | None = None
        self._last_line = -math.inf
        self._last_loss = time.monotonic()
        self._questions = 0
        self._scored = 0
        self._start = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            # Made when it is drawn, not with each event: hundreds of runs side by side report more often than twice a
            # second, and the table has a line for each of them.
            self._live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self._below)

    def __reduce__(self) -> tuple[type[Listener], tuple[()]]:
        """Become a silent listener when pickled: Ray Tune writes its callbacks to disk, and a copy has no terminal."""
        return Listener, ()

    def __enter__(self) -> ConsoleListener:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def stage(self, text: str) -> None:
        """Print the stage with the time since the start."""
        self._count = None
        self._line((with_addresses(text), "bold"))

    def message(self, text: str) -> None:
        """Print the message."""
        self._line((with_addresses(text), ""))

    def study_planned(self, event: StudyPlanned) -> None:
        """Keep what the live table shows below the runs."""
        self._plan = event
        self._progress.plan = event

    def run_started(self, event: RunStarted) -> None:
        """Show the run in the live table; in a log, after a silence of `LOSS_SECONDS`, as a line."""
        self._roles[event.run] = event.role
        self._running[event.run] = (event, None)
        if event.role == "search":
            self._progress.started(event.run, event.size, time.monotonic())
        if self._live is None and time.monotonic() - self._last_loss >= LOSS_SECONDS:
            self._line((f"  {event.size:<8} {place(event)}  begins, {format_count(event.tokens)} tokens", ""))

    def loss_measured(self, event: LossMeasured) -> None:
        """Update the run in the live table; in a log, print a line every `LOSS_SECONDS`."""
        if event.run in self._running:
            run = self._running[event.run][0]
            self._running[event.run] = (run, event)
            if run.role == "search":
                self._progress.trained(event.run, run.size, event.tokens, time.monotonic())
            if self._live is None and time.monotonic() - self._last_loss >= LOSS_SECONDS:
                loss = f"{event.loss:.4f}" if math.isfinite(event.loss) else "not finite"
                at = f"{format_count(event.tokens)} of {format_count(run.tokens)}"
                after = self._progress.words() if run.role == "search" else ""
                self._line(
                    (f"  {run.size:<8} {place(run)}  loss {loss} at {at}", ""),
                    (f"  ({after})" if after else "", "dim"),
                )

    def run_ended(self, event: RunEnded) -> None:
        """Print a line for the run, with the optimum of its size after it."""
        self._running.pop(event.run, None)
        self._roles[event.run] = event.role
        shown, after = None, ""
        if event.role == "search":
            self._progress.ended(event.run, event.size, event.tokens, time.monotonic())
            if self._plan is not None and not event.known:  # else a fit for each of the runs measured before
                shown = self._plan.optimum(event.size)
        if shown is not None:
            after = f"  → optimum {format_lr(shown.lr)} ({format_lr(shown.lr_low)} to {format_lr(shown.lr_high)})"
        self._line((f"  {event.size:<8} {place(event)}  {outcome(event)}", ""), (after, "dim"))

    def evaluation_planned(self, event: EvaluationPlanned) -> None:
        """Print how much there is to do."""
        self._questions, self._scored = event.questions, event.known
        known = f", {event.known} of them scored before" if event.known else ""
        self._line((f"{event.questions} questions{known}", ""))

    def subject_scored(self, event: SubjectScored) -> None:
        """Print the subject's score and move the bar."""
        self._scored += event.questions
        self._line((f"  {event.subject:<45} {event.correct} of {event.questions} right", ""))
        self._count = Counted(what="questions", done=self._scored, total=self._questions)

    def counted(self, event: Counted) -> None:
        """Move the bar; in a log, print a line every `LOG_SECONDS` and at the end."""
        ended = event.total is not None and event.done >= event.total and event != self._count
        self._count = event
        now = time.monotonic()
        if self._live is None and (ended or now - self._last_line >= LOG_SECONDS):
            self._last_line = now
            self._line((f"  {count_text(event)}", ""))

    def _line(self, *parts: tuple[str, str]) -> None:
        from rich.text import Text

        now = time.monotonic()
        self._last_loss = now
        minutes, seconds = divmod(round(now - self._start), 60)
        stamp = (f"{minutes:2d}:{seconds:02d} ", "dim")
        whole = "".join(text for text, _ in parts)
        lines = broken(whole, self.console, TIME)
        if len(lines) == 1:
            self.console.print(Text.assemble(stamp, *parts), soft_wrap=True)
            return
        split = [(line, style) for text, style in parts if text for line in broken(text, self.console, TIME + 4)]
        for i, (text, style) in enumerate(split):
            front = stamp if i == 0 else (" " * (TIME + 4), "")
            self.console.print(Text.assemble(front, (text if i == 0 else text.lstrip(), style)), soft_wrap=True)

    def _below(self) -> RenderableType:
        """What is shown below the lines. Another thread calls this, so that it copies what it goes through."""
        from rich.console import Group

        return Group(*self._parts())

    def _parts(self) -> list[RenderableType]:
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        parts: list[RenderableType] = [self._table()] if self._running else []
        if self._plan is not None:
            spent, whole = self._progress.spent, format_count(self._plan.grid_tokens)
            share = f"{spent / self._plan.grid_tokens:.0%} of the full grid's {whole}"
            parts.append(Text(f"Search: {format_count(spent)} tokens, {share}", style="dim"))
            if words := self._progress.words():
                parts.append(Text(f"        {words}", style="dim"))
        if self._count is not None:
            parts.append(Text(count_text(self._count)))
            if self._count.total is not None:
                parts.append(ProgressBar(total=self._count.total, completed=self._count.done, width=60))
        return parts

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2))
        for name in ("running", "LR", "tokens", "loss"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for run, last in tuple(self._running.values()):
            done = last.tokens if last else 0
            table.add_row(
                Text(run.size),
                place(run).removeprefix("LR "),
                f"{format_count(done)} of {format_count(run.tokens)}",
                f"{last.loss:.4f}" if last and math.isfinite(last.loss) else "–",
            )
        return table


def place(run: RunStarted | RunEnded) -> str:
    """Return the LR of a run, and what else was searched: `LR 4.70e-3, lm_head 2.86`. Factors of 1 are left out."""
    return f"LR {lr_and_axes(run.lr, run.axes)}"


def lr_and_axes(lr: float, axes: Mapping[str, float]) -> str:
    """Return an LR, and what else was searched but for factors of 1: `4.70e-3, lm_head 2.86`."""
    return ", ".join([format_lr(lr), *(f"{name} {value:.3g}" for name, value in axes.items() if value != 1)])


def count_text(event: Counted) -> str:
    """Return a count as a person reads it: `12k of 50k documents (24%)`."""
    if event.total is None:
        return f"{format_count(event.done)} {event.what}"
    share = event.done / event.total if event.total else 1.0
    return f"{format_count(event.done)} of {format_count(event.total)} {event.what} ({share:.0%})"


def outcome(event: RunEnded) -> str:
    """Return how a run ended, as part of a sentence."""
    tokens = format_count(event.tokens)
    match event.end:
        case RunEnd.COMPLETED:
            return f"loss {event.loss:.4f} at {tokens}"
        case RunEnd.PAUSED:
            return f"loss {event.loss:.4f} at {tokens}, paused"
        case RunEnd.TRUNCATED if event.target_loss is not None and event.target_loss_stderr is not None:
            at = format_count(event.target_tokens)
            return f"truncated at {tokens}, expected {event.target_loss:.4f} ± {event.target_loss_stderr:.4f} at {at}"
        case RunEnd.NO_REPORT:
            return f"ended at {tokens} without reporting a loss"
        case end:
            return f"{end} at {tokens}"
