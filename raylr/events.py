"""What a study shows while it works: a live table on a terminal, a line per event in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from raylr.analysis.units import format_count, format_lr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from raylr.searchers import Recommendation
    from raylr.searchers.tune.searcher import PolicySearch
    from raylr.spec import StudySpec


class Progress(Protocol):
    """Hears what a study does."""

    def stage(self, text: str) -> None:
        """Hear that a stage began."""

    def plan(self, spec: StudySpec, search: PolicySearch) -> None:
        """Hear what is to be done, and whom to ask for the optima as known so far."""

    def started(self, trial: str, config: Mapping[str, Any]) -> None:
        """Hear that a trial began to run."""

    def evaluated(self, row: Mapping[str, Any]) -> None:
        """Hear of one evaluation, as written to the run table."""

    def ended(self, row: Mapping[str, Any]) -> None:
        """Hear of a trial's end, as written to the table of trials; also of trials that were known already."""


class Silent:
    """Shows nothing."""

    def stage(self, text: str) -> None:
        """Show nothing."""

    def plan(self, spec: StudySpec, search: PolicySearch) -> None:
        """Show nothing."""

    def started(self, trial: str, config: Mapping[str, Any]) -> None:
        """Show nothing."""

    def evaluated(self, row: Mapping[str, Any]) -> None:
        """Show nothing."""

    def ended(self, row: Mapping[str, Any]) -> None:
        """Show nothing."""


class ConsoleProgress:
    """Shows a study on a rich console; use as a context manager, so that the live table is put away at the end."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self.console = console
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._spec: StudySpec | None = None
        self._search: PolicySearch | None = None
        self._running: dict[str, dict[str, Any]] = {}
        self._tokens: dict[str, int] = {}
        self._optima: dict[str, Recommendation] = {}
        self._start = time.monotonic()

    def __reduce__(self) -> tuple[type[Silent], tuple[()]]:
        """Stay here: Tune writes its callbacks to disk, and what is read back there shows nothing."""
        return Silent, ()

    def __enter__(self) -> ConsoleProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def stage(self, text: str) -> None:
        """Print the stage with the time since the start."""
        self._print(f"[bold]{text}[/]")

    def plan(self, spec: StudySpec, search: PolicySearch) -> None:
        """Take what the live table is made of."""
        self._spec, self._search = spec, search

    def started(self, trial: str, config: Mapping[str, Any]) -> None:
        """Put a trial into the live table."""
        self._running[trial] = {
            "size": config["size"],
            "lr": config["lr"],
            "target": config["tokens"],
            "loss": math.nan,
        }
        self._show()

    def evaluated(self, row: Mapping[str, Any]) -> None:
        """Update the live table."""
        trial = row["trial"]
        self._tokens[trial] = max(row["tokens"], self._tokens.get(trial, 0))
        if trial in self._running:
            self._running[trial] |= {"loss": row["loss"], "tokens": row["tokens"]}
        self._show()

    def ended(self, row: Mapping[str, Any]) -> None:
        """Print a line for the trial and update the optimum of its size."""
        self._running.pop(row["trial"], None)
        self._tokens[row["trial"]] = row["tokens"]
        if row["role"] == "search" and self._search is not None:
            self._optima[row["size"]] = self._search.recommend(row["size"])
        self._print(f"  {row['size']:<8} lr {format_lr(row['lr'])}  {_outcome(row)}{self._optimum_of(row)}")
        self._show()

    def _optimum_of(self, row: Mapping[str, Any]) -> str:
        found = self._optima.get(row["size"]) if row["role"] == "search" else None
        if found is None or found.lr is None or found.lr_low is None or found.lr_high is None:
            return ""
        return f"  [dim]→ optimum {format_lr(found.lr)} ({format_lr(found.lr_low)} to {format_lr(found.lr_high)})[/]"

    def _print(self, text: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        self.console.print(f"[dim]{minutes:2d}:{seconds:02d}[/] {text}", highlight=False, soft_wrap=True)

    def _show(self) -> None:
        if self._live:
            self._live.update(self._table())

    def _table(self) -> Table:
        from rich.table import Table

        spec = self._spec
        table = Table(title=None, caption=self._spent(), caption_justify="left", box=None, padding=(0, 2))
        for name in ("running", "LR", "tokens", "loss"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for run in self._running.values():
            done = run.get("tokens", 0)
            table.add_row(
                run["size"],
                format_lr(run["lr"]),
                f"{format_count(done)} of {format_count(run['target'])}" if spec else format_count(done),
                f"{run['loss']:.4f}" if math.isfinite(run["loss"]) else "–",
            )
        return table

    def _spent(self) -> str:
        spent = sum(count for trial, count in self._tokens.items() if trial.startswith("search"))
        if self._spec is None:
            return ""
        grid = len(self._spec.sizes) * self._spec.lr.grid * max(self._spec.token_budgets)
        return f"search: {format_count(spent)} tokens, {spent / grid:.0%} of the full grid's {format_count(grid)}"


def _outcome(row: Mapping[str, Any]) -> str:
    """Say how a trial ended."""
    tokens = format_count(row["tokens"])
    match row["status"]:
        case "completed":
            return f"loss {row['loss']:.4f} at {tokens}"
        case "frozen":
            return f"loss {row['loss']:.4f} at {tokens}, may go on"
        case "truncated":
            stderr = row["target_loss_stderr"]
            expected = f"{row['target_loss']:.4f} ± {stderr:.4f} at {format_count(row['target_tokens'])}"
            return f"stopped at {tokens}, expect {expected}"
        case "diverged":
            return f"diverged at {tokens}"
        case status:
            return f"{status} at {tokens}"
